//! A timeout has a unit.

use rpc_core::service;

#[service]
trait NoUnit {
    #[rpc(timeout = "2")]
    async fn m(&self) -> u8;
}

fn main() {}

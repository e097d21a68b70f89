//! A timeout is longer than nothing.

use rpc_core::service;

#[service]
trait ZeroTimeout {
    #[rpc(timeout = "0s")]
    async fn m(&self) -> u8;
}

fn main() {}

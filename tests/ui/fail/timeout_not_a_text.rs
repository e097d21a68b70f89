//! A timeout is a text.

use rpc_core::service;

#[service]
trait NumberTimeout {
    #[rpc(timeout = 2)]
    async fn m(&self) -> u8;
}

fn main() {}

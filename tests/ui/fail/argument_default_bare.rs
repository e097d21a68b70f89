//! In the bare profile the argument is the whole body.

use rpc_core::service;

#[service(queue = "rpc_queue")]
trait BareDefault {
    async fn m(&self, #[rpc(default)] n: u8) -> u8;
}

fn main() {}

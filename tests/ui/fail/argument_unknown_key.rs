//! Options of #[rpc] on an argument are known.

use rpc_core::service;

#[service]
trait UnknownArgumentKey {
    async fn m(&self, #[rpc(defualt)] n: u8, #[rpc(idempotent)] o: u8, #[rpc] p: u8) -> u8;
}

fn main() {}

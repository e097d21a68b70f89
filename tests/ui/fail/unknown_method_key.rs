//! Keys of #[rpc] are known.

use rpc_core::service;

#[service]
trait UnknownMethodKey {
    #[rpc(idempotant)]
    async fn m(&self) -> u8;
}

fn main() {}

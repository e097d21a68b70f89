//! A hedged method may run twice.

use rpc_core::service;

#[service]
trait HedgeNotIdempotent {
    #[rpc(hedge)]
    async fn m(&self) -> u8;
}

fn main() {}

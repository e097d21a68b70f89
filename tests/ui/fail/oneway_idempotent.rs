//! Idempotent means nothing for one-way methods.

use rpc_core::service;

#[service]
trait OneWayIdempotent {
    #[rpc(oneway, idempotent)]
    async fn m(&self);
}

fn main() {}

//! A one-way method has no reply.

use rpc_core::service;

#[service]
trait OneWayResult {
    #[rpc(oneway)]
    async fn m(&self) -> u8;
}

fn main() {}

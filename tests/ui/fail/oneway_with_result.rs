//! A one-way method has no reply, and its error stays in the pool.

use rpc_core::service;

struct NoText;

#[service]
trait OneWayResult {
    #[rpc(oneway)]
    async fn plain(&self) -> u8;
    #[rpc(oneway)]
    async fn fallible(&self) -> Result<u8, String>;
}

#[service]
trait OneWayError {
    #[rpc(oneway)]
    async fn m(&self) -> Result<(), NoText>;
}

fn main() {}

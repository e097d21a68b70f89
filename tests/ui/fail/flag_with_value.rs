//! A flag takes no value.

use rpc_core::service;

#[service]
trait FlagValue {
    #[rpc(idempotent = true)]
    async fn m(&self) -> u8;
}

fn main() {}

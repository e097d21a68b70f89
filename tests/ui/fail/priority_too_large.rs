//! A priority fits a byte.

use rpc_core::service;

#[service]
trait HighPriority {
    #[rpc(priority = 256)]
    async fn m(&self) -> u8;
}

fn main() {}

//! The default of an argument is its type's.

use rpc_core::service;

#[service]
trait DefaultValue {
    async fn m(&self, #[rpc(default = "three")] n: u8) -> u8;
}

fn main() {}

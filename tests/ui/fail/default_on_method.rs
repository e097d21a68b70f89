//! A default belongs to an argument.

use rpc_core::service;

#[service]
trait DefaultOnMethod {
    #[rpc(default)]
    async fn m(&self, n: u8) -> u8;
}

fn main() {}

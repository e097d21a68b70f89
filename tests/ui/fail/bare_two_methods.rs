//! The bare profile has one method.

use rpc_core::service;

#[service(queue = "rpc_queue")]
trait BareTwo {
    async fn a(&self, n: u8) -> u8;
    async fn b(&self, n: u8) -> u8;
}

fn main() {}

//! A method name travels in a routing key.

use rpc_core::service;

#[service]
trait BadMethodName {
    #[rpc(name = "do it")]
    async fn m(&self) -> u8;
}

fn main() {}

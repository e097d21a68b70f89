//! A name travels in a routing key.

use rpc_core::service;

#[service(name = "My.Service")]
trait BadServiceName {
    async fn m(&self) -> u8;
}

fn main() {}

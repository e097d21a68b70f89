//! An argument has one concrete type.

use rpc_core::service;

#[service]
trait ImplArgument {
    async fn m(&self, n: impl Into<u8>) -> u8;
}

fn main() {}

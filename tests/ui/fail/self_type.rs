//! An argument is the same for every implementation.

use rpc_core::service;

#[service]
trait SelfType {
    async fn m(&self, other: Vec<Self>) -> u8;
}

fn main() {}

//! A key is given once.

use rpc_core::service;

#[service(name = "a", name = "b")]
trait KeyTwice {
    async fn m(&self) -> u8;
}

fn main() {}

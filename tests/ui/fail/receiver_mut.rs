//! Many requests are handled at once.

use rpc_core::service;

#[service]
trait Mutable {
    async fn m(&mut self) -> u8;
}

fn main() {}

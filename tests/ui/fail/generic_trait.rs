//! A service is not generic.

use rpc_core::service;

#[service]
trait Generic<T> {
    async fn m(&self) -> u8;
}

fn main() {}

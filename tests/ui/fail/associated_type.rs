//! A service has methods only.

use rpc_core::service;

#[service]
trait WithType {
    type Item;
    async fn m(&self) -> u8;
}

fn main() {}

//! Attributes on arguments are not carried over.

use rpc_core::service;

#[service]
trait ArgumentAttribute {
    async fn m(&self, #[serde(default)] n: u8) -> u8;
}

fn main() {}

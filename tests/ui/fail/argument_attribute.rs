//! Attributes on arguments are not copied.

use rpc_core::service;

#[service]
trait ArgumentAttribute {
    async fn m(&self, #[serde(default)] n: u8, #[serde(rename = "x")] o: u8) -> u8;
}

fn main() {}

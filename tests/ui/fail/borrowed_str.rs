//! An argument owns its data: `String` for `&str`.

use rpc_core::service;

#[service]
trait Borrowed {
    async fn m(&self, text: &str) -> u8;
}

fn main() {}

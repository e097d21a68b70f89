//! Borrowed data is found inside other types.

use rpc_core::service;

#[service]
trait BorrowedInside {
    async fn m(&self, texts: Vec<&str>) -> u8;
}

fn main() {}

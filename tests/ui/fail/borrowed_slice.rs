//! An argument owns its data: `Vec` for a slice.

use rpc_core::service;

#[service]
trait BorrowedSlice {
    async fn m(&self, bytes: &[u8]) -> u8;
}

fn main() {}

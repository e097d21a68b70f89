//! A result owns its data.

use rpc_core::service;

#[service]
trait BorrowedResult {
    async fn m(&self) -> &u8;
}

fn main() {}

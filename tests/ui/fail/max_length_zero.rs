//! A queue that holds nothing serves nobody.

use rpc_core::service;

#[service(max_length = 0)]
trait MaxLengthZero {
    async fn m(&self) -> u8;
}

fn main() {}

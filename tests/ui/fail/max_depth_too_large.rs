//! Deeper bodies would exhaust a thread's stack.

use rpc_core::service;

#[service(max_depth = 10001)]
trait MaxDepthTooLarge {
    async fn m(&self) -> u8;
}

fn main() {}

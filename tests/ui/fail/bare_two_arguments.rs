//! The bare profile has one argument.

use rpc_core::service;

#[service(queue = "rpc_queue")]
trait BareArguments {
    async fn a(&self, n: u8, m: u8) -> u8;
}

fn main() {}

//! A service answers more than one request.

use rpc_core::service;

#[service]
trait ByValue {
    async fn m(self) -> u8;
}

fn main() {}

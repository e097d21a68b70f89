//! A service has methods only.

use rpc_core::service;

#[service]
trait WithConst {
    const N: u8;
    async fn m(&self) -> u8;
}

fn main() {}

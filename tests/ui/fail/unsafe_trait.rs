//! A service is not unsafe.

use rpc_core::service;

#[service]
unsafe trait Dangerous {
    async fn m(&self) -> u8;
}

fn main() {}

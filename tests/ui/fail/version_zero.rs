//! Versions count from 1.

use rpc_core::service;

#[service(version = 0)]
trait VersionZero {
    async fn m(&self) -> u8;
}

fn main() {}

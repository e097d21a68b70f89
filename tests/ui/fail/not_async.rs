//! A remote method is asynchronous.

use rpc_core::service;

#[service]
trait Sync {
    fn m(&self) -> u8;
}

fn main() {}

//! An argument travels under its name.

use rpc_core::service;

#[service]
trait Pattern {
    async fn m(&self, (a, b): (u8, u8)) -> u8;
}

fn main() {}

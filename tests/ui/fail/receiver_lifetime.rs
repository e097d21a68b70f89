//! A receiver needs no lifetime.

use rpc_core::service;

#[service]
trait Lived {
    async fn m<'a>(&'a self) -> u8;
}

fn main() {}

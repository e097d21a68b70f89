//! Some names below `rpc.` are the framework's own.

use rpc_core::service;

#[service(name = "reply")]
trait Named {
    async fn m(&self) -> u8;
}

#[service]
trait Cancel {
    async fn m(&self) -> u8;
}

fn main() {}

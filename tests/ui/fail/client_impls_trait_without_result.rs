//! A call can always fail.

use rpc_core::service;

#[service(client_impls_trait)]
trait Infallible {
    async fn m(&self) -> u8;
}

fn main() {}

//! A remote method is not generic.

use rpc_core::service;

#[service]
trait GenericMethod {
    async fn m<T>(&self, t: T) -> u8;
}

fn main() {}

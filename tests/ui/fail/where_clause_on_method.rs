//! A remote method has no where clause.

use rpc_core::service;

#[service]
trait WhereMethod {
    async fn m(&self) -> u8
    where
        Self: Sized;
}

fn main() {}

//! A service has no where clause.

use rpc_core::service;

#[service]
trait Bounded
where
    Self: Sized,
{
    async fn m(&self) -> u8;
}

fn main() {}

//! A method name that cannot travel is renamed by attribute.

use rpc_core::service;

#[service]
trait UpperCase {
    #[allow(non_snake_case)]
    async fn doIt(&self) -> u8;
}

fn main() {}

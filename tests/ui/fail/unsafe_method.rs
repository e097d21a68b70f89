//! A remote method is not unsafe.

use rpc_core::service;

#[service]
trait UnsafeMethod {
    async unsafe fn m(&self) -> u8;
}

fn main() {}

//! A remote method has no ABI.

use rpc_core::service;

#[service]
trait ExternMethod {
    async extern "C" fn m(&self) -> u8;
}

fn main() {}

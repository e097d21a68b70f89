//! Arguments may be named like anything generated.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service(dyn_trait)]
pub trait Names {
    /// A method.
    async fn m(&self, request: u8, service: u8, result: u8, method: u8, client: u8, arguments: u8, call: u8) -> u8;
}

fn main() {}

//! Two services live in one module.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// One.
#[service]
pub trait One {
    /// A method.
    async fn m(&self) -> u8;
}

/// Another.
#[service]
pub trait Two {
    /// A method of the same name.
    async fn m(&self) -> u8;
}

fn main() {}

//! Raw identifiers travel without their r#.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service]
pub trait Raw {
    /// A method.
    async fn r#type(&self, r#ref: u8, r#match: String) -> u8;
}

fn main() {}

//! Another type may be called `Context`.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// Tax law.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Context;

/// A service.
#[service]
pub trait Tax {
    /// A method.
    async fn m(&self, context: Context) -> u8;
}

fn main() {}

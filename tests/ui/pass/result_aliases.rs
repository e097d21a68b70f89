//! Aliases called `Result` are understood, with two types, one or none.
#![deny(missing_docs, warnings)]

use rpc_core::{Call, service};

/// An error.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Failure;

mod one {
    pub type Result<T> = core::result::Result<T, super::Failure>;
}

mod none {
    pub type Result = core::result::Result<u8, super::Failure>;
}

mod with_default {
    pub type Result<T, E = super::Failure> = core::result::Result<T, E>;
}

/// A service.
#[service(dyn_trait)]
pub trait Aliases {
    /// One type.
    async fn one(&self) -> one::Result<u8>;
    /// No type.
    async fn none(&self) -> none::Result;
    /// One of two types.
    async fn with_default(&self) -> with_default::Result<u8>;
    /// Two types.
    async fn both(&self) -> with_default::Result<u8, Failure>;
    /// The standard type by its path.
    async fn std(&self) -> std::result::Result<u8, Failure>;
}

/// Every call's error is the service's.
pub fn calls(client: &AliasesClient) -> [Call<u8, Failure>; 5] {
    [client.one(), client.none(), client.with_default(), client.both(), client.std()]
}

fn main() {}

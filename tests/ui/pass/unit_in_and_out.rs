//! A method may take and give nothing.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service]
pub trait Unit {
    /// Nothing.
    async fn nothing(&self);
    /// Explicitly.
    async fn unit(&self, unit: ()) -> ();
    /// One way.
    #[rpc(oneway)]
    async fn gone(&self, n: u8);
}

fn main() {}

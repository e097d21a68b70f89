//! The crate may be known by another name.
#![deny(missing_docs, warnings)]

use rpc_core as remote;

/// A service.
#[remote::service(crate = "remote")]
pub trait Renamed {
    /// A method.
    async fn m(&self, n: u8) -> u8;
}

fn main() {}

//! A deprecated method warns its callers, not its definition.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service(dyn_trait)]
pub trait Old {
    /// A method.
    #[deprecated = "use the other one"]
    async fn m(&self) -> u8;
}

fn main() {}

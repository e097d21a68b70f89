//! A method that is not compiled is in nothing that is generated.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service(client_impls_trait, dyn_trait)]
pub trait Cfg {
    /// Not here.
    #[cfg(not(all()))]
    async fn absent(&self, n: NoSuchType) -> Result<u8, Failure>;
    /// Here.
    #[cfg(all())]
    async fn present(&self, n: u8) -> Result<u8, Failure>;
}

/// Why not.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Failure;

impl From<rpc_core::CallError> for Failure {
    fn from(_: rpc_core::CallError) -> Self {
        Self
    }
}

fn main() {}

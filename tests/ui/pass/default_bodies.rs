//! Default bodies work, also with `?` and other methods.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service]
pub trait Defaults {
    /// A method.
    async fn one(&self) -> Result<u8, String>;
    /// Twice that.
    async fn two(&self) -> Result<u8, String> {
        let one = self.one().await?;
        Ok(one + one)
    }
}

struct Implementation;

impl Defaults for Implementation {
    async fn one(&self) -> Result<u8, String> {
        Ok(1)
    }
}

fn main() {
    let _ = DefaultsServer::new(Implementation);
}

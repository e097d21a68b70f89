//! An argument may have a default.
#![deny(missing_docs, warnings)]

use rpc_core::{Context, service};

/// A service.
#[service(dyn_trait)]
pub trait Defaults {
    /// A method.
    async fn m(&self, ctx: &Context, n: u8, #[rpc(default)] times: u32, #[rpc(default)] tags: Vec<String>) -> u8;
}

struct Implementation;

impl Defaults for Implementation {
    async fn m(&self, _: &Context, n: u8, _: u32, _: Vec<String>) -> u8 {
        n
    }
}

fn main() {
    let _ = DefaultsServer::new(Implementation);
}

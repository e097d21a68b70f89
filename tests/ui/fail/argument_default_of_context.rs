//! The context is never missing.

use rpc_core::{Context, service};

#[service]
trait DefaultContext {
    async fn m(&self, #[rpc(default)] ctx: &Context) -> u8;
}

fn main() {}

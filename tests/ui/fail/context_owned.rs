//! The context is borrowed.

use rpc_core::{Context, service};

#[service]
trait OwnedContext {
    async fn m(&self, ctx: Context, n: u8) -> u8;
}

fn main() {}

//! One context is enough.

use rpc_core::service;

use rpc_core::Context;

#[service]
trait TwoContexts {
    async fn m(&self, a: &Context, b: &Context) -> u8;
}

fn main() {}

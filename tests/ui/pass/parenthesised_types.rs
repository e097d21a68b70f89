//! Parentheses around a type change nothing.
#![allow(unused_parens)]

use rpc_core::{Call, Context, service};

mod own {
    pub(crate) type Result<T> = std::result::Result<T, String>;
}

/// A service.
#[service]
trait Parenthesised {
    /// A `Result`.
    async fn fallible(&self, ctx: (&(Context)), n: ((u32))) -> ((Result<(u32), (String)>));
    /// An alias of `Result`.
    async fn alias(&self) -> (own::Result<u8>);
    /// No reply.
    #[rpc(oneway)]
    async fn nothing(&self) -> (());
}

fn calls(client: &ParenthesisedClient) {
    let _: Call<u32, String> = client.fallible(1);
    let _: Call<u8, String> = client.alias();
}

fn main() {
    let _ = calls;
}

//! Every option at once.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// A service.
#[service(name = "every-option", version = 2, codec = "json", max_length = 1000)]
pub trait Every {
    /// A method.
    #[rpc(name = "first", alias = "one", alias = "uno", timeout = "250ms", idempotent, hedge, priority = 9, queue = "fast")]
    async fn a(&self) -> u8;
    /// Another.
    #[rpc(timeout = "1h", blocking, no_cancel)]
    async fn b(&self) -> u8;
}

fn main() {}

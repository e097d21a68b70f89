//! The framework's own codes mean something else, whether they are written or made of a variant's name.

use rpc_core::ServiceError;

#[derive(Debug, thiserror::Error, ServiceError)]
enum StockError {
    #[error("too late")]
    Timeout,
    #[error("too many")]
    #[rpc(code = "overloaded", retryable)]
    Busy,
    #[error("only {left} left")]
    TooFew { left: u32 },
}

fn main() {}

//! Each mistake is reported at its token.

use rpc_core::ServiceError;

#[derive(Debug, thiserror::Error, ServiceError)]
#[error("it failed")]
#[rpc(retryable)]
enum Failed {
    #[rpc(retryabel)]
    Misspelt,
    #[rpc(retry_after = "soon")]
    NoTime,
    #[rpc(retry_after = "0s")]
    AtOnce,
    #[rpc(code = "Sold Out")]
    SoldOut,
    #[rpc(code = "misspelt")]
    Again,
    #[rpc(retryable = true)]
    Flag,
    #[rpc]
    Empty,
    Größe,
}

fn main() {}

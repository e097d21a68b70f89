//! Callers read its text.

use rpc_core::ServiceError;

#[derive(Debug, ServiceError)]
enum StockError {
    TooFew,
}

fn main() {}

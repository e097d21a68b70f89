//! The contract of both services: a crate of its own in real life, which callers and servers share.

use rpc_core::{CallError, Context, ServiceError, service};
use serde::{Deserialize, Serialize};

/// The warehouse.
#[service]
pub trait Stock {
    /// Takes pieces out for an order, once, however often it is asked; returns how many are left.
    #[rpc(idempotent, timeout = "2s")]
    async fn take(&self, order: String, article: String, pieces: u32, ctx: &Context) -> Result<u32, StockError>;
}

/// The warehouse's own errors.
#[derive(Debug, PartialEq, thiserror::Error, ServiceError, Serialize, Deserialize)]
pub enum StockError {
    #[error("only {left} left")]
    TooFew { left: u32 },
    #[error("another order is being picked")]
    #[rpc(code = "busy", retryable, retry_after = "5ms")]
    Busy,
    #[error("the warehouse cannot be asked: {0}")]
    Unavailable(String),
}

impl From<CallError> for StockError {
    fn from(error: CallError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Orders of customers.
#[service]
pub trait Orders {
    /// Takes the pieces out of the warehouse, and stores the order under its id.
    #[rpc(idempotent, timeout = "3s")]
    async fn place(&self, order: Order, ctx: &Context) -> Result<Placed, StockError>;
}

/// An order, as a customer sends it.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    pub article: String,
    pub pieces: u32,
}

/// An order that is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    pub customer: String,
    pub left: u32,
}

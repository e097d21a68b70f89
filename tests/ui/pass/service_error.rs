//! The derive stands beside others, on enums and structs, and leaves serde's form of the error as it is.
#![deny(missing_docs, warnings)]

use std::{fmt, time::Duration};

use rpc_core::{CallError, ServiceError, service};
use serde::{Deserialize, Serialize};

/// With thiserror and serde.
#[derive(Debug, thiserror::Error, ServiceError, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StockError {
    /// A variant with fields.
    #[error("only {left} left")]
    TooFew {
        /// How many.
        left: u32,
    },
    /// One to wait for.
    #[error("the stock is being counted")]
    #[rpc(code = "stocktaking", retry_after = "2s")]
    Counting,
    /// One to try again.
    #[error("{0}")]
    #[rpc(retryable)]
    #[serde(skip)]
    Busy(String),
    /// A raw identifier.
    #[error("type")]
    r#Type,
}

/// A struct as a whole.
#[derive(Debug, ServiceError, Serialize, Deserialize)]
#[rpc(code = "closed", retryable)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed")
    }
}

/// A generic one.
#[derive(Debug, thiserror::Error, ServiceError, Serialize, Deserialize)]
#[error("{0}")]
pub struct Wrapped<T: fmt::Display>(T);

/// One that never happens.
#[derive(Debug, thiserror::Error, ServiceError)]
pub enum Never {}

/// A module without a prelude.
pub mod bare {
    #![no_implicit_prelude]

    /// An error.
    #[derive(::std::fmt::Debug, ::thiserror::Error, ::rpc_core::ServiceError, ::serde::Serialize, ::serde::Deserialize)]
    pub enum Bare {
        /// A variant.
        #[error("some")]
        #[rpc(retry_after = "250ms")]
        Some,
        /// Another one.
        #[error("none")]
        None,
    }

    /// A service.
    #[::rpc_core::service]
    pub trait Service {
        /// A method.
        async fn m(&self) -> ::core::result::Result<u8, Bare>;
    }
}

/// An error without the derive stands beside those with it.
#[service]
pub trait Stock {
    /// With.
    async fn take(&self) -> Result<u32, StockError>;
    /// Without.
    async fn count(&self) -> Result<u32, String>;
    /// Of a struct.
    async fn open(&self) -> Result<(), Closed>;
    /// Of a generic one.
    async fn wrap(&self) -> Result<(), Wrapped<u8>>;
}

fn main() {
    assert_eq!(StockError::CODES, ["too_few", "stocktaking", "busy", "type"]);
    let counting = StockError::Counting;
    assert_eq!((counting.code(), counting.is_retryable()), ("stocktaking", true));
    assert_eq!(counting.retry_after(), Some(Duration::from_secs(2)));
    let busy = StockError::Busy(String::new());
    assert_eq!((busy.is_retryable(), busy.retry_after()), (true, None));
    assert!(!StockError::TooFew { left: 1 }.is_retryable());
    assert_eq!(StockError::r#Type.code(), "type");
    assert_eq!((Closed.code(), Closed.is_retryable()), ("closed", true));
    assert_eq!(Wrapped(7).code(), "wrapped");
    assert_eq!(bare::Bare::Some.retry_after(), Some(Duration::from_millis(250)));
    assert_eq!(Never::CODES, [""; 0]);
    let error = CallError::described("stock", "take", counting);
    assert_eq!((error.code(), error.is_retryable()), ("stocktaking", true));
}

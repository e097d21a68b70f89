//! [`ErrorDetails`] and [`UnknownError`]: a service's own error, as the headers of the reply describe it.

use std::time::Duration;

use bytes::Bytes;

use super::service_error::ServiceError;

/// A service's own error, as the headers of the reply describe it. Types with [`ServiceError`] send them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorDetails {
    /// The header `rpc-error-code`; `service` when absent.
    pub code: String,
    /// The header `rpc-message`; empty when absent.
    pub message: String,
    /// The header `rpc-retryable`. The default is false.
    pub retryable: bool,
    /// The header `rpc-retry-after-ms`: how long to wait before the next attempt. The default is `None`.
    pub retry_after: Option<Duration>,
}

impl ErrorDetails {
    /// An error with a code of its own, that is not retryable.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, retry_after: None }
    }

    /// Those that the error states of itself.
    pub fn of<E: ServiceError>(error: &E) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
        }
    }

    /// Sets [`retryable`](Self#structfield.retryable).
    #[must_use]
    pub const fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Sets [`retry_after`](Self#structfield.retry_after), and that it is retryable.
    #[must_use]
    pub const fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self.retryable(true)
    }
}

/// A service's own error that the caller's type of it does not have: a variant of a newer server, for example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownError {
    /// The header `rpc-error-code`.
    pub code: String,
    /// The header `rpc-message`; empty when absent.
    pub message: String,
    /// The encoded error.
    pub body: Bytes,
    /// The header `rpc-retryable`. The default is false.
    pub retryable: bool,
    /// The header `rpc-retry-after-ms`: how long to wait before the next attempt. The default is `None`.
    pub retry_after: Option<Duration>,
}

impl UnknownError {
    /// The error with these details and this encoding.
    pub fn new(details: ErrorDetails, body: impl Into<Bytes>) -> Self {
        let ErrorDetails { code, message, retryable, retry_after } = details;
        Self { code, message, body: body.into(), retryable, retry_after }
    }
}

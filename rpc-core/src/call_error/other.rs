//! [`OtherError`]: what a reply says of an error that this version does not know.

use std::time::Duration;

/// An error whose code this version does not know, as the reply describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherError {
    /// The header `rpc-code`.
    pub code: String,
    /// The header `rpc-message`; empty when absent.
    pub message: String,
    /// False when the header `rpc-executed` is false. The default is true.
    pub maybe_executed: bool,
    /// The header `rpc-retryable`. The default is false.
    pub retryable: bool,
    /// The header `rpc-retry-after-ms`: how long to wait before the next attempt. The default is `None`.
    pub retry_after: Option<Duration>,
}

impl OtherError {
    /// An error that may have been executed and is not retryable.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), maybe_executed: true, retryable: false, retry_after: None }
    }

    /// Sets [`maybe_executed`](Self#structfield.maybe_executed).
    #[must_use]
    pub const fn maybe_executed(mut self, maybe_executed: bool) -> Self {
        self.maybe_executed = maybe_executed;
        self
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

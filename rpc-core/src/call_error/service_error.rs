//! [`ServiceError`]: a service's own error that says how callers should treat it.

use std::{fmt, time::Duration};

/// A service's own error that tells its callers whether they should try again, under a code of its own.
///
/// `#[derive(ServiceError)]` implements it, beside `#[derive(thiserror::Error)]` on the same enum:
///
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// use std::time::Duration;
///
/// use rpc_core::ServiceError;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, thiserror::Error, ServiceError, Serialize, Deserialize)]
/// enum StockError {
///     #[error("only {left} left")]
///     TooFew { left: u32 },
///     #[error("the stock is being counted")]
///     #[rpc(code = "stocktaking", retry_after = "2s")]
///     Counting,
/// }
///
/// assert_eq!(StockError::TooFew { left: 1 }.code(), "too_few");
/// assert_eq!(StockError::Counting.retry_after(), Some(Duration::from_secs(2)));
/// assert!(StockError::Counting.is_retryable());
/// ```
///
/// A service that returns such an error sends these facts as headers beside it, and the caller finds them in
/// [`CallError::code`](crate::CallError::code), [`is_retryable`](crate::CallError::is_retryable) and
/// [`retry_after`](crate::CallError::retry_after). A caller that was built before a variant existed gets
/// [`CallError::UnknownError`](crate::CallError::UnknownError). The data of the error travels as for any other type.
///
/// An implementation by hand can compute the time, for example from a field. The text of its `Display` travels, too, up to 2 048
/// bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how callers should treat it",
    note = "derive `rpc_core::ServiceError` for it"
)]
pub trait ServiceError: fmt::Display {
    /// Every code that [`code`](Self::code) returns. None may be one of the [framework's own](crate::guide::errors); a service with
    /// such an error does not compile.
    const CODES: &'static [&'static str];

    /// The code of this error: a stable name for logs, metrics and callers in other languages. The derive's default is the name of the
    /// variant in snake case.
    fn code(&self) -> &'static str;

    /// Whether the same call may succeed later. The default is no.
    fn is_retryable(&self) -> bool {
        false
    }

    /// How long callers should wait before they try again. The default is `None`: it is up to them.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// Whether a code is one that the framework itself gives to a call.
pub const fn is_code_of_framework(code: &str) -> bool {
    let mut at = 0;
    while at < FRAMEWORK_CODES.len() {
        if is_same(code.as_bytes(), FRAMEWORK_CODES[at].as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// `ok`, and the codes of [`CallError`](crate::CallError).
pub(crate) const FRAMEWORK_CODES: &[&str] = &[
    "ok",
    "service",
    "no_such_service",
    "no_such_method",
    "bad_request",
    "bad_version",
    "overloaded",
    "timeout",
    "disconnected",
    "internal",
    "abandoned",
    "bad_reply",
    "payload_too_large",
    "shutdown",
    "topology",
    "layer",
    "forbidden",
];

//! [`CallError`]: how one call ended, when not with its value.
//!
//! Pure data. The client makes it from what happened on its side, `envelope` from a reply's headers; it knows neither.

mod constructors;
mod details;
mod other;
mod service_error;
mod stage;
mod text;

use std::{convert::Infallible, sync::Arc, time::Duration};

pub(crate) use self::service_error::FRAMEWORK_CODES;
pub use self::{
    details::{ErrorDetails, UnknownError},
    other::OtherError,
    service_error::{ServiceError, is_code_of_framework},
    stage::TimeoutStage,
};
use crate::error::Error;

/// How one call ended, when not with its value.
///
/// Every variant names the `service` and the `method` that was called. [`maybe_executed`](Self::maybe_executed) says
/// whether the handler may have run, [`is_retryable`](Self::is_retryable) whether trying again can help, and
/// [`code`](Self::code) gives the error's name.
///
/// The service's own error is the [`source`](std::error::Error::source) of [`Service`](Self::Service), and the text of
/// `CallError` does not repeat it: print the whole chain, or `{error:#}`, which adds the source.
///
/// ```
/// # use rpc_core::CallError;
/// # #[derive(Debug, thiserror::Error)]
/// # enum StockError {
/// #     #[error("only {left} left")]
/// #     TooFew { left: u32 },
/// # }
/// fn describe(error: &CallError<StockError>) -> String {
///     match error {
///         CallError::Service { error: StockError::TooFew { left }, .. } => format!("only {left} left"),
///         CallError::Timeout { stage, .. } => format!("no answer: {stage}"),
///         error if error.maybe_executed() => format!("taken or not: {error}"),
///         error => format!("not taken: {error:#}"),
///     }
/// }
/// ```
///
/// Each variant has a constructor, for tests and for stand-ins of a client. It is named after the
/// [`code`](Self::code):
///
/// ```
/// # use rpc_core::CallError;
/// let error: CallError = CallError::overloaded("stock", "take", "the queue is full");
/// assert!(error.is_retryable() && !error.maybe_executed());
/// assert_eq!(error.to_string(), "stock.take: overloaded: the queue is full; try again later");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CallError<E = Infallible> {
    /// The handler ran and returned this error.
    #[non_exhaustive]
    Service {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The service's own error.
        error: E,
        /// The code and the advice that came with it, if any did: of an error with [`ServiceError`], for example.
        details: Option<Box<ErrorDetails>>,
    },
    /// The handler ran and returned an error that the caller's type of it does not have: a newer worker, for example, has a new
    /// variant. Only errors with [`ServiceError`] arrive so, others as [`BadReply`](Self::BadReply).
    #[non_exhaustive]
    UnknownError {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// Its code, its message and its encoding.
        error: Box<UnknownError>,
    },
    /// No queue is bound for the service: no worker pool has ever served it on this vhost. Or no worker has served it for the
    /// [`grace`](crate::ClientOptions::grace) of the call.
    #[non_exhaustive]
    NoSuchService {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The routing key, and the broker's words.
        message: Box<str>,
        /// True when the request was sent, and the grace of the call is over: it may have been executed, or waits in the queue, where a
        /// worker that comes may find it.
        maybe_executed: bool,
    },
    /// The service has no method of that name.
    #[non_exhaustive]
    NoSuchMethod {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The worker's words.
        message: Box<str>,
    },
    /// The client could not encode the arguments or send them, or the worker could not decode them, or has had the same
    /// [`idempotency_key`](crate::Call::idempotency_key) with other arguments.
    #[non_exhaustive]
    BadRequest {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The reason.
        message: Box<str>,
    },
    /// The worker serves an older version of the service, or speaks another version of the wire contract.
    #[non_exhaustive]
    BadVersion {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The worker's words, with both versions.
        message: Box<str>,
    },
    /// The client, the queue or the worker has no room for the request and refused it unexecuted.
    #[non_exhaustive]
    Overloaded {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// Which of them refused, and why.
        message: Box<str>,
    },
    /// No answer arrived within the deadline.
    #[non_exhaustive]
    Timeout {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// How far the call had got.
        stage: TimeoutStage,
        /// The call's whole budget.
        after: Duration,
    },
    /// The connection was lost before the answer arrived.
    #[non_exhaustive]
    Disconnected {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// False when the request was certainly not sent.
        maybe_executed: bool,
    },
    /// The handler panicked, or its result could not be encoded.
    #[non_exhaustive]
    Internal {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The worker's words.
        message: Box<str>,
    },
    /// The worker that had the request was lost, perhaps after executing it, and no worker executes it again: it was
    /// delivered too often, or the pool says so ([`RedeliveryPolicy`](crate::RedeliveryPolicy)).
    #[non_exhaustive]
    Abandoned {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The reason.
        message: Box<str>,
    },
    /// The reply is not one of the wire contract, or could not be decoded as the method's result.
    #[non_exhaustive]
    BadReply {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The reason.
        message: Box<str>,
    },
    /// The encoded arguments are larger than [`ClientOptions::max_body_bytes`](crate::ClientOptions::max_body_bytes), or the
    /// encoded result is larger than the messages that the worker's broker takes.
    #[non_exhaustive]
    PayloadTooLarge {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The encoded size.
        body_bytes: usize,
        /// The limit; 0 when the broker has not named it.
        limit_bytes: usize,
        /// True when the result was too large: the handler has run. False when the arguments were: nothing was sent.
        maybe_executed: bool,
    },
    /// The client was shut down.
    #[non_exhaustive]
    Shutdown {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// False when the request was certainly not sent.
        maybe_executed: bool,
    },
    /// The exchanges, the reply queue or the channel that the client needs could not be set up.
    #[non_exhaustive]
    Topology {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The reason.
        source: Box<Error>,
    },
    /// A layer of the client failed with an error of its own; see the guide's chapter on [layers](crate::guide::layers).
    #[non_exhaustive]
    Layer {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The layer's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
        /// False when the request was certainly not executed.
        maybe_executed: bool,
    },
    /// A code that this version does not know: the reply of a newer worker, of a layer, or of a program in another
    /// language.
    #[non_exhaustive]
    Other {
        /// The service that was called.
        service: &'static str,
        /// The method that was called.
        method: &'static str,
        /// The code and message of the reply.
        error: Box<OtherError>,
    },
}

impl<E> CallError<E> {
    /// Whether the handler may have run, in whole or in part.
    pub fn maybe_executed(&self) -> bool {
        match self {
            Self::Service { .. }
            | Self::UnknownError { .. }
            | Self::Internal { .. }
            | Self::Abandoned { .. }
            | Self::BadReply { .. } => true,
            Self::Timeout { stage, .. } => stage.is_sent(),
            Self::Disconnected { maybe_executed, .. }
            | Self::Shutdown { maybe_executed, .. }
            | Self::Layer { maybe_executed, .. }
            | Self::NoSuchService { maybe_executed, .. }
            | Self::PayloadTooLarge { maybe_executed, .. } => *maybe_executed,
            Self::Other { error, .. } => error.maybe_executed,
            Self::NoSuchMethod { .. }
            | Self::BadRequest { .. }
            | Self::BadVersion { .. }
            | Self::Overloaded { .. }
            | Self::Topology { .. } => false,
        }
    }

    /// Whether the same call may succeed later. For calls that may have been executed this says only that a retry
    /// is possible; whether it does harm depends on the method (`#[rpc(idempotent)]`).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoSuchService { .. } | Self::Overloaded { .. } | Self::Timeout { .. } | Self::Disconnected { .. } => {
                true
            }
            Self::Service { details, .. } => details.as_ref().is_some_and(|details| details.retryable),
            Self::UnknownError { error, .. } => error.retryable,
            Self::Other { error, .. } => error.retryable,
            _ => false,
        }
    }

    /// How long the service, or a layer, asks its callers to wait before they try again, if it asks for that.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Service { details, .. } => details.as_ref()?.retry_after,
            Self::UnknownError { error, .. } => error.retry_after,
            Self::Other { error, .. } => error.retry_after,
            _ => None,
        }
    }

    /// The error's name on the wire and in logs, for example `no_such_service`. Of a service's own error, its
    /// [own code](ServiceError::code) or `service`; of [`Other`](Self::Other), the code that the reply carries.
    pub fn code(&self) -> &str {
        match self {
            Self::Service { details, .. } => details.as_ref().map_or("service", |details| &details.code),
            Self::UnknownError { error, .. } => &error.code,
            Self::NoSuchService { .. } => "no_such_service",
            Self::NoSuchMethod { .. } => "no_such_method",
            Self::BadRequest { .. } => "bad_request",
            Self::BadVersion { .. } => "bad_version",
            Self::Overloaded { .. } => "overloaded",
            Self::Timeout { .. } => "timeout",
            Self::Disconnected { .. } => "disconnected",
            Self::Internal { .. } => "internal",
            Self::Abandoned { .. } => "abandoned",
            Self::BadReply { .. } => "bad_reply",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Shutdown { .. } => "shutdown",
            Self::Topology { .. } => "topology",
            Self::Layer { .. } => "layer",
            Self::Other { error, .. } => &error.code,
        }
    }

    /// The service that was called.
    pub fn service_name(&self) -> &'static str {
        self.callee().0
    }

    /// The method that was called.
    pub fn method_name(&self) -> &'static str {
        self.callee().1
    }

    fn callee(&self) -> (&'static str, &'static str) {
        match self {
            Self::Service { service, method, .. }
            | Self::UnknownError { service, method, .. }
            | Self::NoSuchService { service, method, .. }
            | Self::NoSuchMethod { service, method, .. }
            | Self::BadRequest { service, method, .. }
            | Self::BadVersion { service, method, .. }
            | Self::Overloaded { service, method, .. }
            | Self::Timeout { service, method, .. }
            | Self::Disconnected { service, method, .. }
            | Self::Internal { service, method, .. }
            | Self::Abandoned { service, method, .. }
            | Self::BadReply { service, method, .. }
            | Self::PayloadTooLarge { service, method, .. }
            | Self::Shutdown { service, method, .. }
            | Self::Topology { service, method, .. }
            | Self::Layer { service, method, .. }
            | Self::Other { service, method, .. } => (service, method),
        }
    }

    /// Converts the service's error, keeps all others.
    pub fn map_service<F>(self, convert: impl FnOnce(E) -> F) -> CallError<F> {
        match self.split() {
            Ok(other) => other,
            Err(Own { service, method, error, details }) => {
                CallError::Service { service, method, error: convert(error), details }
            }
        }
    }

    /// `Err` holds the service's own error; every other variant is kept, under any type of service error.
    fn split<F>(self) -> Result<CallError<F>, Own<E>> {
        Ok(match self {
            Self::Service { service, method, error, details } => {
                return Err(Own { service, method, error, details });
            }
            Self::UnknownError { service, method, error } => CallError::UnknownError { service, method, error },
            Self::NoSuchService { service, method, message, maybe_executed } => {
                CallError::NoSuchService { service, method, message, maybe_executed }
            }
            Self::NoSuchMethod { service, method, message } => CallError::NoSuchMethod { service, method, message },
            Self::BadRequest { service, method, message } => CallError::BadRequest { service, method, message },
            Self::BadVersion { service, method, message } => CallError::BadVersion { service, method, message },
            Self::Overloaded { service, method, message } => CallError::Overloaded { service, method, message },
            Self::Timeout { service, method, stage, after } => CallError::Timeout { service, method, stage, after },
            Self::Disconnected { service, method, maybe_executed } => {
                CallError::Disconnected { service, method, maybe_executed }
            }
            Self::Internal { service, method, message } => CallError::Internal { service, method, message },
            Self::Abandoned { service, method, message } => CallError::Abandoned { service, method, message },
            Self::BadReply { service, method, message } => CallError::BadReply { service, method, message },
            Self::PayloadTooLarge { service, method, body_bytes, limit_bytes, maybe_executed } => {
                CallError::PayloadTooLarge { service, method, body_bytes, limit_bytes, maybe_executed }
            }
            Self::Shutdown { service, method, maybe_executed } => {
                CallError::Shutdown { service, method, maybe_executed }
            }
            Self::Topology { service, method, source } => CallError::Topology { service, method, source },
            Self::Layer { service, method, source, maybe_executed } => {
                CallError::Layer { service, method, source, maybe_executed }
            }
            Self::Other { service, method, error } => CallError::Other { service, method, error },
        })
    }
}

/// The fields of [`CallError::Service`].
struct Own<E> {
    service: &'static str,
    method: &'static str,
    error: E,
    details: Option<Box<ErrorDetails>>,
}

impl<E: From<CallError>> CallError<E> {
    /// The service's own error; every other one is converted by its `From<CallError>`.
    ///
    /// This lets a client stand where the trait itself is asked for (`#[service(client_impls_trait)]`).
    pub fn into_service(self) -> E {
        match self.split() {
            Ok(other) => E::from(other),
            Err(own) => own.error,
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Service { error, .. } => Some(error),
            Self::Topology { source, .. } => Some(&**source),
            Self::Layer { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

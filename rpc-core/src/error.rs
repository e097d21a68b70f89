//! What can go wrong: [`Error`] while connecting and declaring, [`CallError`] for one call.

use std::{convert::Infallible, fmt, time::Duration};

/// A failure to connect, to declare what is needed, or to start serving.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URI is not `amqp://user:password@host:port/vhost`.
    #[error("invalid AMQP URI: {reason}; write amqp://user:password@host:port/vhost")]
    InvalidUri {
        /// What is wrong with it. Never contains the password.
        reason: String,
    },
    /// Nothing accepts connections there, the name does not resolve, or the peer closed the socket.
    #[error("cannot reach the broker at {address}: {reason}; is it running, and is the port right?")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the operating system said.
        reason: String,
    },
    /// The broker refused the user or the password (reply_code 403 while opening).
    #[error("the broker refused the login of user '{user}': {reply_text}; check user and password")]
    AuthenticationRefused {
        /// The user in the URI.
        user: String,
        /// The broker's words.
        reply_text: String,
    },
    /// The vhost does not exist, or the user may not use it (reply_code 530 while opening).
    #[error("cannot open vhost '{vhost}': {reply_text}; create it, or grant the user permissions on it")]
    VhostRefused {
        /// The vhost in the URI.
        vhost: String,
        /// The broker's words.
        reply_text: String,
    },
    /// The broker refused an operation for good: permissions (403), a queue or exchange that exists with other
    /// arguments (406), another connection's exclusive queue (405), …
    #[error("{operation} failed: {reply_code} {reply_text}")]
    Refused {
        /// What was tried, for example `declare queue 'rpc.fibonacci'`.
        operation: String,
        /// The AMQP reply_code.
        reply_code: u16,
        /// The broker's words.
        reply_text: String,
    },
    /// Something did not finish within its deadline.
    #[error("{operation} did not finish within {limit:?}")]
    TimedOut {
        /// What was tried.
        operation: String,
        /// The deadline.
        limit: Duration,
    },
    /// The connection is closed for good: by the application, or given up after `reconnect_attempts`.
    #[error("the connection is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// The connection or the channel was lost. It is being reopened.
    #[error("the connection to the broker was lost: {reason}")]
    Disconnected {
        /// Why, as far as is known.
        reason: String,
    },
    /// The connection has as many open channels as the broker allows (`channel_max`).
    #[error(
        "all {channel_max} channels of the connection are in use; open another connection, or raise the broker's channel_max"
    )]
    NoChannelLeft {
        /// How many channels one connection may have.
        channel_max: u16,
    },
    /// A message that one connection received was to be published again on another.
    #[error("the message was received on another connection; publish it on the connection that received it")]
    ForeignConnection,
    /// A name (of a queue, a header, a consumer, …) or a text property is longer than AMQP's short strings.
    #[error("a name or property of {bytes} bytes is longer than AMQP's 255; shorten it")]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A message's properties, headers included, do not fit one frame.
    #[error(
        "the message's properties take {bytes} bytes and the connection's limit is {limit_bytes}; \
         send fewer or shorter headers, or raise the broker's frame_max"
    )]
    PropertiesTooLarge {
        /// The encoded size.
        bytes: usize,
        /// What the negotiated `frame_max` leaves for them.
        limit_bytes: usize,
    },
    /// The operating system refused the handlers of ctrl-c and SIGTERM.
    #[error("cannot listen for ctrl-c and SIGTERM: {reason}; stop the pool with PoolHandle::shutdown instead")]
    Signals {
        /// The operating system's words.
        reason: String,
    },
    /// The options given contradict each other or lack something.
    #[error("{0}")]
    Configuration(String),
}

/// How one call ended, when not with its value.
///
/// [`maybe_executed`](Self::maybe_executed) says whether the handler may have run, and
/// [`is_retryable`](Self::is_retryable) whether trying again can help.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E = Infallible> {
    /// The handler ran and returned this error.
    #[error("{0}")]
    Service(E),
    /// No queue is bound for the service: nobody has ever served it on this vhost.
    #[error("no such service: nobody serves '{routing_key}' ({reply_text})")]
    NoSuchService {
        /// The routing key the request went out with.
        routing_key: String,
        /// The broker's words, `NO_ROUTE`.
        reply_text: String,
    },
    /// The service has no method of that name.
    #[error("no such method: {message}")]
    NoSuchMethod {
        /// The server's words.
        message: String,
    },
    /// The arguments could not be written here or read there.
    #[error("bad request: {message}")]
    BadRequest {
        /// What was wrong with them.
        message: String,
    },
    /// The server speaks an older version of the service, or another version of the wire contract.
    #[error("bad version: {message}")]
    BadVersion {
        /// The server's words.
        message: String,
    },
    /// The queue or the server is full; the request was refused unseen.
    #[error("overloaded: {message}")]
    Overloaded {
        /// Who refused.
        message: String,
    },
    /// No answer within the deadline.
    #[error("{method} timed out after {after:?} ({stage})")]
    Timeout {
        /// The method that was called, by its routing key.
        method: &'static str,
        /// How far the call had got.
        stage: TimeoutStage,
        /// The call's whole budget.
        after: Duration,
    },
    /// The connection was lost before the answer came.
    #[error("{method}: disconnected{}", if *.maybe_executed { "; the request may have been executed" } else { " before the request was sent" })]
    Disconnected {
        /// The method that was called, by its routing key.
        method: &'static str,
        /// False when the request certainly never left.
        maybe_executed: bool,
    },
    /// The handler panicked, or its result could not be written.
    #[error("internal error of the service: {message}")]
    Internal {
        /// What the server says of it.
        message: String,
    },
    /// A worker that had the request was lost, perhaps after it had executed it, and it is not executed again: it has been
    /// delivered too often, or the pool says so ([`RedeliveryPolicy`](crate::RedeliveryPolicy)).
    #[error("abandoned: {message}")]
    Abandoned {
        /// Why.
        message: String,
    },
    /// The reply could not be read as the method's result.
    #[error("bad reply: {message}")]
    BadReply {
        /// What was wrong with it.
        message: String,
    },
    /// The arguments are larger than [`ClientOptions::max_body_bytes`](crate::ClientOptions::max_body_bytes).
    #[error("{method}: payload too large: {body_bytes} bytes, the limit is {limit_bytes}")]
    PayloadTooLarge {
        /// The method that was called, by its routing key.
        method: &'static str,
        /// The encoded size.
        body_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The client was shut down.
    #[error("{method}: the client is shut down{}", if *.maybe_executed { "; the request may have been executed" } else { "" })]
    Shutdown {
        /// The method that was called, by its routing key.
        method: &'static str,
        /// False when the request certainly never left.
        maybe_executed: bool,
    },
    /// The reply queue could not be set up.
    #[error("cannot set up the reply queue: {0}")]
    Topology(Error),
}

/// How far a call had got when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutStage {
    /// The connection or the reply queue was not ready: nothing was sent.
    Connecting,
    /// The broker had blocked the connection (`connection.blocked`): nothing was sent.
    Blocked,
    /// The client had `max_in_flight` calls waiting already: nothing was sent.
    InFlightLimit,
    /// A publisher confirm was awaited.
    Unconfirmed,
    /// A worker had begun, and said so.
    Running,
    /// The request was sent, and nothing was heard since: it may be queued, running, or done.
    Unknown,
}

impl<E> CallError<E> {
    /// Whether the handler may have run, in whole or in part.
    pub const fn maybe_executed(&self) -> bool {
        match self {
            Self::Service(_) | Self::Internal { .. } | Self::Abandoned { .. } | Self::BadReply { .. } => true,
            Self::Timeout { stage, .. } => {
                !matches!(stage, TimeoutStage::Connecting | TimeoutStage::Blocked | TimeoutStage::InFlightLimit)
            }
            Self::Disconnected { maybe_executed, .. } | Self::Shutdown { maybe_executed, .. } => *maybe_executed,
            Self::NoSuchService { .. }
            | Self::NoSuchMethod { .. }
            | Self::BadRequest { .. }
            | Self::BadVersion { .. }
            | Self::Overloaded { .. }
            | Self::PayloadTooLarge { .. }
            | Self::Topology(_) => false,
        }
    }

    /// Whether the same call may succeed later. For calls that may have been executed this says only that a retry
    /// is possible: whether it is harmless is for the method to say (`#[rpc(idempotent)]`).
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoSuchService { .. } | Self::Overloaded { .. } | Self::Timeout { .. } | Self::Disconnected { .. }
        )
    }

    /// The error's name on the wire and in logs, for example `no_such_service`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Service(_) => "service",
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
            Self::Topology(_) => "topology",
        }
    }

    /// Says which method was called.
    pub(crate) fn in_method(mut self, routing_key: &'static str) -> Self {
        match &mut self {
            Self::Timeout { method, .. }
            | Self::Disconnected { method, .. }
            | Self::PayloadTooLarge { method, .. }
            | Self::Shutdown { method, .. } => *method = routing_key,
            Self::NoSuchMethod { message }
            | Self::BadRequest { message }
            | Self::BadVersion { message }
            | Self::Overloaded { message }
            | Self::Internal { message }
            | Self::Abandoned { message }
            | Self::BadReply { message } => message.insert_str(0, &format!("{routing_key}: ")),
            // The first names it already, and the others are no fault of the call.
            Self::NoSuchService { .. } | Self::Service(_) | Self::Topology(_) => {}
        }
        self
    }

    /// Converts the service's error, keeps all others.
    pub fn map_service<F>(self, convert: impl FnOnce(E) -> F) -> CallError<F> {
        match self.split() {
            Ok(other) => other,
            Err(error) => CallError::Service(convert(error)),
        }
    }

    /// The service's own error as `Err`, everything else under any other service error type.
    fn split<F>(self) -> Result<CallError<F>, E> {
        Ok(match self {
            Self::Service(error) => return Err(error),
            Self::NoSuchService { routing_key, reply_text } => CallError::NoSuchService { routing_key, reply_text },
            Self::NoSuchMethod { message } => CallError::NoSuchMethod { message },
            Self::BadRequest { message } => CallError::BadRequest { message },
            Self::BadVersion { message } => CallError::BadVersion { message },
            Self::Overloaded { message } => CallError::Overloaded { message },
            Self::Timeout { method, stage, after } => CallError::Timeout { method, stage, after },
            Self::Disconnected { method, maybe_executed } => CallError::Disconnected { method, maybe_executed },
            Self::Internal { message } => CallError::Internal { message },
            Self::Abandoned { message } => CallError::Abandoned { message },
            Self::BadReply { message } => CallError::BadReply { message },
            Self::PayloadTooLarge { method, body_bytes, limit_bytes } => {
                CallError::PayloadTooLarge { method, body_bytes, limit_bytes }
            }
            Self::Shutdown { method, maybe_executed } => CallError::Shutdown { method, maybe_executed },
            Self::Topology(error) => CallError::Topology(error),
        })
    }
}

impl<E: From<CallError>> CallError<E> {
    /// The service's own error, all others folded into it by its `From<CallError>`.
    ///
    /// This is what makes a client usable where the trait itself is asked for (`#[service(client_impls_trait)]`).
    pub fn into_service(self) -> E {
        match self.split() {
            Ok(other) => E::from(other),
            Err(error) => error,
        }
    }
}

impl fmt::Display for TimeoutStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Blocked => "the broker had blocked the connection",
            Self::InFlightLimit => "waiting for a free place among the calls in flight",
            Self::Unconfirmed => "waiting for the publisher confirm",
            Self::Running => "running",
            Self::Unknown => "sent, no answer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum StoreError {
        Full,
        Remote(&'static str),
    }

    impl From<CallError> for StoreError {
        fn from(error: CallError) -> Self {
            Self::Remote(error.code())
        }
    }

    #[test]
    fn into_service_unwraps_the_service_error_and_folds_the_others() {
        assert_eq!(CallError::Service(StoreError::Full).into_service(), StoreError::Full);
        let shutdown: CallError<StoreError> = CallError::Shutdown { method: "store.put", maybe_executed: false };
        assert_eq!(shutdown.into_service(), StoreError::Remote("shutdown"));
    }

    #[test]
    fn only_what_was_sent_may_have_been_executed() {
        let sent: CallError =
            CallError::Timeout { method: "store.put", stage: TimeoutStage::Unknown, after: Duration::from_secs(1) };
        let unsent: CallError =
            CallError::Timeout { method: "store.put", stage: TimeoutStage::Connecting, after: Duration::from_secs(1) };
        assert!(sent.maybe_executed() && !unsent.maybe_executed());
        let lost: CallError = CallError::Disconnected { method: "store.put", maybe_executed: false };
        assert!(!lost.maybe_executed() && lost.is_retryable());
        assert_eq!(lost.to_string(), "store.put: disconnected before the request was sent");
    }

    #[test]
    fn every_error_names_its_method() {
        let message = || "why".to_owned();
        let errors: [CallError; 4] = [
            CallError::Timeout { method: "", stage: TimeoutStage::Unknown, after: Duration::from_secs(1) },
            CallError::Disconnected { method: "", maybe_executed: true },
            CallError::Internal { message: message() },
            CallError::Overloaded { message: message() },
        ];
        for error in errors {
            let text = error.in_method("store.put").to_string();
            assert!(text.contains("store.put") && text.matches("store.put").count() == 1, "{text}");
        }
    }
}

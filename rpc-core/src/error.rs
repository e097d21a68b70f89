//! [`Error`]: a failure to connect, to declare, or to serve. How one call fails is `call_error`'s.

use std::time::Duration;

/// A failure to connect, to declare what is needed, or to start serving.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URI is not `amqp://user:password@host:port/vhost`.
    #[error("invalid AMQP URI: {reason}; write amqp://user:password@host:port/vhost")]
    InvalidUri {
        /// The mistake in it. Never contains the password.
        reason: String,
    },
    /// Nothing accepts connections there, the name does not resolve, or the peer closed the socket.
    #[error("cannot reach the broker at {address}: {reason}; is it running, and is the port right?")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// The operating system's reason.
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
    /// The provider of credentials failed, or took longer than an attempt to connect may take.
    #[error("no credentials for the broker: {reason}; check the provider of the connection's options")]
    Credentials {
        /// The provider's words.
        reason: String,
    },
    /// The vhost does not exist, or the user may not use it (reply_code 530 while opening).
    #[error("cannot open vhost '{vhost}': {reply_text}; create it, or grant the user permissions on it")]
    VhostRefused {
        /// The vhost in the URI.
        vhost: String,
        /// The broker's words.
        reply_text: String,
    },
    /// The broker has as many connections of this user, on this vhost or on this node as it allows (RabbitMQ: reply_code 530 while
    /// opening). Later there may be a place.
    #[error(
        "cannot open another connection: {reply_text}; close one, share one among clients and pools, or raise the limit"
    )]
    ConnectionLimit {
        /// The broker's words, which name the limit.
        reply_text: String,
    },
    /// The broker refused an operation for good: permissions (403), a queue or exchange that exists with other
    /// arguments (406), another connection's exclusive queue (405), …
    #[error("{operation} failed: {reply_code} {reply_text}{}", advice(operation, *reply_code, reply_text))]
    Refused {
        /// The operation that failed, for example `declare queue 'rpc.fibonacci'`.
        operation: String,
        /// The AMQP reply_code.
        reply_code: u16,
        /// The broker's words.
        reply_text: String,
    },
    /// Something did not finish within its deadline.
    #[error("{operation} did not finish within {limit:?}; check the broker's load and the network")]
    TimedOut {
        /// The operation that took too long.
        operation: String,
        /// The deadline.
        limit: Duration,
    },
    /// The connection is closed for good: by the application, or given up after `reconnect_attempts`.
    #[error("the connection is closed: {reason}; open another one")]
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
        /// The bytes that the negotiated `frame_max` leaves for them.
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

impl Error {
    /// Whether the user lacks a permission.
    pub(crate) fn is_access_refused(&self) -> bool {
        matches!(self, Self::Refused { reply_code: 403, .. })
    }

    /// Whether the broker is too short of memory for a declaration. It takes the same one later.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(self, Self::Refused { reply_code: 406, reply_text, .. } if is_low_on_memory(reply_text))
    }
}

/// The bundled broker's text of a 406 of this kind.
fn is_low_on_memory(reply_text: &str) -> bool {
    reply_text.ends_with("low on memory")
}

/// The remedy for a refusal of the broker, after its words.
fn advice(operation: &str, reply_code: u16, reply_text: &str) -> &'static str {
    match reply_code {
        406 if is_low_on_memory(reply_text) => "; try again later, or give the broker more memory",
        403 => "; grant the user this permission on the vhost",
        405 if operation.starts_with("declare") => "; close the connection that declared it, or use another name",
        406 if operation.starts_with("declare") => "; delete it first, or declare it as it is",
        _ => "",
    }
}

#[cfg(test)]
mod sources;
#[cfg(test)]
mod tests {
    use super::*;

    /// Every text as a reader sees it.
    const TEXTS: &str = "\
invalid AMQP URI: it has no scheme; write amqp://user:password@host:port/vhost
cannot reach the broker at localhost:5672: connection refused; is it running, and is the port right?
the broker refused the login of user 'guest': ACCESS_REFUSED; check user and password
cannot open vhost 'shop': NOT_ALLOWED; create it, or grant the user permissions on it
cannot open another connection: NOT_ALLOWED - user connection limit (2) is reached; close one, share one among clients and pools, or raise the limit
declare queue 'rpc.stock' failed: 406 PRECONDITION_FAILED; delete it first, or declare it as it is
publish failed: 406 PRECONDITION_FAILED
declare queue 'rpc.stock' failed: 403 ACCESS_REFUSED; grant the user this permission on the vhost
start serving 'stock' did not finish within 30s; check the broker's load and the network
the connection is closed: closed by the application; open another one
the connection to the broker was lost: connection reset
all 2047 channels of the connection are in use; open another connection, or raise the broker's channel_max
the message was received on another connection; publish it on the connection that received it
a name or property of 256 bytes is longer than AMQP's 255; shorten it
the message's properties take 5000 bytes and the connection's limit is 4076; send fewer or shorter headers, or raise the broker's frame_max
cannot listen for ctrl-c and SIGTERM: too many; stop the pool with PoolHandle::shutdown instead
service 'stock' is served twice by one pool
";

    #[test]
    fn every_text_says_what_happened_and_where() {
        let text = str::to_owned;
        let errors = [
            Error::InvalidUri { reason: text("it has no scheme") },
            Error::Unreachable { address: text("localhost:5672"), reason: text("connection refused") },
            Error::AuthenticationRefused { user: text("guest"), reply_text: text("ACCESS_REFUSED") },
            Error::VhostRefused { vhost: text("shop"), reply_text: text("NOT_ALLOWED") },
            Error::ConnectionLimit { reply_text: text("NOT_ALLOWED - user connection limit (2) is reached") },
            Error::Refused {
                operation: text("declare queue 'rpc.stock'"),
                reply_code: 406,
                reply_text: text("PRECONDITION_FAILED"),
            },
            Error::Refused { operation: text("publish"), reply_code: 406, reply_text: text("PRECONDITION_FAILED") },
            Error::Refused {
                operation: text("declare queue 'rpc.stock'"),
                reply_code: 403,
                reply_text: text("ACCESS_REFUSED"),
            },
            Error::TimedOut { operation: text("start serving 'stock'"), limit: Duration::from_secs(30) },
            Error::Closed { reason: text("closed by the application") },
            Error::Disconnected { reason: text("connection reset") },
            Error::NoChannelLeft { channel_max: 2_047 },
            Error::ForeignConnection,
            Error::NameTooLong { bytes: 256 },
            Error::PropertiesTooLarge { bytes: 5_000, limit_bytes: 4_076 },
            Error::Signals { reason: text("too many") },
            Error::Configuration(text("service 'stock' is served twice by one pool")),
        ];
        let texts: String = errors.iter().map(|error| format!("{error}\n")).collect();
        assert_eq!(texts, TEXTS, "\n{texts}");
    }
}

//! The plain data of AMQP's operations: publishes, declarations, settlements and returns.
//!
//! No I/O, and no type of a client library. `link.rs` has the operations that take this data, and the transports
//! (`native/`, `lapin.rs`) carry them out.

use std::borrow::Cow;

pub(crate) use super::header_value::HeaderValue;
use crate::error::Error;
pub(crate) use crate::wire::PERSISTENT;

/// One message on its way out.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a str,
    /// Bytes: a foreign caller's reply queue is answered whatever its name is.
    pub(crate) routing_key: &'a [u8],
    /// Asks for a `basic.return` when no queue takes the message.
    pub(crate) mandatory: bool,
    pub(crate) properties: Properties<'a>,
    pub(crate) body: &'a [u8],
}

/// The AMQP properties the framework sets. Under lapin each costs an allocation.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Properties<'a> {
    pub(crate) content_type: Option<&'static str>,
    pub(crate) kind: Option<&'static str>,
    /// Bytes, as the two below: a foreign caller's are copied as they are.
    pub(crate) correlation_id: Option<Cow<'a, [u8]>>,
    pub(crate) reply_to: Option<&'a [u8]>,
    pub(crate) message_id: Option<Cow<'a, [u8]>>,
    /// Milliseconds.
    pub(crate) expiration_ms: Option<u64>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    /// Of the connection's own login: the broker closes the channel of any other.
    pub(crate) user_id: Option<&'a str>,
    pub(crate) headers: Vec<(Cow<'static, str>, HeaderValue)>,
    /// The header [`DEADLINE_HEADER`], which nearly every request has: alone it is written without a table.
    pub(crate) deadline_ms: Option<i64>,
}

/// When the caller stops waiting, in Unix milliseconds by its own clock.
pub(crate) const DEADLINE_HEADER: &str = "rpc-deadline";

/// A durable exchange to declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExchangeDeclaration {
    pub(crate) name: &'static str,
    pub(crate) kind: ExchangeKind,
    /// The exchange that gets the messages this one cannot route (`alternate-exchange`).
    pub(crate) alternate: Option<&'static str>,
}

/// The exchange types the framework declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeKind {
    Direct,
    Topic,
    Headers,
}

impl ExchangeKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// A queue to declare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueDeclaration<'a> {
    pub(crate) name: &'a str,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Arguments<'a>,
}

/// The state of a queue, as the broker tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueCounts {
    /// Messages that wait for a consumer; those that one has are not among them.
    pub(crate) ready: u32,
    /// Cancelled ones are not among them, though they may still work on messages; a quorum queue of RabbitMQ 3.10 counts them until
    /// they have none left.
    pub(crate) consumers: u32,
}

/// Arguments of a declaration or a binding.
pub(crate) type Arguments<'a> = &'a [(&'static str, HeaderValue)];

/// Acknowledges deliveries, all up to a tag or that one alone, or requeues one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack { delivery_tag: u64, multiple: bool },
    Requeue { delivery_tag: u64 },
}

/// The pseudo-queue of direct replies (RabbitMQ): they arrive on the channel that published the request.
pub(crate) const DIRECT_REPLIES: &str = "amq.rabbitmq.reply-to";

/// The reason that brokers log when a secret is updated.
pub(super) const SECRET_REASON: &str = "the one before expires";

/// How long the caller of a request waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Urgency<'a> {
    pub(crate) reply_to: Option<&'a [u8]>,
    /// `expiration`; `None` when absent or not a number.
    pub(crate) budget_ms: Option<u64>,
    /// When it stops waiting, in Unix milliseconds by its own clock.
    pub(crate) deadline_ms: Option<i64>,
}

/// A message that no queue took.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_text: String,
}

/// The broker's reason for closing a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reply_code: u16,
    pub(crate) reply_text: String,
}

impl Refusal {
    /// That of an error, if the broker is its reason.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let Error::Refused { reply_code, reply_text, .. } = error else { return None };
        Some(Self { reply_code: *reply_code, reply_text: reply_text.clone() })
    }

    /// The limit in bytes, when a message was too large. RabbitMQ 4: "message size 7 is larger than configured max size 6", or
    /// "… than max size 6" for the limit that it cannot be configured above; 3.10: "message size 7 larger than max size 6".
    pub(crate) fn message_max_bytes(&self) -> Option<usize> {
        let (_, sizes) = self.reply_text.split_once("message size ")?;
        let (_, limit) = sizes.split_once("larger than ")?.1.split_once("max size ")?;
        let digits = limit.bytes().take_while(u8::is_ascii_digit).count();
        limit[..digits].parse().ok().filter(|_| self.reply_code == PRECONDITION_FAILED)
    }

    /// Whether the user may not publish the message, or not as the user whom its `user_id` names. RabbitMQ: "user_id property set to
    /// 'ann' but authenticated user was 'bob'".
    pub(crate) fn is_denial(&self) -> bool {
        let names_another =
            self.reply_code == PRECONDITION_FAILED && self.reply_text.contains("user_id property set to");
        self.reply_code == ACCESS_REFUSED || names_another
    }

    /// As the error of an operation.
    pub(crate) fn error(&self, operation: impl Into<String>) -> Error {
        let Self { reply_code, reply_text } = self.clone();
        Error::Refused { operation: operation.into(), reply_code, reply_text }
    }
}

/// A change of a connection that its transport reports.
#[derive(Debug)]
pub(super) enum Event {
    Blocked(String),
    Unblocked,
    /// The connection or one of its channels has failed.
    Failed(String),
    /// The transport cannot read a frame that the broker has sent, which ends the connection.
    #[cfg(feature = "lapin")]
    Unreadable(String),
}

/// AMQP 0-9-1 §1.2, frame-min-size: no peer may take less.
pub(super) const FRAME_MIN_BYTES: usize = 4_096;

/// The error of a name or a text that is too long.
pub(super) fn overlong(bytes: usize) -> Error {
    Error::NameTooLong { bytes }
}

/// AMQP 0-9-1 §1.2: reply-success.
pub(super) const REPLY_SUCCESS: u16 = 200;
/// AMQP 0-9-1 §1.2: connection-forced.
pub(super) const CONNECTION_FORCED: u16 = 320;
/// AMQP 0-9-1 §1.2: access-refused.
pub(crate) const ACCESS_REFUSED: u16 = 403;
/// AMQP 0-9-1 §1.2: not-found.
pub(crate) const NOT_FOUND: u16 = 404;
/// AMQP 0-9-1 §1.2: precondition-failed.
pub(crate) const PRECONDITION_FAILED: u16 = 406;
/// AMQP 0-9-1 §1.2: frame-error.
pub(super) const FRAME_ERROR: u16 = 501;
/// AMQP 0-9-1 §1.2: not-allowed.
pub(super) const NOT_ALLOWED: u16 = 530;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_the_words_of_the_refusal() {
        let limit = |reply_code, reply_text: &str| {
            Refusal { reply_code, reply_text: reply_text.to_owned() }.message_max_bytes()
        };
        let configured = "PRECONDITION_FAILED - message size 2000011 is larger than configured max size 1048576";
        assert_eq!(limit(406, configured), Some(1_048_576));
        let largest = "PRECONDITION_FAILED - message size 600000000 is larger than max size 536870912";
        assert_eq!(limit(406, largest), Some(536_870_912));
        let older = "PRECONDITION_FAILED - message size 135000007 larger than max size 134217728";
        assert_eq!(limit(406, older), Some(134_217_728));
        assert_eq!(limit(406, "PRECONDITION_FAILED - message size 20 is larger than configured max size 10"), Some(10));
        for (reply_code, reply_text) in [
            (404, configured),
            (406, "PRECONDITION_FAILED - fast reply consumer does not exist"),
            (406, "PRECONDITION_FAILED - unknown delivery tag 7"),
            (406, "max size x"),
            (406, "message size 7 is larger than configured max size "),
            (406, "message size 7 is larger than configured max size 99999999999999999999999"),
        ] {
            assert_eq!(limit(reply_code, reply_text), None, "{reply_text}");
        }
    }

    #[test]
    fn a_denial_is_a_missing_right_or_the_name_of_another_user() {
        let is_denial =
            |reply_code, reply_text: &str| Refusal { reply_code, reply_text: reply_text.to_owned() }.is_denial();
        assert!(is_denial(403, "ACCESS_REFUSED - access to exchange 'rpc' in vhost '/' refused for user 'ann'"));
        let another = "PRECONDITION_FAILED - user_id property set to 'ann' but authenticated user was 'bob'";
        assert!(is_denial(406, another));
        assert!(!is_denial(404, "NOT_FOUND - no exchange 'rpc' in vhost '/'"));
        assert!(!is_denial(
            406,
            "PRECONDITION_FAILED - message size 2000011 is larger than configured max size 1048576"
        ));
    }
}

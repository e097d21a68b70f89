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
    pub(crate) routing_key: &'a str,
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
    pub(crate) correlation_id: Option<Cow<'a, str>>,
    pub(crate) reply_to: Option<&'a str>,
    pub(crate) message_id: Option<String>,
    /// Milliseconds.
    pub(crate) expiration_ms: Option<u64>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) headers: Vec<(Cow<'static, str>, HeaderValue)>,
}

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

/// Arguments of a declaration or a binding.
pub(crate) type Arguments<'a> = &'a [(&'static str, HeaderValue)];

/// Acknowledges deliveries, all up to a tag or that one alone, or requeues one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack { delivery_tag: u64, multiple: bool },
    Requeue { delivery_tag: u64 },
}

/// A message that no queue took.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_text: String,
}

/// A change of a connection that its transport reports.
#[derive(Debug)]
pub(super) enum Event {
    Blocked(String),
    Unblocked,
    /// The connection or one of its channels has failed.
    Failed(String),
}

/// The error of a name or a text that is too long.
pub(super) fn overlong(bytes: usize) -> Error {
    Error::NameTooLong { bytes }
}

/// AMQP 0-9-1 §1.2: reply-success.
pub(super) const REPLY_SUCCESS: u16 = 200;
/// AMQP 0-9-1 §1.2: connection-forced.
pub(super) const CONNECTION_FORCED: u16 = 320;
/// AMQP 0-9-1 §1.2: access-refused.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP 0-9-1 §1.2: not-found.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP 0-9-1 §1.2: not-allowed.
pub(super) const NOT_ALLOWED: u16 = 530;

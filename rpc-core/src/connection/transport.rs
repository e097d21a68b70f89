//! The narrow set of AMQP operations that everything above the connection uses, as plain data.
//!
//! No type of lapin's here or above: `lapin.rs` and `native/` carry it out. Publishing and acknowledging
//! never wait for the socket; what goes wrong with them is told by the consumer's end.

use std::{borrow::Cow, pin::Pin};

use futures_core::Stream;

use crate::error::Error;

/// One message on its way out.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    /// Ask for a `basic.return` when no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: Properties<'a>,
    pub(crate) body: &'a [u8],
}

/// The AMQP properties the framework sets. Each costs the client library an allocation on both ends.
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

/// A value in a message's headers.
///
/// AMQP's other field types (tables, arrays, decimals) are not offered: headers are for small facts about a call,
/// data belongs in the body.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HeaderValue {
    /// AMQP `t`.
    Bool(bool),
    /// AMQP `l`; every narrower integer is read into it.
    Integer(i64),
    /// AMQP `d`, or `f` read into it.
    Float(f64),
    /// AMQP `S` holding UTF-8.
    Text(String),
    /// AMQP `x`, or an `S` that is not UTF-8.
    Bytes(Vec<u8>),
}

impl HeaderValue {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub const fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<bool> for HeaderValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for HeaderValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for HeaderValue {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<i32> for HeaderValue {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<f64> for HeaderValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for HeaderValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for HeaderValue {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// The exchange types that are declared here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeKind {
    Direct,
    Topic,
    Headers,
}

/// Arguments of a declaration or a binding.
pub(crate) type Arguments<'a> = &'a [(&'static str, HeaderValue)];

/// What a connection tells of itself.
#[derive(Debug)]
pub(super) enum Event {
    Blocked(String),
    Unblocked,
    /// Of the connection or of one channel.
    Failed(String),
}

/// Of one connection, until it ends.
pub(super) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A queue to declare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueDeclaration<'a> {
    pub(crate) name: &'a str,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Arguments<'a>,
}

/// What to do with deliveries, all at or below a tag or that one alone.
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

/// The error of a name or a text of so many bytes.
pub(super) fn overlong(bytes: usize) -> Error {
    Error::NameTooLong { bytes }
}

/// AMQP 0-9-1 §4.6: delivery_mode 2 survives a restart of the broker in a durable queue.
pub(super) const PERSISTENT: u8 = 2;

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

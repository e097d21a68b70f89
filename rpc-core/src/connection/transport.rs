//! The narrow set of AMQP operations that everything above the connection uses, as plain data.
//!
//! No lapin type here or above: a transport of our own can stand where lapin stands. Publishing and acknowledging
//! never wait for the socket; what goes wrong with them is told by the consumer's end.

use std::borrow::Cow;

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

/// A queue to declare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueDeclaration<'a> {
    pub(crate) name: &'a str,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: &'a [(&'static str, HeaderValue)],
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

//! Values in the headers of a message and in the arguments of a declaration.

use amq_protocol::types::AMQPValue;

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

impl From<&HeaderValue> for AMQPValue {
    fn from(value: &HeaderValue) -> Self {
        match value {
            HeaderValue::Bool(value) => Self::Boolean(*value),
            HeaderValue::Integer(value) => Self::LongLongInt(*value),
            HeaderValue::Float(value) => Self::Double(*value),
            HeaderValue::Text(value) => Self::LongString(value.as_str().into()),
            HeaderValue::Bytes(value) => Self::ByteArray(value.as_slice().into()),
        }
    }
}

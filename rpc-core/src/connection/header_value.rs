//! Values in the headers of a message and in the arguments of a declaration.

use amq_protocol::types::AMQPValue;

/// A value in a message's headers.
///
/// It is made `From` a bool, an integer of at most 64 bits that fits an `i64`, a float, text or bytes. AMQP's other field
/// types (tables, arrays, decimals) are not offered: headers are for small facts about a call, data belongs in the body.
///
/// ```
/// use rpc_core::HeaderValue;
///
/// assert_eq!(HeaderValue::from(7_u16).as_i64(), Some(7));
/// assert_eq!(HeaderValue::from("blue").as_str(), Some("blue"));
/// assert_eq!(HeaderValue::from(&[1, 2][..]).as_bytes(), Some(&[1, 2][..]));
/// assert_eq!(HeaderValue::from(0.5_f32).as_f64(), Some(0.5));
/// ```
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
    /// About how many bytes it takes on the wire.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let value = match self {
            Self::Bool(_) => 1,
            Self::Integer(_) | Self::Float(_) => 8,
            Self::Text(text) => 4 + text.len(),
            Self::Bytes(bytes) => 4 + bytes.len(),
        };
        2 + value
    }

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

    /// The number with a fraction, if it is one.
    pub const fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The bytes, if it holds some that are not text.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
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

/// Every integer that fits the one of AMQP.
macro_rules! from_integer {
    ($($integer:ty),*) => {
        $(impl From<$integer> for HeaderValue {
            fn from(value: $integer) -> Self {
                Self::Integer(value.into())
            }
        })*
    };
}
from_integer!(i8, i16, i32, i64, u8, u16, u32);

impl From<f32> for HeaderValue {
    fn from(value: f32) -> Self {
        Self::Float(value.into())
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

impl From<&[u8]> for HeaderValue {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
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

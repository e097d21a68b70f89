//! Bodies: values <-> bytes, and the content type that names the encoding.
//!
//! Pure. It chooses no codec: a service declares its own, and the `content_type` of a request names that request's. A reply
//! has the codec of its request.
//!
//! ```text
//!  value ──faithful──► rmp-serde, serde_json, serde_plain ──► bytes
//!  value ◄───depth──── rmp-serde, serde_json, serde_plain ◄── bytes
//! ```

mod depth;
mod faithful;
#[cfg(all(feature = "broker", any(test, fuzzing)))]
pub(crate) mod fuzz;

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

use self::{
    depth::{Depth, Guarded},
    faithful::Faithful,
};

/// How arguments and results are encoded.
///
/// The default is MessagePack with named fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `application/msgpack`: structs as maps of field names, so that fields can be added.
    #[default]
    MessagePack,
    /// `application/json`; needs the feature `json`.
    Json,
    /// `text/plain`: one scalar as its text (`30`, `true`, `hello`), as in the RabbitMQ tutorials.
    Text,
}

/// A value that could not be encoded, or bytes that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{content_type}: {reason}")]
pub struct CodecError {
    content_type: &'static str,
    reason: Cow<'static, str>,
}

impl Codec {
    /// The levels that a body may nest, unless the service says another number with `#[service(max_depth = n)]`.
    pub const MAX_DEPTH: u32 = 128;

    /// The `content_type` property of bodies in this encoding.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::MessagePack => "application/msgpack",
            Self::Json => "application/json",
            Self::Text => "text/plain",
        }
    }

    /// The codec that a `content_type` names; parameters such as `; charset=utf-8` are ignored.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        // Our own spelling first: it is by far the most frequent.
        if content_type == Self::MessagePack.content_type() {
            return Some(Self::MessagePack);
        }
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        [Self::MessagePack, Self::Json, Self::Text]
            .into_iter()
            .find(|codec| essence.eq_ignore_ascii_case(codec.content_type()))
            .or_else(|| {
                (essence.eq_ignore_ascii_case("application/x-msgpack")
                    || essence.eq_ignore_ascii_case("application/vnd.msgpack"))
                .then_some(Self::MessagePack)
            })
    }

    /// Encodes `value`.
    ///
    /// # Errors
    /// A [`CodecError`] when the value has no form in this encoding (a struct as text, a map with non-string keys or an
    /// infinite number as JSON), would be read back as another one (`Some(None)`), its own `Serialize` fails, or the codec's
    /// feature is off.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::MessagePack => {
                let mut body = Vec::with_capacity(BODY_BYTES_EXPECTED);
                // For people: serde's buffers, through which tagged, untagged and flattened types are read, claim to be.
                let mut serializer = rmp_serde::Serializer::new(&mut body).with_struct_map().with_human_readable();
                match Faithful::<_, false, false>(value).serialize(&mut serializer) {
                    Ok(()) => Ok(body),
                    Err(error) => Err(self.error(error.to_string())),
                }
            }
            #[cfg(feature = "json")]
            Self::Json => {
                serde_json::to_vec(&Faithful::<_, true, false>(value)).map_err(|error| self.error(error.to_string()))
            }
            #[cfg(not(feature = "json"))]
            Self::Json => Err(self.error(JSON_IS_OFF)),
            Self::Text => {
                serde_plain::to_string(&value).map(String::into_bytes).map_err(|error| self.error(error.to_string()))
            }
        }
    }

    /// Decodes a value that nests at most [`MAX_DEPTH`](Self::MAX_DEPTH) levels deep.
    ///
    /// # Errors
    /// A [`CodecError`] when the bytes are not in this encoding, do not hold a `T`, nest too deeply or continue after the
    /// value, or when the codec's feature is off.
    pub fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, CodecError> {
        self.decode_within(body, Self::MAX_DEPTH)
    }

    /// Decodes a value that nests at most `max_depth` levels deep. Each array, map, and value of an enum's variant is a level.
    ///
    /// Decoding takes stack for each level, in a release build about 150 bytes, in a debug build some kilobytes. tokio's
    /// threads have 2 MiB.
    ///
    /// # Errors
    /// As those of [`decode`](Self::decode).
    pub fn decode_within<T: DeserializeOwned>(self, body: &[u8], max_depth: u32) -> Result<T, CodecError> {
        let depth = Depth::new(max_depth);
        match self {
            Self::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(body).with_human_readable();
                // Its own bound, which enums pass.
                deserializer.set_max_depth(usize::MAX);
                let value = T::deserialize(Guarded { inner: &mut deserializer, depth })
                    .map_err(|error| self.error(error.to_string()))?;
                // The deserializer does not tell its position: only at the end does it find no next marker. `()` is
                // decoded without descending into the value that follows.
                match <() as serde::Deserialize>::deserialize(&mut deserializer) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                    Ok(()) | Err(_) => Err(self.error("more bytes follow the value")),
                }
            }
            #[cfg(feature = "json")]
            Self::Json => {
                let mut deserializer = serde_json::Deserializer::from_slice(body);
                deserializer.disable_recursion_limit();
                T::deserialize(Guarded { inner: &mut deserializer, depth })
                    .and_then(|value| deserializer.end().map(|()| value))
                    .map_err(|error| self.error(error.to_string()))
            }
            #[cfg(not(feature = "json"))]
            Self::Json => Err(self.error(JSON_IS_OFF)),
            Self::Text => {
                let text = std::str::from_utf8(body).map_err(|error| self.error(error.to_string()))?;
                if text.is_empty()
                    && let Ok(nothing) = T::deserialize(Guarded { inner: UnitDeserializer::new(), depth })
                {
                    return Ok(nothing);
                }
                T::deserialize(Guarded { inner: serde_plain::Deserializer::new(text), depth })
                    .map_err(|error| self.error(error.to_string()))
            }
        }
    }

    /// `()` in this encoding.
    pub(crate) fn nothing(self) -> &'static [u8] {
        match self {
            Self::MessagePack => &[0xc0],
            Self::Json => b"null",
            Self::Text => b"",
        }
    }

    /// The error of a service error in the reply to a method that returns no `Result`.
    pub(crate) fn unexpected_service_error() -> CodecError {
        Self::default().error("the service returned an error, but the method returns no Result; update the caller")
    }

    fn error(self, reason: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError { content_type: self.content_type(), reason: reason.into() }
    }
}

type UnitDeserializer = serde::de::value::UnitDeserializer<serde::de::value::Error>;

/// Small calls dominate: one allocation holds a request of a few numbers or short strings.
const BODY_BYTES_EXPECTED: usize = 64;

#[cfg(not(feature = "json"))]
const JSON_IS_OFF: &str = "the feature `json` of rpc-core is off; enable it";

#[cfg(test)]
mod tests;

//! Bodies: values <-> bytes, and the content type that names the encoding.
//!
//! Pure. It chooses no codec: a service declares its own, and the `content_type` of a request names that request's. A reply
//! has the codec of its request.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

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
    /// A [`CodecError`] when the value has no form in this encoding (a struct as text, a map with non-string keys as
    /// JSON), its own `Serialize` fails, or the codec's feature is off.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::MessagePack => {
                let mut body = Vec::with_capacity(BODY_BYTES_EXPECTED);
                let mut serializer = rmp_serde::Serializer::new(&mut body).with_struct_map();
                match value.serialize(&mut serializer) {
                    Ok(()) => Ok(body),
                    Err(error) => Err(self.error(error.to_string())),
                }
            }
            #[cfg(feature = "json")]
            Self::Json => serde_json::to_vec(value).map_err(|error| self.error(error.to_string())),
            #[cfg(not(feature = "json"))]
            Self::Json => Err(self.error(JSON_IS_OFF)),
            Self::Text => {
                serde_plain::to_string(&value).map(String::into_bytes).map_err(|error| self.error(error.to_string()))
            }
        }
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// A [`CodecError`] when the bytes are not in this encoding, do not hold a `T`, or continue after the value, or when
    /// the codec's feature is off.
    pub fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
                let value = T::deserialize(&mut deserializer).map_err(|error| self.error(error.to_string()))?;
                // The deserializer does not tell its position: only at the end does it find no next marker. `()` is
                // decoded without descending into the value that follows.
                match <() as serde::Deserialize>::deserialize(&mut deserializer) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                    Ok(()) | Err(_) => Err(self.error("more bytes follow the value")),
                }
            }
            #[cfg(feature = "json")]
            Self::Json => serde_json::from_slice(body).map_err(|error| self.error(error.to_string())),
            #[cfg(not(feature = "json"))]
            Self::Json => Err(self.error(JSON_IS_OFF)),
            Self::Text => {
                let text = std::str::from_utf8(body).map_err(|error| self.error(error.to_string()))?;
                if text.is_empty()
                    && let Ok(nothing) = T::deserialize(UnitDeserializer::new())
                {
                    return Ok(nothing);
                }
                serde_plain::from_str(text).map_err(|error| self.error(error.to_string()))
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
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Arguments {
        n: u32,
        #[serde(default)]
        label: Option<String>,
    }

    #[test]
    fn structs_travel_as_maps_of_names_and_positional_arrays_are_read_too() {
        let arguments = Arguments { n: 30, label: None };
        let body = Codec::MessagePack.encode(&arguments).unwrap();
        assert_eq!(body[0], 0x82, "a map of two");
        assert_eq!(Codec::MessagePack.decode::<Arguments>(&body).unwrap(), arguments);
        let positional = Codec::MessagePack.encode(&(30, None::<String>)).unwrap();
        assert_eq!(Codec::MessagePack.decode::<Arguments>(&positional).unwrap(), arguments);
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_with_a_default_are_filled() {
        #[derive(Serialize)]
        struct Newer {
            n: u32,
            added_later: bool,
        }
        let body = Codec::MessagePack.encode(&Newer { n: 1, added_later: true }).unwrap();
        assert_eq!(Codec::MessagePack.decode::<Arguments>(&body).unwrap(), Arguments { n: 1, label: None });
    }

    #[test]
    fn truncated_and_overlong_bodies_are_errors() {
        let body = Codec::MessagePack.encode(&Arguments { n: 1, label: Some("x".into()) }).unwrap();
        for end in 0..body.len() {
            assert!(Codec::MessagePack.decode::<Arguments>(&body[..end]).is_err(), "{end}");
        }
        let mut overlong = body;
        overlong.push(0);
        let error = Codec::MessagePack.decode::<Arguments>(&overlong).unwrap_err();
        assert_eq!(error.to_string(), "application/msgpack: more bytes follow the value");
    }

    #[test]
    fn text_carries_scalars_as_the_tutorials_write_them() {
        assert_eq!(Codec::Text.encode(&30_u32).unwrap(), b"30");
        assert_eq!(Codec::Text.decode::<u64>(b"832040").unwrap(), 832_040);
        assert_eq!(Codec::Text.decode::<String>(b"").unwrap(), "");
        assert_eq!(Codec::Text.decode::<String>(b"a b").unwrap(), "a b");
        Codec::Text.decode::<u64>(b"").unwrap_err();
        Codec::Text.encode(&Arguments { n: 1, label: None }).unwrap_err();
    }

    #[test]
    fn nothing_travels_in_every_codec() {
        for codec in [Codec::MessagePack, Codec::Text] {
            let body = codec.encode(&()).unwrap();
            codec.decode::<()>(&body).unwrap_or_else(|error| panic!("{codec:?}: {error}"));
        }
    }

    #[test]
    fn content_types_are_read_without_parameters_or_case() {
        assert_eq!(Codec::from_content_type("Application/JSON; charset=utf-8"), Some(Codec::Json));
        assert_eq!(Codec::from_content_type("application/x-msgpack"), Some(Codec::MessagePack));
        assert_eq!(Codec::from_content_type("text/plain"), Some(Codec::Text));
        assert_eq!(Codec::from_content_type("image/png"), None);
    }
}

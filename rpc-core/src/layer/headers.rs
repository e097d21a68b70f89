//! The headers of a request or of a response, in their order.

use std::borrow::Cow;

use crate::connection::amqp::HeaderValue;

pub(crate) type Headers = Vec<(Cow<'static, str>, HeaderValue)>;

pub(crate) fn get<'a>(headers: &'a Headers, name: &str) -> Option<&'a HeaderValue> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// In place of one of the same name.
pub(super) fn set(headers: &mut Headers, name: Cow<'static, str>, value: HeaderValue) {
    headers.retain(|(known, _)| *known != name);
    headers.push((name, value));
}

pub(super) fn remove(headers: &mut Headers, name: &str) -> Option<HeaderValue> {
    let at = headers.iter().position(|(known, _)| known == name)?;
    Some(headers.remove(at).1)
}

/// About how many bytes they take on the wire.
pub(crate) fn encoded_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.encoded_bytes()).sum()
}

/// A name that belongs to the framework or to the broker, or that AMQP has no room for.
pub(crate) fn is_unfit(name: &str) -> bool {
    name.starts_with("rpc-") || name.starts_with("x-") || name.len() > NAME_MAX_BYTES
}

pub(super) fn iter(headers: &Headers) -> impl Iterator<Item = (&str, &HeaderValue)> {
    headers.iter().map(|(name, value)| (&**name, value))
}

/// AMQP 0-9-1 §4.2.5.5: no name of a field is longer.
const NAME_MAX_BYTES: usize = 255;

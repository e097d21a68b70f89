//! Received messages, and the properties of sent ones.

use std::borrow::Cow;

use crate::{
    connection::amqp::{DEADLINE_HEADER, HeaderValue, PERSISTENT, Properties, Urgency, overlong},
    error::Error,
    wire::{
        NewProperties, PropertyReader, PropertyWriter, Timing, plain_ms,
        table::{self, TableWriter, Value},
    },
};

/// One received message: routing key, properties and body in one piece of memory.
#[derive(Debug)]
pub(crate) struct Message {
    delivery_tag: u64,
    redelivered: bool,
    bytes: Vec<u8>,
    properties_at: usize,
    body_at: usize,
}

impl Message {
    /// The beginning of one, with room for a body of `body_bytes`.
    pub(in crate::connection) fn new(routing_key: &[u8], properties: &[u8], body_bytes: usize) -> Self {
        let (properties_at, body_at) = (routing_key.len(), routing_key.len() + properties.len());
        let mut bytes = Vec::with_capacity(body_at + body_bytes);
        bytes.extend_from_slice(routing_key);
        bytes.extend_from_slice(properties);
        Self { delivery_tag: 0, redelivered: false, bytes, properties_at, body_at }
    }

    pub(in crate::connection) fn push(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
    }

    pub(in crate::connection) fn delivered(mut self, delivery_tag: u64, redelivered: bool) -> Self {
        self.delivery_tag = delivery_tag;
        self.redelivered = redelivered;
        self
    }

    /// Its size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + std::mem::size_of::<Self>()
    }

    pub(in crate::connection) fn delivery_tag(&self) -> u64 {
        self.delivery_tag
    }

    pub(in crate::connection) fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Empty when it is not UTF-8.
    pub(in crate::connection) fn routing_key(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.properties_at]).unwrap_or_default()
    }

    pub(in crate::connection) fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    fn properties(&self) -> &[u8] {
        &self.bytes[self.properties_at..self.body_at]
    }

    fn reader(&self) -> PropertyReader<'_> {
        PropertyReader::new(self.properties())
    }

    pub(in crate::connection) fn content_type(&self) -> Option<&str> {
        readable(self.reader().content_type())
    }

    pub(in crate::connection) fn kind(&self) -> Option<&str> {
        readable(self.reader().kind())
    }

    pub(in crate::connection) fn correlation_id(&self) -> Option<&str> {
        text(self.reader().correlation_id())
    }

    /// Also one that is no text.
    pub(in crate::connection) fn correlation_id_bytes(&self) -> Option<&[u8]> {
        self.reader().correlation_id()
    }

    pub(in crate::connection) fn reply_to(&self) -> Option<&[u8]> {
        self.reader().reply_to()
    }

    pub(in crate::connection) fn message_id(&self) -> Option<&[u8]> {
        self.reader().message_id()
    }

    pub(in crate::connection) fn user_id(&self) -> Option<&str> {
        text(self.reader().user_id())
    }

    pub(in crate::connection) fn app_id(&self) -> Option<&str> {
        text(self.reader().app_id())
    }

    pub(in crate::connection) fn priority(&self) -> Option<u8> {
        self.reader().priority()
    }

    pub(in crate::connection) fn has_reply_to(&self) -> bool {
        self.reader().reply_to().is_some_and(|reply_to| !reply_to.is_empty())
    }

    /// `None` when absent or not a number.
    pub(in crate::connection) fn expiration_ms(&self) -> Option<u64> {
        milliseconds(self.reader().expiration()?)
    }

    /// `reply_to`, `expiration` and `rpc-deadline`, read in one pass.
    pub(in crate::connection) fn urgency(&self) -> Urgency<'_> {
        let Timing { headers, reply_to, expiration } = self.reader().timing();
        Urgency {
            reply_to,
            budget_ms: expiration.and_then(milliseconds),
            deadline_ms: headers.and_then(|headers| match plain_deadline(headers) {
                Some(deadline_ms) => Some(deadline_ms),
                None => read_value(table::find(headers, DEADLINE_HEADER.as_bytes())?)?.as_i64(),
            }),
        }
    }

    /// Whether there may be headers besides [`DEADLINE_HEADER`].
    pub(in crate::connection) fn has_more_headers(&self) -> bool {
        self.reader().raw_headers().is_some_and(|headers| plain_deadline(headers).is_none())
    }

    pub(in crate::connection) fn header(&self, name: &str) -> Option<HeaderValue> {
        read_value(table::find(self.reader().raw_headers()?, name.as_bytes())?)
    }

    /// All but [`DEADLINE_HEADER`].
    pub(in crate::connection) fn headers(&self) -> Vec<(Cow<'static, str>, HeaderValue)> {
        let fields = table::fields(self.reader().raw_headers().unwrap_or_default());
        let others = fields.filter(|field| field.key != DEADLINE_HEADER.as_bytes());
        let readable = others.filter_map(|field| {
            let name = std::str::from_utf8(field.key).ok()?.to_owned();
            Some((Cow::Owned(name), read_value(field.value)?))
        });
        readable.collect()
    }

    /// The properties of a persistent copy with further headers, which replace headers of the same name.
    pub(super) fn persistent_properties(&self, more: &[(Cow<'static, str>, HeaderValue)]) -> Result<Vec<u8>, Error> {
        let mut writer = TableWriter::new();
        for field in table::fields(self.reader().raw_headers().unwrap_or_default()) {
            // The broker would send copies to the queues that the original's sender named there, with the rights of this user.
            let is_routing = matches!(field.key, b"CC" | b"BCC");
            if !is_routing && !more.iter().any(|(name, _)| name.as_bytes() == field.key) {
                writer.raw(field);
            }
        }
        for (name, value) in more {
            write_value(&mut writer, name, value)?;
        }
        let headers = writer.finish();
        let properties = PropertyWriter::new(self.properties()).headers(&headers).delivery_mode(PERSISTENT);
        Ok(properties.without_expiration().without_user_id().write())
    }
}

/// The value of [`DEADLINE_HEADER`] if it is the only header.
fn plain_deadline(headers: &[u8]) -> Option<i64> {
    let value = headers.strip_prefix(DEADLINE_TABLE)?;
    Some(i64::from_be_bytes(value.try_into().ok()?))
}

fn milliseconds(expiration: &[u8]) -> Option<u64> {
    plain_ms(expiration).or_else(|| std::str::from_utf8(expiration).ok()?.parse().ok())
}

/// A text that is not UTF-8 is a name that nothing has: absent it would count as the default.
fn readable(bytes: Option<&[u8]>) -> Option<&str> {
    Some(std::str::from_utf8(bytes?).unwrap_or("\u{FFFD}"))
}

/// A text that is not UTF-8 counts as absent.
fn text(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok()
}

fn read_value(value: Value<'_>) -> Option<HeaderValue> {
    Some(match value.kind {
        b't' => HeaderValue::Bool(*value.raw.first()? != 0),
        b'f' => HeaderValue::Float(f32::from_be_bytes(*value.raw.first_chunk()?).into()),
        b'd' => HeaderValue::Float(f64::from_be_bytes(*value.raw.first_chunk()?)),
        b'T' => HeaderValue::Integer(i64::from_be_bytes(*value.raw.first_chunk()?)),
        b'x' => HeaderValue::Bytes(value.raw.get(4..)?.to_vec()),
        b'S' => match std::str::from_utf8(value.as_text()?) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(value.as_text()?.to_vec()),
        },
        _ => HeaderValue::Integer(value.as_integer()?),
    })
}

/// Writes properties in the order of the wire.
pub(in crate::connection) fn write_properties(out: &mut Vec<u8>, properties: &Properties<'_>) -> Result<(), Error> {
    let mut new = NewProperties::new(out);
    if let Some(content_type) = properties.content_type {
        new.content_type(content_type);
    }
    match properties.deadline_ms {
        Some(deadline_ms) if properties.headers.is_empty() => {
            let mut table = [0; DEADLINE_TABLE.len() + 8];
            table[..DEADLINE_TABLE.len()].copy_from_slice(DEADLINE_TABLE);
            table[DEADLINE_TABLE.len()..].copy_from_slice(&deadline_ms.to_be_bytes());
            new.headers(&table);
        }
        None if properties.headers.is_empty() => {}
        deadline_ms => {
            new.headers(&write_table(&properties.headers, deadline_ms)?);
        }
    }
    if let Some(delivery_mode) = properties.delivery_mode {
        new.delivery_mode(delivery_mode);
    }
    if let Some(priority) = properties.priority {
        new.priority(priority);
    }
    if let Some(correlation_id) = &properties.correlation_id {
        new.correlation_id(correlation_id);
    }
    if let Some(reply_to) = properties.reply_to {
        new.reply_to(reply_to);
    }
    if let Some(expiration_ms) = properties.expiration_ms {
        new.expiration(expiration_ms);
    }
    if let Some(message_id) = &properties.message_id {
        new.message_id(message_id);
    }
    if let Some(kind) = properties.kind {
        new.kind(kind);
    }
    if let Some(user_id) = properties.user_id {
        new.user_id(user_id);
    }
    new.finish().map_err(|error| overlong(error.bytes))
}

/// A table with its length.
fn write_table(fields: &[(Cow<'static, str>, HeaderValue)], deadline_ms: Option<i64>) -> Result<Vec<u8>, Error> {
    let mut writer = TableWriter::new();
    for (name, value) in fields {
        write_value(&mut writer, name, value)?;
    }
    if let Some(deadline_ms) = deadline_ms {
        writer.integer(DEADLINE_HEADER, deadline_ms);
    }
    Ok(writer.finish())
}

/// A table of [`DEADLINE_HEADER`] alone, up to its value: the table's length, the name with its length, the type `l`.
const DEADLINE_TABLE: &[u8; 18] = b"\0\0\0\x16\x0crpc-deadlinel";

pub(in crate::connection) fn write_value(
    writer: &mut TableWriter,
    name: &str,
    value: &HeaderValue,
) -> Result<(), Error> {
    if name.len() > 255 {
        return Err(overlong(name.len()));
    }
    match value {
        HeaderValue::Bool(value) => writer.boolean(name, *value),
        HeaderValue::Integer(value) => writer.integer(name, *value),
        HeaderValue::Float(value) => writer.double(name, *value),
        HeaderValue::Text(value) => writer.text(name, value.as_bytes()),
        HeaderValue::Bytes(value) => writer.binary(name, value),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Vec<(Cow<'static, str>, HeaderValue)> {
        vec![
            ("yes".into(), true.into()),
            ("number".into(), (-7_i64).into()),
            ("half".into(), 0.5.into()),
            ("text".into(), "words".into()),
            ("bytes".into(), vec![0xFF].into()),
        ]
    }

    fn message() -> Message {
        let properties = Properties {
            content_type: Some("text/plain"),
            kind: Some("rpc.call"),
            correlation_id: Some(b"17".into()),
            reply_to: Some(b"q"),
            message_id: Some(b"m".into()),
            expiration_ms: Some(250),
            delivery_mode: Some(1),
            priority: Some(3),
            user_id: Some("guest"),
            headers: headers(),
            deadline_ms: None,
        };
        let mut bytes = Vec::new();
        write_properties(&mut bytes, &properties).unwrap();
        let mut message = Message::new(b"a.b", &bytes, 4);
        message.push(b"bo");
        message.push(b"dy");
        message.delivered(9, true)
    }

    #[test]
    fn what_is_written_is_read() {
        let message = message();
        assert_eq!((message.routing_key(), message.body()), ("a.b", &b"body"[..]));
        assert_eq!((message.delivery_tag(), message.redelivered(), message.priority()), (9, true, Some(3)));
        let texts = [message.content_type(), message.kind(), message.correlation_id()];
        assert_eq!(texts, ["text/plain", "rpc.call", "17"].map(Some));
        assert_eq!([message.reply_to(), message.message_id()], [&b"q"[..], b"m"].map(Some));
        assert!(message.has_reply_to());
        assert_eq!(message.expiration_ms(), Some(250));
        assert_eq!((message.user_id(), message.app_id()), (Some("guest"), None));
        for (name, value) in headers() {
            assert_eq!(message.header(&name), Some(value), "{name}");
        }
        assert_eq!(message.header("other"), None);
    }

    #[test]
    fn a_deadline_is_written_as_any_header_is_and_read_from_either_place() {
        let message = |headers: &[(&'static str, HeaderValue)], deadline_ms| {
            let headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
            let mut bytes = Vec::new();
            write_properties(&mut bytes, &Properties { headers, deadline_ms, ..Properties::default() }).unwrap();
            Message::new(b"", &bytes, 0)
        };
        for deadline_ms in [0, -1, 1_790_000_000_123, i64::MIN, i64::MAX] {
            let alone = message(&[], Some(deadline_ms));
            let as_header = message(&[(DEADLINE_HEADER, deadline_ms.into())], None);
            assert_eq!(alone.properties(), as_header.properties());
            assert_eq!((alone.urgency().deadline_ms, alone.has_more_headers()), (Some(deadline_ms), false));
            let beside = message(&[("n", 1.into())], Some(deadline_ms));
            assert_eq!((beside.urgency().deadline_ms, beside.has_more_headers()), (Some(deadline_ms), true));
            assert_eq!(beside.header("n"), Some(1.into()));
        }
        let none = message(&[], None);
        assert_eq!((none.urgency().deadline_ms, none.has_more_headers()), (None, false));
        let text = message(&[(DEADLINE_HEADER, "soon".into())], None);
        assert_eq!((text.urgency().deadline_ms, text.has_more_headers()), (None, true));
    }

    #[test]
    fn integers_of_every_width_are_read() {
        let fields: [(u8, &[u8], i64); 9] = [
            (b'b', &[0xFF], -1),
            (b'B', &[0xFF], 255),
            (b's', &[0xFF, 0xFE], -2),
            (b'u', &[0xFF, 0xFE], 65_534),
            (b'I', &[0xFF, 0xFF, 0xFF, 0xFD], -3),
            (b'i', &[0, 0, 1, 0], 256),
            (b'l', &[0xFF; 8], -1),
            (b'L', &[0xFF; 8], -1),
            (b'T', &[0, 0, 0, 0, 0, 0, 0, 9], 9),
        ];
        for (kind, raw, expected) in fields {
            assert_eq!(read_value(Value { kind, raw }), Some(HeaderValue::Integer(expected)), "{}", char::from(kind));
        }
        assert_eq!(read_value(Value { kind: b'f', raw: &0.5_f32.to_be_bytes() }), Some(HeaderValue::Float(0.5)));
        let not_text = Value { kind: b'S', raw: &[0, 0, 0, 1, 0xFF] };
        assert_eq!(read_value(not_text), Some(HeaderValue::Bytes(vec![0xFF])));
        assert_eq!(read_value(Value { kind: b'V', raw: &[] }), None);
    }

    #[test]
    fn a_copy_is_persistent_and_does_not_expire() {
        let more = [("text".into(), "other".into()), ("reason".into(), 1.into())];
        let mut bytes = Vec::new();
        let mut original = headers();
        original.extend([("CC".into(), "rpc.victim".into()), ("BCC".into(), "rpc.victim".into())]);
        let sent = Properties {
            correlation_id: Some(b"17".into()),
            kind: Some("rpc.call"),
            headers: original,
            ..Properties::default()
        };
        write_properties(&mut bytes, &sent).unwrap();
        let properties = Message::new(b"", &bytes, 0).persistent_properties(&more).unwrap();
        let reader = PropertyReader::new(&properties);
        assert_eq!((reader.delivery_mode(), reader.expiration(), reader.user_id()), (Some(2), None, None));
        let copy = Message::new(b"", &properties, 0);
        assert_eq!(copy.header("text"), Some("other".into()));
        assert_eq!(copy.header("reason"), Some(1.into()));
        assert_eq!(copy.header("number"), Some((-7_i64).into()));
        assert_eq!((copy.correlation_id(), copy.kind()), (Some("17"), Some("rpc.call")));
        assert_eq!((copy.header("CC"), copy.header("BCC")), (None, None), "it goes to one queue alone");
    }

    #[test]
    fn what_does_not_fit_a_short_string_is_refused() {
        let long = "x".repeat(256);
        let properties = Properties { correlation_id: Some(long.clone().into_bytes().into()), ..Properties::default() };
        assert!(matches!(write_properties(&mut Vec::new(), &properties), Err(Error::NameTooLong { bytes: 256 })));
        let properties = Properties { headers: vec![(long.into(), true.into())], ..Properties::default() };
        assert!(matches!(write_properties(&mut Vec::new(), &properties), Err(Error::NameTooLong { bytes: 256 })));
    }
}

//! Content headers: the size of the body, and the properties as raw bytes that are decoded only where needed.
//!
//! `class(2) weight(2) body_size(8) flags(2) properties…` (AMQP 0-9-1 §2.3.5.2). The broker forwards flags and properties
//! byte for byte, so that it neither loses nor reorders anything that a client sent.

use amq_protocol::types::FieldTable;

use super::{decoded_table, table};

/// A content header as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHeader<'a> {
    pub(crate) body_size: u64,
    /// Flags and property values.
    pub(crate) properties: &'a [u8],
}

/// The reason why the payload of a header frame is no content header of class basic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentHeaderError {
    Truncated,
    /// The weight, which AMQP reserves, is not 0.
    Weight,
    Class(u16),
    /// The properties do not match their flags, or their tables are nested too deep.
    Properties {
        body_size: u64,
    },
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a header frame. Tables in its headers may nest to the given depth.
    pub(crate) fn read(payload: &'a [u8], table_depth_max: usize) -> Result<Self, ContentHeaderError> {
        let (&[c0, c1, w0, w1], rest) = payload.split_first_chunk().ok_or(ContentHeaderError::Truncated)?;
        let (size, properties) = rest.split_first_chunk().ok_or(ContentHeaderError::Truncated)?;
        if properties.len() < 2 {
            return Err(ContentHeaderError::Truncated);
        }
        if (w0, w1) != (0, 0) {
            return Err(ContentHeaderError::Weight);
        }
        let class_id = u16::from_be_bytes([c0, c1]);
        if class_id != BASIC {
            return Err(ContentHeaderError::Class(class_id));
        }
        let body_size = u64::from_be_bytes(*size);
        if !PropertyReader::new(properties).is_good(table_depth_max) {
            return Err(ContentHeaderError::Properties { body_size });
        }
        Ok(Self { body_size, properties })
    }
}

/// The fourteen properties in wire order, by the bit of their flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Property {
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Kind,
    UserId,
    AppId,
    ClusterId,
}

impl Property {
    const ALL: [Self; 14] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::Headers,
        Self::DeliveryMode,
        Self::Priority,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Timestamp,
        Self::Kind,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    pub(super) const fn flag(self) -> u16 {
        1 << (15 - self as u16)
    }
}

/// Reads properties from their raw bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PropertyReader<'a> {
    properties: &'a [u8],
}

impl<'a> PropertyReader<'a> {
    pub(crate) const fn new(properties: &'a [u8]) -> Self {
        Self { properties }
    }

    pub(crate) fn content_type(self) -> Option<&'a [u8]> {
        self.short_string(Property::ContentType)
    }

    pub(crate) fn delivery_mode(self) -> Option<u8> {
        self.find(Property::DeliveryMode)?.first().copied()
    }

    pub(crate) fn priority(self) -> Option<u8> {
        self.find(Property::Priority)?.first().copied()
    }

    pub(crate) fn correlation_id(self) -> Option<&'a [u8]> {
        self.short_string(Property::CorrelationId)
    }

    pub(crate) fn reply_to(self) -> Option<&'a [u8]> {
        self.short_string(Property::ReplyTo)
    }

    pub(crate) fn expiration(self) -> Option<&'a [u8]> {
        self.short_string(Property::Expiration)
    }

    /// The expiration, read by [`plain_ms`].
    pub(crate) fn plain_expiration_ms(self) -> Option<u64> {
        plain_ms(self.expiration()?)
    }

    /// The headers, `reply_to` and `expiration`, found in one pass.
    pub(crate) fn timing(self) -> Timing<'a> {
        let mut timing = Timing::default();
        for (property, value) in self.values() {
            match property {
                Property::Headers => timing.headers = Some(value),
                Property::ReplyTo => timing.reply_to = value.get(1..),
                Property::Expiration => timing.expiration = value.get(1..),
                property if property > Property::Expiration => break,
                _ => {}
            }
        }
        timing
    }

    pub(crate) fn message_id(self) -> Option<&'a [u8]> {
        self.short_string(Property::MessageId)
    }

    pub(crate) fn kind(self) -> Option<&'a [u8]> {
        self.short_string(Property::Kind)
    }

    pub(crate) fn user_id(self) -> Option<&'a [u8]> {
        self.short_string(Property::UserId)
    }

    pub(crate) fn app_id(self) -> Option<&'a [u8]> {
        self.short_string(Property::AppId)
    }

    /// The headers as received, with their length.
    pub(crate) fn raw_headers(self) -> Option<&'a [u8]> {
        self.find(Property::Headers)
    }

    /// The headers, decoded.
    pub(crate) fn headers(self) -> Option<FieldTable> {
        decoded_table::decode(self.raw_headers()?, table::DEPTH_MAX)
    }

    fn short_string(self, wanted: Property) -> Option<&'a [u8]> {
        self.find(wanted)?.get(1..)
    }

    fn flags(self) -> u16 {
        self.properties.first_chunk().map_or(0, |flags| u16::from_be_bytes(*flags))
    }

    /// The raw value of a property, with its length octets.
    fn find(self, wanted: Property) -> Option<&'a [u8]> {
        if self.flags() & wanted.flag() == 0 {
            return None;
        }
        self.values().find(|(property, _)| *property == wanted).map(|(_, value)| value)
    }

    /// The properties that are present, in wire order.
    fn values(self) -> impl Iterator<Item = (Property, &'a [u8])> {
        let mut left = self.flags() & !RESERVED_FLAGS;
        let mut rest = self.properties.get(2..).unwrap_or_default();
        std::iter::from_fn(move || {
            let property = *Property::ALL.get(left.leading_zeros() as usize)?;
            left &= !property.flag();
            let (value, after) = split_value(property, rest)?;
            rest = after;
            Some((property, value))
        })
    }

    /// Whether the bytes match the flags.
    fn is_good(self, table_depth_max: usize) -> bool {
        let flags = self.flags();
        let mut left = flags & !RESERVED_FLAGS;
        let mut rest = self.properties.get(2..).unwrap_or_default();
        while let Some(property) = Property::ALL.get(left.leading_zeros() as usize) {
            left &= !property.flag();
            let Some((value, after)) = split_value(*property, rest) else { return false };
            if *property == Property::Headers && !table::check(value, table_depth_max) {
                return false;
            }
            rest = after;
        }
        // Bit 0 announces a second word of flags, which AMQP 0-9-1 does not have.
        rest.is_empty() && flags & 1 == 0
    }

    /// Whether a property is present that the broker reads, other than `reply_to`.
    pub(crate) fn concerns_broker(self) -> bool {
        const FLAGS: u16 = Property::Headers.flag()
            | Property::DeliveryMode.flag()
            | Property::Priority.flag()
            | Property::Expiration.flag()
            | Property::UserId.flag();
        self.flags() & FLAGS != 0
    }
}

/// The properties that say until when a request may be answered.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timing<'a> {
    /// With their length.
    pub(crate) headers: Option<&'a [u8]>,
    pub(crate) reply_to: Option<&'a [u8]>,
    pub(crate) expiration: Option<&'a [u8]>,
}

/// The milliseconds of an expiration that is written as clients write it: up to nine digits and nothing else.
pub(crate) fn plain_ms(digits: &[u8]) -> Option<u64> {
    if !matches!(digits.len(), 1..=9) {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

fn split_value(property: Property, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = match property {
        Property::Headers => (u32::from_be_bytes(*rest.first_chunk()?) as usize).checked_add(4)?,
        Property::DeliveryMode | Property::Priority => 1,
        Property::Timestamp => 8,
        _ => 1 + usize::from(*rest.first()?),
    };
    rest.split_at_checked(bytes)
}

/// Changes single properties, keeping all others byte for byte.
#[derive(Debug)]
pub(crate) struct PropertyWriter<'a> {
    source: PropertyReader<'a>,
    headers: Option<&'a [u8]>,
    reply_to: Option<&'a str>,
    delivery_mode: Option<u8>,
    drop_expiration: bool,
    drop_user_id: bool,
}

impl<'a> PropertyWriter<'a> {
    pub(crate) const fn new(properties: &'a [u8]) -> Self {
        Self {
            source: PropertyReader::new(properties),
            headers: None,
            reply_to: None,
            delivery_mode: None,
            drop_expiration: false,
            drop_user_id: false,
        }
    }

    /// Replaces the headers by a table that is encoded with its length.
    pub(crate) const fn headers(mut self, table: &'a [u8]) -> Self {
        self.headers = Some(table);
        self
    }

    /// Replaces reply_to, which must fit a short string.
    pub(crate) const fn reply_to(mut self, reply_to: &'a str) -> Self {
        self.reply_to = Some(reply_to);
        self
    }

    /// Replaces delivery_mode.
    pub(crate) const fn delivery_mode(mut self, delivery_mode: u8) -> Self {
        self.delivery_mode = Some(delivery_mode);
        self
    }

    /// Removes user_id.
    pub(crate) const fn without_user_id(mut self) -> Self {
        self.drop_user_id = true;
        self
    }

    /// Removes expiration.
    pub(crate) const fn without_expiration(mut self) -> Self {
        self.drop_expiration = true;
        self
    }

    /// The changed properties.
    pub(crate) fn write(self) -> Vec<u8> {
        let mut flags = 0;
        let mut out = vec![0; 2];
        for property in Property::ALL {
            let before = out.len();
            match (property, self.headers, self.reply_to) {
                (Property::Headers, Some(table), _) => out.extend_from_slice(table),
                (Property::ReplyTo, _, Some(text)) => {
                    let bytes = &text.as_bytes()[..text.len().min(255)];
                    out.push(bytes.len() as u8);
                    out.extend_from_slice(bytes);
                }
                (Property::DeliveryMode, ..) if self.delivery_mode.is_some() => out.extend(self.delivery_mode),
                (Property::Expiration, ..) if self.drop_expiration => {}
                (Property::UserId, ..) if self.drop_user_id => {}
                _ => out.extend_from_slice(self.source.find(property).unwrap_or_default()),
            }
            if out.len() > before {
                flags |= property.flag();
            }
        }
        out[..2].copy_from_slice(&u16::to_be_bytes(flags));
        out
    }
}

/// AMQP 0-9-1 §4.6: a message with delivery_mode 2 survives a restart of the broker in a durable queue.
pub(crate) const PERSISTENT: u8 = 2;
/// The two of the sixteen flags that stand for no property.
const RESERVED_FLAGS: u16 = 0b11;

const BASIC: u16 = 60;

#[cfg(test)]
mod tests {
    use amq_protocol::{
        frame::WriteContext,
        protocol::{BasicProperties, basic},
        types::AMQPValue,
    };

    use super::*;
    use crate::wire::table::{DEPTH_MAX, TableWriter};

    fn encode(properties: &BasicProperties) -> Vec<u8> {
        basic::gen_properties(properties)(WriteContext::from(Vec::new())).unwrap().write
    }

    fn decode(bytes: &[u8]) -> BasicProperties {
        basic::parse_properties(bytes).unwrap().1
    }

    fn all() -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("k".into(), AMQPValue::LongInt(7));
        BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("utf-8".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(9)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("100".into())
            .with_message_id("m".into())
            .with_timestamp(3)
            .with_type("t".into())
            .with_user_id("guest".into())
            .with_app_id("a".into())
            .with_cluster_id("".into())
    }

    fn header_of(properties: &[u8]) -> Vec<u8> {
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        header.extend_from_slice(properties);
        header
    }

    #[test]
    fn properties_are_found_among_all_others() {
        let bytes = encode(&all());
        let header = header_of(&bytes);
        assert_eq!(
            ContentHeader::read(&header, DEPTH_MAX).unwrap(),
            ContentHeader { body_size: 5, properties: &bytes }
        );
        let reader = PropertyReader::new(&bytes);
        assert_eq!((reader.priority(), reader.delivery_mode()), (Some(9), Some(2)));
        assert_eq!(reader.reply_to(), Some(&b"r"[..]));
        assert_eq!((reader.expiration(), reader.user_id()), (Some(&b"100"[..]), Some(&b"guest"[..])));
        assert_eq!(reader.headers(), all().headers().clone());
        let Timing { headers, reply_to, expiration } = reader.timing();
        assert_eq!((headers, reply_to, expiration), (reader.raw_headers(), reader.reply_to(), reader.expiration()));
        for end in 14..header.len() {
            assert_eq!(
                ContentHeader::read(&header[..end], DEPTH_MAX).unwrap_err(),
                ContentHeaderError::Properties { body_size: 5 },
                "{end}"
            );
        }
        let reader = PropertyReader::new(&[0, 0]);
        assert_eq!((reader.priority(), reader.reply_to(), reader.headers()), (None, None, None));
    }

    #[test]
    fn a_plain_expiration_consists_of_up_to_nine_digits() {
        let plain = |text: &str| {
            let properties = encode(&BasicProperties::default().with_expiration(text.into()));
            PropertyReader::new(&properties).plain_expiration_ms()
        };
        assert_eq!([plain("0"), plain("250"), plain("007")], [Some(0), Some(250), Some(7)]);
        assert_eq!(plain("999999999"), Some(999_999_999));
        for other in ["", "1234567890", "+1", "-1", "1 ", "1x", "\u{0661}"] {
            assert_eq!(plain(other), None, "{other:?}");
        }
        assert_eq!(PropertyReader::new(&[0, 0]).plain_expiration_ms(), None);
    }

    #[test]
    fn malformed_headers_are_refused_with_their_reason() {
        let read = |bytes: &[u8]| ContentHeader::read(bytes, DEPTH_MAX).unwrap_err();
        assert_eq!(read(&[0, 60, 0, 0, 0]), ContentHeaderError::Truncated);
        let mut header = header_of(&[0, 0]);
        header[3] = 1;
        assert_eq!(read(&header), ContentHeaderError::Weight);
        let mut header = header_of(&[0, 0]);
        header[1] = 50;
        assert_eq!(read(&header), ContentHeaderError::Class(50));
        assert_eq!(read(&header_of(&[0, 1])), ContentHeaderError::Properties { body_size: 5 }, "more flags");
        assert_eq!(read(&header_of(&[0, 0, 9])), ContentHeaderError::Properties { body_size: 5 }, "more bytes");
        assert!(
            ContentHeader::read(&header_of(&[0x00, 0x80, 2, 0xFF, 0xFE]), DEPTH_MAX).is_ok(),
            "text need not be UTF-8"
        );
    }

    #[test]
    fn changed_properties_leave_the_others_alone() {
        let bytes = encode(&all());
        let mut table = TableWriter::new();
        table.integer("n", 1);
        let table = table.finish();
        let changed = PropertyWriter::new(&bytes).headers(&table).reply_to("other").without_expiration().write();
        let changed = decode(&changed);
        let mut headers = FieldTable::default();
        headers.insert("n".into(), AMQPValue::LongLongInt(1));
        let expected = all().with_headers(headers).with_reply_to("other".into());
        assert_eq!(changed.expiration(), &None);
        assert_eq!(changed.with_expiration("100".into()), expected);
        assert_eq!(PropertyWriter::new(&bytes).write(), bytes);
        let changed = decode(&PropertyWriter::new(&bytes).delivery_mode(1).without_user_id().write());
        assert_eq!((changed.user_id(), *changed.delivery_mode()), (&None, Some(1)));
        let changed = PropertyWriter::new(&[0, 0]).delivery_mode(2).write();
        assert_eq!(*decode(&changed).delivery_mode(), Some(2));
    }
}

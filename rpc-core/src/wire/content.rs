//! Content headers: the body's size, and the properties as raw bytes that are looked into only where needed.
//!
//! `class(2) weight(2) body_size(8) flags(2) properties…` (AMQP 0-9-1 §2.3.5.2). Whoever forwards a message forwards
//! flags and properties byte for byte, so nothing a client sent is lost or reordered.

use amq_protocol::types::{FieldTable, generation, parsing};
use bytes::{BufMut, Bytes, BytesMut};

/// A content header as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentHeader {
    pub(crate) class_id: u16,
    /// Reserved: always 0.
    pub(crate) weight: u16,
    pub(crate) body_size: u64,
    /// Flags and property values.
    pub(crate) properties: Bytes,
}

impl ContentHeader {
    /// Reads a header frame's payload; `None` when it is not one.
    pub(crate) fn read(payload: &Bytes) -> Option<Self> {
        let class_id = u16::from_be_bytes(payload.get(..2)?.try_into().ok()?);
        let weight = u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?);
        let body_size = u64::from_be_bytes(payload.get(4..12)?.try_into().ok()?);
        let properties = payload.slice(12..);
        PropertyReader::new(&properties).check()?;
        Some(Self { class_id, weight, body_size, properties })
    }
}

/// The fourteen properties in wire order, by the bit of their flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Property {
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

    const fn flag(self) -> u16 {
        1 << (15 - self as u16)
    }
}

/// Looks properties up in their raw bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PropertyReader<'a> {
    properties: &'a Bytes,
}

impl<'a> PropertyReader<'a> {
    pub(crate) const fn new(properties: &'a Bytes) -> Self {
        Self { properties }
    }

    pub(crate) fn delivery_mode(self) -> Option<u8> {
        self.find(Property::DeliveryMode).map(|value| value[0])
    }

    pub(crate) fn priority(self) -> Option<u8> {
        self.find(Property::Priority).map(|value| value[0])
    }

    pub(crate) fn reply_to(self) -> Option<&'a [u8]> {
        self.find(Property::ReplyTo).map(|value| &value[1..])
    }

    pub(crate) fn expiration(self) -> Option<&'a [u8]> {
        self.find(Property::Expiration).map(|value| &value[1..])
    }

    pub(crate) fn user_id(self) -> Option<&'a [u8]> {
        self.find(Property::UserId).map(|value| &value[1..])
    }

    /// Whether the headers may hold CC or BCC: a look at the bytes, before anything is decoded.
    pub(crate) fn may_have_copies(self) -> bool {
        self.find(Property::Headers).is_some_and(|raw| raw.windows(2).any(|pair| pair == b"CC"))
    }

    /// The headers, decoded.
    pub(crate) fn headers(self) -> Option<FieldTable> {
        let raw = self.find(Property::Headers)?;
        parsing::parse_field_table(raw).ok().map(|(_, table)| table)
    }

    fn flags(self) -> Option<u16> {
        Some(u16::from_be_bytes(self.properties.get(..2)?.try_into().ok()?))
    }

    /// The raw value of a property, its length octets included.
    fn find(self, wanted: Property) -> Option<&'a [u8]> {
        let flags = self.flags()?;
        if flags & wanted.flag() == 0 {
            return None;
        }
        let mut rest = &self.properties[2..];
        for property in Property::ALL {
            if flags & property.flag() != 0 {
                let (value, after) = split_value(property, rest)?;
                if property == wanted {
                    return Some(value);
                }
                rest = after;
            }
        }
        None
    }

    /// `None` when the bytes are not what the flags announce, or text is not UTF-8.
    fn check(self) -> Option<()> {
        let flags = self.flags()?;
        let mut rest = &self.properties[2..];
        for property in Property::ALL {
            if flags & property.flag() != 0 {
                let (value, after) = split_value(property, rest)?;
                match property {
                    Property::Headers => drop(parsing::parse_field_table(value).ok()?),
                    Property::DeliveryMode | Property::Priority | Property::Timestamp => {}
                    _ => drop(std::str::from_utf8(&value[1..]).ok()?),
                }
                rest = after;
            }
        }
        // Bit 1 is not a property, bit 0 announces a second word of flags: AMQP 0-9-1 defines neither.
        (flags & 0b11 == 0 && rest.is_empty()).then_some(())
    }
}

fn split_value(property: Property, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = match property {
        Property::Headers => 4 + u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize,
        Property::DeliveryMode | Property::Priority => 1,
        Property::Timestamp => 8,
        _ => 1 + usize::from(*rest.first()?),
    };
    (bytes <= rest.len()).then(|| rest.split_at(bytes))
}

/// Changes single properties, keeping all others byte for byte.
#[derive(Debug)]
pub(crate) struct PropertyWriter<'a> {
    source: PropertyReader<'a>,
    headers: Option<Option<FieldTable>>,
    reply_to: Option<&'a str>,
    drop_expiration: bool,
}

impl<'a> PropertyWriter<'a> {
    pub(crate) const fn new(properties: &'a Bytes) -> Self {
        Self { source: PropertyReader::new(properties), headers: None, reply_to: None, drop_expiration: false }
    }

    /// Replaces the headers, or removes them.
    pub(crate) fn headers(mut self, headers: Option<FieldTable>) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Replaces reply_to, which must fit a short string.
    pub(crate) const fn reply_to(mut self, reply_to: &'a str) -> Self {
        self.reply_to = Some(reply_to);
        self
    }

    /// Removes expiration.
    pub(crate) const fn without_expiration(mut self) -> Self {
        self.drop_expiration = true;
        self
    }

    /// The changed properties.
    pub(crate) fn write(self) -> Bytes {
        let mut flags = 0;
        let mut values = BytesMut::with_capacity(self.source.properties.len() + 64);
        for property in Property::ALL {
            let before = values.len();
            let raw = self.source.find(property);
            match property {
                Property::Headers if self.headers.is_some() => {
                    if let Some(Some(table)) = &self.headers {
                        values.extend_from_slice(&encode_table(table));
                    }
                }
                Property::ReplyTo if self.reply_to.is_some() => {
                    let text = self.reply_to.unwrap_or_default();
                    let bytes = &text.as_bytes()[..text.len().min(255)];
                    values.put_u8(bytes.len() as u8);
                    values.extend_from_slice(bytes);
                }
                Property::Expiration if self.drop_expiration => {}
                _ => values.extend_from_slice(raw.unwrap_or_default()),
            }
            if values.len() > before {
                flags |= property.flag();
            }
        }
        let mut out = BytesMut::with_capacity(2 + values.len());
        out.put_u16(flags);
        out.extend_from_slice(&values);
        out.freeze()
    }
}

fn encode_table(table: &FieldTable) -> Vec<u8> {
    let context = amq_protocol::frame::WriteContext::from(Vec::new());
    // Writing to a Vec does not fail.
    generation::gen_field_table(table)(context).map(|context| context.write).unwrap_or_default()
}

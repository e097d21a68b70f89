//! Properties of messages that this process creates.

use super::content::Property;

/// Encodes properties. They must be given in the order of the methods, which is the order on the wire.
#[derive(Debug)]
pub(crate) struct NewProperties<'a> {
    out: &'a mut Vec<u8>,
    at: usize,
    flags: u16,
    overlong_bytes: Option<usize>,
}

/// A text is too long for a short string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlong {
    pub(crate) bytes: usize,
}

impl<'a> NewProperties<'a> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0, 0]);
        Self { out, at, flags: 0, overlong_bytes: None }
    }

    pub(crate) fn content_type(&mut self, text: &str) -> &mut Self {
        self.text(Property::ContentType, text)
    }

    /// A table that is encoded with its length.
    pub(crate) fn headers(&mut self, table: &[u8]) -> &mut Self {
        self.flags |= Property::Headers.flag();
        self.out.extend_from_slice(table);
        self
    }

    pub(crate) fn delivery_mode(&mut self, delivery_mode: u8) -> &mut Self {
        self.flags |= Property::DeliveryMode.flag();
        self.out.push(delivery_mode);
        self
    }

    pub(crate) fn priority(&mut self, priority: u8) -> &mut Self {
        self.flags |= Property::Priority.flag();
        self.out.push(priority);
        self
    }

    /// Of bytes: it may be no text.
    pub(crate) fn correlation_id(&mut self, id: impl AsRef<[u8]>) -> &mut Self {
        self.bytes(Property::CorrelationId, id.as_ref())
    }

    /// Of bytes, too.
    pub(crate) fn reply_to(&mut self, name: impl AsRef<[u8]>) -> &mut Self {
        self.bytes(Property::ReplyTo, name.as_ref())
    }

    /// In milliseconds, written as decimal digits.
    pub(crate) fn expiration(&mut self, expiration_ms: u64) -> &mut Self {
        self.flags |= Property::Expiration.flag();
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(expiration_ms).as_bytes();
        self.out.push(digits.len() as u8);
        self.out.extend_from_slice(digits);
        self
    }

    /// Of bytes, too.
    pub(crate) fn message_id(&mut self, id: impl AsRef<[u8]>) -> &mut Self {
        self.bytes(Property::MessageId, id.as_ref())
    }

    pub(crate) fn kind(&mut self, text: &str) -> &mut Self {
        self.text(Property::Kind, text)
    }

    pub(crate) fn user_id(&mut self, text: &str) -> &mut Self {
        self.text(Property::UserId, text)
    }

    pub(crate) fn app_id(&mut self, text: &str) -> &mut Self {
        self.text(Property::AppId, text)
    }

    /// Completes them.
    ///
    /// # Errors
    /// [`Overlong`] when a text was too long. The bytes written so far must not be sent then.
    pub(crate) fn finish(&mut self) -> Result<(), Overlong> {
        self.out[self.at..self.at + 2].copy_from_slice(&self.flags.to_be_bytes());
        self.overlong_bytes.map_or(Ok(()), |bytes| Err(Overlong { bytes }))
    }

    fn text(&mut self, property: Property, text: &str) -> &mut Self {
        self.bytes(property, text.as_bytes())
    }

    fn bytes(&mut self, property: Property, text: &[u8]) -> &mut Self {
        debug_assert!(self.flags.trailing_zeros() > property.flag().trailing_zeros(), "{property:?} comes before");
        if text.len() > 255 {
            self.overlong_bytes = Some(text.len());
            return self;
        }
        self.flags |= property.flag();
        self.out.push(text.len() as u8);
        self.out.extend_from_slice(text);
        self
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::{
        protocol::{BasicProperties, basic},
        types::{AMQPValue, FieldTable},
    };

    use super::*;
    use crate::wire::{PropertyReader, table::TableWriter};

    #[test]
    fn new_properties_are_read_back_by_the_library() {
        let mut table = TableWriter::new();
        table.integer("n", 1);
        let mut bytes = vec![b'x'];
        let mut new = NewProperties::new(&mut bytes);
        new.content_type("text/plain").headers(&table.finish()).delivery_mode(2).priority(9).correlation_id("c");
        new.reply_to("r").expiration(0).message_id("m").kind("t").user_id("u").app_id("a").finish().unwrap();
        let mut headers = FieldTable::default();
        headers.insert("n".into(), AMQPValue::LongLongInt(1));
        let expected = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(9)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("0".into())
            .with_message_id("m".into())
            .with_type("t".into())
            .with_user_id("u".into())
            .with_app_id("a".into());
        assert_eq!(basic::parse_properties(&bytes[1..]).unwrap().1, expected);
        let reader = PropertyReader::new(&bytes[1..]);
        let texts = [reader.content_type(), reader.correlation_id(), reader.message_id(), reader.kind()];
        assert_eq!(texts, [&b"text/plain"[..], b"c", b"m", b"t"].map(Some));
        assert_eq!(reader.app_id(), Some(&b"a"[..]));
        for number in [7, 10, 1_234_567_890, u64::MAX] {
            let mut bytes = Vec::new();
            NewProperties::new(&mut bytes).expiration(number).finish().unwrap();
            assert_eq!(PropertyReader::new(&bytes).expiration(), Some(number.to_string().as_bytes()));
        }
        let overlong = NewProperties::new(&mut Vec::new()).reply_to("r".repeat(256)).finish();
        assert_eq!(overlong, Err(Overlong { bytes: 256 }));
    }
}

//! Field tables as raw bytes. They are read, checked and built without decoding, so that order and types stay as sent.
//!
//! `length(4)`, then for each field `key(short string) type(1) value` (AMQP 0-9-1 §4.2.5.5, with RabbitMQ's types).

/// One field of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Value<'a>,
    /// The bytes of key, type and value.
    pub(crate) raw: &'a [u8],
}

/// A value that is not decoded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    /// RabbitMQ's type octet.
    pub(crate) kind: u8,
    /// The bytes after the type.
    pub(crate) raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// The bytes of a long string.
    pub(crate) fn as_text(self) -> Option<&'a [u8]> {
        (self.kind == b'S').then(|| &self.raw[4..])
    }

    /// The values of an array; `None` for other types.
    pub(crate) fn as_array(self) -> Option<impl Iterator<Item = Value<'a>>> {
        let mut rest = (self.kind == b'A').then(|| &self.raw[4..])?;
        Some(std::iter::from_fn(move || {
            let (value, after) = split_value(rest)?;
            rest = after;
            Some(value)
        }))
    }

    /// The fields of a table; `None` for other types.
    pub(crate) fn as_table(self) -> Option<impl Iterator<Item = Field<'a>> + Clone> {
        (self.kind == b'F').then(|| fields(self.raw))
    }

    /// An integer of any width; `None` for other types.
    pub(crate) fn as_integer(self) -> Option<i64> {
        let raw = self.raw;
        Some(match self.kind {
            b'b' => i8::from_be_bytes(raw.try_into().ok()?).into(),
            b'B' => u8::from_be_bytes(raw.try_into().ok()?).into(),
            b's' | b'U' => i16::from_be_bytes(raw.try_into().ok()?).into(),
            b'u' => u16::from_be_bytes(raw.try_into().ok()?).into(),
            b'I' => i32::from_be_bytes(raw.try_into().ok()?).into(),
            b'i' => u32::from_be_bytes(raw.try_into().ok()?).into(),
            b'l' | b'L' => i64::from_be_bytes(raw.try_into().ok()?),
            _ => return None,
        })
    }

    /// RabbitMQ's name of the type.
    pub(crate) const fn kind_name(self) -> &'static str {
        match self.kind {
            b't' => "bool",
            b'b' => "byte",
            b'B' => "unsignedbyte",
            b's' | b'U' => "short",
            b'u' => "unsignedshort",
            b'I' => "signedint",
            b'i' => "unsignedint",
            b'l' | b'L' => "long",
            b'f' => "float",
            b'd' => "double",
            b'D' => "decimal",
            b'S' => "longstr",
            b'A' => "array",
            b'T' => "timestamp",
            b'F' => "table",
            b'x' => "binary",
            _ => "void",
        }
    }
}

/// The fields of a table. Of a table that [`check`] refuses, the fields before the first malformed one.
pub(crate) fn fields(table: &[u8]) -> impl Iterator<Item = Field<'_>> + Clone {
    let mut rest = table.get(4..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (field, after) = split_field(rest)?;
        rest = after;
        Some(field)
    })
}

/// The value of a field.
pub(crate) fn find<'a>(table: &'a [u8], key: &[u8]) -> Option<Value<'a>> {
    fields(table).find(|field| field.key == key).map(|field| field.value)
}

/// Whether `table`, with its length, is one whole table that is nested at most to the given depth.
///
/// That depth is at most [`DEPTH_MAX`], because this function and the decoders recurse. Keys may be any bytes: RabbitMQ
/// does not look at their encoding.
pub(crate) fn check(table: &[u8], depth_max: usize) -> bool {
    is_one_integer(table)
        || content(table)
            .is_some_and(|(content, after)| after.is_empty() && check_fields(content, depth_max.min(DEPTH_MAX)))
}

/// Whether the only field is a 64-bit integer: so it is in nearly every request.
fn is_one_integer(table: &[u8]) -> bool {
    let Some((length, [key_bytes, rest @ ..])) = table.split_first_chunk() else { return false };
    let value_at = usize::from(*key_bytes);
    rest.len() == value_at + 9 && rest[value_at] == b'l' && u32::from_be_bytes(*length) as usize == rest.len() + 1
}

/// The bytes of the table at the front of `bytes`, with its length.
pub(crate) fn split_table(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    bytes.split_at_checked(length.checked_add(4)?)
}

fn content(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (table, after) = split_table(bytes)?;
    Some((&table[4..], after))
}

fn check_fields(mut rest: &[u8], depth: usize) -> bool {
    while !rest.is_empty() {
        let Some((field, after)) = split_field(rest) else { return false };
        if !check_value(field.value, depth) {
            return false;
        }
        rest = after;
    }
    true
}

fn check_value(value: Value<'_>, depth: usize) -> bool {
    match value.kind {
        b'F' => depth > 0 && check_fields(&value.raw[4..], depth - 1),
        b'A' => depth > 0 && check_values(&value.raw[4..], depth - 1),
        _ => true,
    }
}

fn check_values(mut rest: &[u8], depth: usize) -> bool {
    while !rest.is_empty() {
        let Some((value, after)) = split_value(rest) else { return false };
        if !check_value(value, depth) {
            return false;
        }
        rest = after;
    }
    true
}

fn split_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let key_end = 1 + usize::from(*bytes.first()?);
    let key = bytes.get(1..key_end)?;
    let (value, after) = split_value(bytes.get(key_end..)?)?;
    let raw = &bytes[..bytes.len() - after.len()];
    Some((Field { key, value, raw }, after))
}

fn split_value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let length = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'A' | b'F' | b'x' => (u32::from_be_bytes(*rest.first_chunk()?) as usize).checked_add(4)?,
        _ => return None,
    };
    let (raw, after) = rest.split_at_checked(length)?;
    Some((Value { kind, raw }, after))
}

/// Builds a table, in the order of the calls.
#[derive(Debug)]
pub(crate) struct TableWriter {
    bytes: Vec<u8>,
}

impl TableWriter {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; 4] }
    }

    /// A field of another table, unchanged.
    pub(crate) fn raw(&mut self, field: Field<'_>) -> &mut Self {
        self.bytes.extend_from_slice(field.raw);
        self
    }

    pub(crate) fn text(&mut self, key: &str, text: &[u8]) -> &mut Self {
        self.value(key, b'S', &[]).tail_with_length(text)
    }

    pub(crate) fn integer(&mut self, key: &str, integer: i64) -> &mut Self {
        self.value(key, b'l', &integer.to_be_bytes())
    }

    pub(crate) fn boolean(&mut self, key: &str, boolean: bool) -> &mut Self {
        self.value(key, b't', &[boolean.into()])
    }

    pub(crate) fn double(&mut self, key: &str, double: f64) -> &mut Self {
        self.value(key, b'd', &double.to_be_bytes())
    }

    pub(crate) fn binary(&mut self, key: &str, bytes: &[u8]) -> &mut Self {
        self.value(key, b'x', &[]).tail_with_length(bytes)
    }

    pub(crate) fn timestamp(&mut self, key: &str, unix_s: u64) -> &mut Self {
        self.value(key, b'T', &unix_s.to_be_bytes())
    }

    /// An array of long strings.
    pub(crate) fn texts<'a>(&mut self, key: &str, texts: impl IntoIterator<Item = &'a [u8]>) -> &mut Self {
        let mut array = Vec::new();
        for text in texts {
            array.push(b'S');
            put_with_length(&mut array, text);
        }
        self.value(key, b'A', &[]).tail_with_length(&array)
    }

    /// An array of tables, each encoded with its length.
    pub(crate) fn tables<'a>(&mut self, key: &str, tables: impl IntoIterator<Item = &'a [u8]>) -> &mut Self {
        let mut array = Vec::new();
        for table in tables {
            array.push(b'F');
            array.extend_from_slice(table);
        }
        self.value(key, b'A', &[]).tail_with_length(&array)
    }

    /// The finished table, with its length.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = (self.bytes.len() - 4) as u32;
        self.bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.bytes
    }

    /// Keys have at most 255 bytes.
    fn value(&mut self, key: &str, kind: u8, raw: &[u8]) -> &mut Self {
        self.bytes.push(key.len() as u8);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(raw);
        self
    }

    fn tail_with_length(&mut self, tail: &[u8]) -> &mut Self {
        put_with_length(&mut self.bytes, tail);
        self
    }
}

fn put_with_length(bytes: &mut Vec<u8>, tail: &[u8]) {
    bytes.extend_from_slice(&(tail.len() as u32).to_be_bytes());
    bytes.extend_from_slice(tail);
}

/// The deepest nesting of tables. A recursive decoder exhausts the stack at a few thousand levels.
pub(crate) const DEPTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use amq_protocol::types::{AMQPValue, FieldTable, parsing::parse_field_table};

    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        let mut table = vec![0; 4];
        for _ in 0..depth {
            let mut outer = ((table.len() + 3) as u32).to_be_bytes().to_vec();
            outer.extend([1, b'k', b'F']);
            outer.extend(table);
            table = outer;
        }
        table
    }

    #[test]
    fn a_table_of_one_integer_is_checked_as_any_other() {
        let mut writer = TableWriter::new();
        writer.integer("rpc-deadline", 7);
        let table = writer.finish();
        assert!(is_one_integer(&table) && check(&table, 0));
        let slowly = |table: &[u8]| {
            content(table).is_some_and(|(content, after)| after.is_empty() && check_fields(content, DEPTH_MAX))
        };
        for at in 0..table.len() {
            assert!(!check(&table[..at], DEPTH_MAX), "{at}");
            for byte in [0, 1, 7, b'l', b't', 0xFF] {
                let mut other = table.clone();
                other[at] = byte;
                assert_eq!(check(&other, DEPTH_MAX), slowly(&other), "{byte} at {at}");
            }
        }
        assert!(!check(&[&table[..], b"x"].concat(), DEPTH_MAX));
    }

    #[test]
    fn written_tables_are_read_back_by_the_library() {
        let mut inner = TableWriter::new();
        inner.integer("count", -3).timestamp("time", 7);
        let inner = inner.finish();
        let mut writer = TableWriter::new();
        writer.text("text", b"abc").texts("list", [&b"x"[..], b"yz"]).tables("tables", [&inner[..]]);
        writer.boolean("yes", true).double("half", 0.5).binary("bytes", &[0xFF]);
        let table = writer.finish();
        assert!(check(&table, DEPTH_MAX));
        let (rest, parsed) = parse_field_table(&table[..]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(parsed.inner().get("text"), Some(&AMQPValue::LongString("abc".into())));
        assert_eq!(parsed.inner().get("yes"), Some(&AMQPValue::Boolean(true)));
        assert_eq!(parsed.inner().get("half"), Some(&AMQPValue::Double(0.5)));
        assert_eq!(parsed.inner().get("bytes"), Some(&AMQPValue::ByteArray(vec![0xFF].into())));
        assert_eq!(find(&table, b"text").unwrap().as_text(), Some(&b"abc"[..]));
        let list: Vec<_> = find(&table, b"list").unwrap().as_array().unwrap().map(|v| v.as_text().unwrap()).collect();
        assert_eq!(list, [&b"x"[..], b"yz"]);
        let tables: Vec<_> = find(&table, b"tables").unwrap().as_array().unwrap().collect();
        let count = tables[0].as_table().unwrap().find(|field| field.key == b"count").unwrap();
        assert_eq!(count.value.as_integer(), Some(-3));
    }

    #[test]
    fn every_prefix_of_a_table_is_refused() {
        let mut writer = TableWriter::new();
        writer.text("text", b"abc").integer("n", 1).texts("list", [&b"x"[..]]);
        let table = writer.finish();
        for end in 0..table.len() {
            assert!(!check(&table[..end], DEPTH_MAX), "{end}");
        }
        let not_utf8 = [0, 0, 0, 3, 1, 0xE9, b'V'];
        assert!(check(&not_utf8, DEPTH_MAX));
        assert_eq!(find(&not_utf8, &[0xE9]).unwrap().kind, b'V');
        let unknown_type = [0, 0, 0, 4, 1, b'a', b'Z', 0];
        assert!(!check(&unknown_type, DEPTH_MAX));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(check(&nested(DEPTH_MAX), DEPTH_MAX));
        assert!(parse_field_table(&nested(DEPTH_MAX)[..]).is_ok());
        assert!(!check(&nested(DEPTH_MAX + 1), DEPTH_MAX));
        assert!(!check(&nested(20_000), usize::MAX), "no limit is higher than what the stack bears");
        assert!(check(&nested(3), 3) && !check(&nested(4), 3));
        assert!(check(&nested(0), 0) && !check(&nested(1), 0));
    }

    #[test]
    fn an_empty_table_has_no_fields() {
        assert_eq!(fields(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(FieldTable::default(), parse_field_table(&TableWriter::new().finish()[..]).unwrap().1);
    }
}

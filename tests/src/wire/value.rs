//! Field tables and their values, byte for byte: order kept, types kept, duplicates kept.

use std::fmt::{self, Display, Formatter};

use super::{quote::quote, reader::Reader};

/// A field table, in the order of the wire.
pub type Table = Vec<(Vec<u8>, Value)>;

/// A value of a field table, by RabbitMQ's reading of the type letters.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `t`
    Boolean(bool),
    /// `b`
    Octet(i8),
    /// `B`
    UnsignedOctet(u8),
    /// `s`
    Short(i16),
    /// `u`
    UnsignedShort(u16),
    /// `I`
    Long(i32),
    /// `i`
    UnsignedLong(u32),
    /// `l`
    LongLong(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: scale and value.
    Decimal(u8, u32),
    /// `S`
    LongString(Vec<u8>),
    /// `x`
    Bytes(Vec<u8>),
    /// `T`, in seconds
    Timestamp(u64),
    /// `A`
    Array(Vec<Self>),
    /// `F`
    Table(Table),
    /// `V`
    Void,
}

impl Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(value) => out.extend([b't', u8::from(*value)]),
            Self::Octet(value) => put(out, b'b', &value.to_be_bytes()),
            Self::UnsignedOctet(value) => put(out, b'B', &[*value]),
            Self::Short(value) => put(out, b's', &value.to_be_bytes()),
            Self::UnsignedShort(value) => put(out, b'u', &value.to_be_bytes()),
            Self::Long(value) => put(out, b'I', &value.to_be_bytes()),
            Self::UnsignedLong(value) => put(out, b'i', &value.to_be_bytes()),
            Self::LongLong(value) => put(out, b'l', &value.to_be_bytes()),
            Self::Float(value) => put(out, b'f', &value.to_be_bytes()),
            Self::Double(value) => put(out, b'd', &value.to_be_bytes()),
            Self::Decimal(scale, value) => {
                put(out, b'D', &[*scale]);
                out.extend(value.to_be_bytes());
            }
            Self::LongString(value) => put_long(out, b'S', value),
            Self::Bytes(value) => put_long(out, b'x', value),
            Self::Timestamp(value) => put(out, b'T', &value.to_be_bytes()),
            Self::Array(values) => {
                let mut array = Vec::new();
                values.iter().for_each(|value| value.encode(&mut array));
                put_long(out, b'A', &array);
            }
            Self::Table(table) => {
                out.push(b'F');
                encode_table(table, out);
            }
            Self::Void => out.push(b'V'),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.octet()? {
            b't' => Self::Boolean(reader.octet()? != 0),
            b'b' => Self::Octet(i8::from_be_bytes(reader.array()?)),
            b'B' => Self::UnsignedOctet(reader.octet()?),
            b's' => Self::Short(i16::from_be_bytes(reader.array()?)),
            b'u' => Self::UnsignedShort(u16::from_be_bytes(reader.array()?)),
            b'I' => Self::Long(i32::from_be_bytes(reader.array()?)),
            b'i' => Self::UnsignedLong(u32::from_be_bytes(reader.array()?)),
            b'l' => Self::LongLong(i64::from_be_bytes(reader.array()?)),
            b'f' => Self::Float(f32::from_be_bytes(reader.array()?)),
            b'd' => Self::Double(f64::from_be_bytes(reader.array()?)),
            b'D' => Self::Decimal(reader.octet()?, reader.long()?),
            b'S' => Self::LongString(reader.long_string()?.to_vec()),
            b'x' => Self::Bytes(reader.long_string()?.to_vec()),
            b'T' => Self::Timestamp(reader.long_long()?),
            b'A' => {
                let mut reader = Reader::new(reader.long_string()?);
                let mut values = Vec::new();
                while !reader.is_at_end() {
                    values.push(Self::decode(&mut reader)?);
                }
                Self::Array(values)
            }
            b'F' => Self::Table(decode_table(reader)?),
            b'V' => Self::Void,
            _ => return None,
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Octet(value) => write!(f, "{value}:b"),
            Self::UnsignedOctet(value) => write!(f, "{value}:B"),
            Self::Short(value) => write!(f, "{value}:s"),
            Self::UnsignedShort(value) => write!(f, "{value}:u"),
            Self::Long(value) => write!(f, "{value}"),
            Self::UnsignedLong(value) => write!(f, "{value}:i"),
            Self::LongLong(value) => write!(f, "{value}:l"),
            Self::Float(value) => write!(f, "{value}:f"),
            Self::Double(value) => write!(f, "{value}:d"),
            Self::Decimal(scale, value) => write!(f, "{scale}/{value}:D"),
            Self::LongString(value) => f.write_str(&quote(value)),
            Self::Bytes(value) => write!(f, "{}:x", quote(value)),
            Self::Timestamp(value) => write!(f, "@{value}"),
            Self::Array(values) => {
                let values: Vec<_> = values.iter().map(Self::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Self::Table(table) => f.write_str(&show_table(table)),
            Self::Void => f.write_str("void"),
        }
    }
}

/// A table in the notation of transcripts, sorted by key: the order of a table's fields has no meaning, and brokers
/// that write a header anew change it.
pub fn show_table(table: &Table) -> String {
    let mut table: Vec<_> = table.iter().collect();
    table.sort_by_key(|(key, _)| key);
    let fields: Vec<_> = table.into_iter().map(|(key, value)| format!("{}: {value}", show_key(key))).collect();
    format!("{{{}}}", fields.join(", "))
}

pub(super) fn encode_table(table: &Table, out: &mut Vec<u8>) {
    let mut fields = Vec::new();
    for (key, value) in table {
        fields.push(u8::try_from(key.len()).expect("scenarios use keys of at most 255 bytes"));
        fields.extend(key);
        value.encode(&mut fields);
    }
    out.extend(length(&fields));
    out.extend(fields);
}

pub(super) fn decode_table(reader: &mut Reader<'_>) -> Option<Table> {
    let mut fields = Reader::new(reader.long_string()?);
    let mut table = Table::new();
    while !fields.is_at_end() {
        let key = fields.short_string()?.to_vec();
        table.push((key, Value::decode(&mut fields)?));
    }
    Some(table)
}

fn show_key(key: &[u8]) -> String {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match std::str::from_utf8(key) {
        Ok(word) if !key.is_empty() && key.iter().all(is_word) => word.to_owned(),
        _ => quote(key),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend(bytes);
}

fn put_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend(length(bytes));
    out.extend(bytes);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("scenarios are smaller than 4 GiB").to_be_bytes()
}

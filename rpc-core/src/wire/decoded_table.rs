//! Field tables as `amq-protocol`'s type, which the routing engine and the queues' arguments use. Pure.
//!
//! `amq-protocol` has a decoder of its own. This one recurses only as deep as it is told, and takes keys in any encoding,
//! as RabbitMQ does.

use amq_protocol::types::{AMQPValue, DecimalValue, FieldTable, ShortString};

use super::table::{self, Field, Value};

/// Decodes a table, with its length. `None` unless [`table::check`] accepts it.
pub(crate) fn decode(bytes: &[u8], depth_max: usize) -> Option<FieldTable> {
    if !table::check(bytes, depth_max) {
        return None;
    }
    table_of(table::fields(bytes))
}

fn table_of<'a>(fields: impl Iterator<Item = Field<'a>>) -> Option<FieldTable> {
    let mut table = FieldTable::default();
    for field in fields {
        table.insert(key(field.key), value(field.value)?);
    }
    Some(table)
}

/// The value of a checked table, whose depth is bounded.
fn value(value: Value<'_>) -> Option<AMQPValue> {
    let raw = value.raw;
    Some(match value.kind {
        b't' => AMQPValue::Boolean(*raw.first()? != 0),
        b'b' => AMQPValue::ShortShortInt(i8::from_be_bytes(raw.try_into().ok()?)),
        b'B' => AMQPValue::ShortShortUInt(u8::from_be_bytes(raw.try_into().ok()?)),
        b's' | b'U' => AMQPValue::ShortInt(i16::from_be_bytes(raw.try_into().ok()?)),
        b'u' => AMQPValue::ShortUInt(u16::from_be_bytes(raw.try_into().ok()?)),
        b'I' => AMQPValue::LongInt(i32::from_be_bytes(raw.try_into().ok()?)),
        b'i' => AMQPValue::LongUInt(u32::from_be_bytes(raw.try_into().ok()?)),
        b'l' | b'L' => AMQPValue::LongLongInt(i64::from_be_bytes(raw.try_into().ok()?)),
        b'f' => AMQPValue::Float(f32::from_be_bytes(raw.try_into().ok()?)),
        b'd' => AMQPValue::Double(f64::from_be_bytes(raw.try_into().ok()?)),
        b'D' => {
            let (&scale, unscaled) = raw.split_first()?;
            AMQPValue::DecimalValue(DecimalValue { scale, value: u32::from_be_bytes(unscaled.try_into().ok()?) })
        }
        b'S' => AMQPValue::LongString(value.as_text()?.into()),
        b'A' => {
            let values: Option<Vec<_>> = value.as_array()?.map(self::value).collect();
            AMQPValue::FieldArray(values?.into())
        }
        b'T' => AMQPValue::Timestamp(u64::from_be_bytes(raw.try_into().ok()?)),
        b'F' => AMQPValue::FieldTable(table_of(value.as_table()?)?),
        b'x' => AMQPValue::ByteArray(raw.get(4..)?.into()),
        b'V' => AMQPValue::Void,
        _ => return None,
    })
}

/// A key as text, which is what the library's type holds. Different keys have different texts.
///
/// Each byte that is not UTF-8 becomes a character for private use. A key that is then too long for a short string ends
/// with a hash of its bytes instead of its last characters.
fn key(bytes: &[u8]) -> ShortString {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_escape) => text.to_owned(),
        _ => escaped(bytes),
    };
    // Now the text fits.
    ShortString::try_new(text).unwrap_or_default()
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match is_escape(character) {
                // Only bytes are escaped with these, so that no two keys have the same text.
                true => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push(escape(byte))),
                false => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push(escape(*byte)));
    }
    if text.len() > SHORT_STRING_MAX {
        let end = (0..=SHORT_STRING_MAX - HASH_DIGITS).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(&format!("{:032x}", fnv(bytes)));
    }
    text
}

/// A character of the last 256 for private use.
fn escape(byte: u8) -> char {
    char::from_u32(FIRST_ESCAPE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_escape(character: char) -> bool {
    u32::from(character) >= FIRST_ESCAPE
}

/// The 128-bit hash FNV-1a. A client that searches for two keys with one hash confuses its own keys only.
fn fnv(bytes: &[u8]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    const BASIS: u128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

const FIRST_ESCAPE: u32 = 0x10_FF00;
const HASH_DIGITS: usize = 32;
const SHORT_STRING_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use amq_protocol::types::parsing::parse_field_table;

    use super::*;
    use crate::wire::{fuzz, table::DEPTH_MAX};

    #[test]
    fn a_table_of_every_type_is_decoded_as_the_library_does() {
        let seeds = fuzz::table_seeds();
        let tables: Vec<_> = seeds.iter().filter(|seed| seed[0] == 0).map(|seed| &seed[1..]).collect();
        let mut decoded = 0;
        for table in tables {
            if let Ok(([], expected)) = parse_field_table(table) {
                assert_eq!(decode(table, DEPTH_MAX), Some(expected));
                decoded += 1;
            }
        }
        assert!(decoded >= 2, "{decoded}");
    }

    #[test]
    fn different_keys_stay_different() {
        let long = |last: u8| [&[0xE9; 254][..], &[last]].concat();
        let keys: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            b"\xE9t\xE9".to_vec(),
            b"\xE8t\xE9".to_vec(),
            "été".into(),
            "\u{FFFD}t\u{FFFD}".into(),
            "\u{10FFE9}t\u{10FFE9}".into(),
            "\u{10FFF4}".into(),
            b"\xF4".to_vec(),
            b"x-\xE9".to_vec(),
            long(b'a'),
            long(b'b'),
            "ü".repeat(127).into(),
            "\u{10FFFF}".repeat(63).into(),
        ];
        let texts: HashSet<_> = keys.iter().map(|bytes| key(bytes).as_str().to_owned()).collect();
        assert_eq!(texts.len(), keys.len(), "{texts:?}");
        assert_eq!(texts.iter().filter(|text| text.is_empty()).count(), 1, "each fits into a short string");
        assert!(key(b"x-\xE9").as_str().starts_with("x-"), "a headers exchange ignores it");
        assert_eq!(key("été".as_bytes()).as_str(), "été");
    }

    #[test]
    fn a_table_that_is_too_deep_is_not_decoded() {
        let nested = |depth: usize| {
            (0..depth).fold(vec![0; 4], |table, _| {
                [&((table.len() + 3) as u32).to_be_bytes()[..], b"\x01kF", &table].concat()
            })
        };
        assert!(decode(&nested(DEPTH_MAX), DEPTH_MAX).is_some());
        assert_eq!(decode(&nested(DEPTH_MAX + 1), DEPTH_MAX), None);
        assert_eq!(decode(&nested(18_000), usize::MAX), None);
    }
}

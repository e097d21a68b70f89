//! The methods of AMQP 0-9-1 and of RabbitMQ's extensions: which peer sends them, and which arguments they have. Pure.
//!
//! It decodes nothing. [`read_method`](super::read_method) compares a payload with this list before a decoder sees it, so
//! that a method that is missing here is an unknown one, and no table reaches a decoder unchecked.

use std::ops::Range;

use super::method_error::MethodError;

/// A peer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// The shape of one method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    /// `None` for both.
    sender: Option<Role>,
    arguments: &'static [Argument],
}

/// An argument as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    /// Also up to eight bits.
    Octet,
    Short,
    Long,
    LongLong,
    ShortString,
    LongString,
    Table,
}

impl Grammar {
    /// The shape of a method; `None` if there is no such method.
    pub(super) const fn of((class_id, method_id): (u16, u16)) -> Option<Self> {
        use Argument::{Long, LongLong, LongString, Octet, Short, ShortString, Table};
        const CLOSE: &[Argument] = &[Short, ShortString, Short, Short];
        const BIND: &[Argument] = &[Short, ShortString, ShortString, ShortString, Octet, Table];
        Some(match (class_id, method_id) {
            // connection
            (10, 10) => server(&[Octet, Octet, Table, LongString, LongString]),
            (10, 11) => client(&[Table, ShortString, LongString, ShortString]),
            (10, 20) => server(&[LongString]),
            (10, 21) => client(&[LongString]),
            (10, 30) => server(&[Short, Long, Short]),
            (10, 31) => client(&[Short, Long, Short]),
            (10, 40) => client(&[ShortString, ShortString, Octet]),
            (10, 41) | (10, 60) => server(&[ShortString]),
            (10, 50) => either(CLOSE),
            (10, 51) => either(&[]),
            (10, 61) | (10, 71) => server(&[]),
            (10, 70) => client(&[LongString, ShortString]),
            // channel
            (20, 10) => client(&[ShortString]),
            (20, 11) => server(&[LongString]),
            (20, 20 | 21) => either(&[Octet]),
            (20, 40) => either(CLOSE),
            (20, 41) => either(&[]),
            // access
            (30, 10) => client(&[ShortString, Octet]),
            (30, 11) => server(&[Short]),
            // exchange
            (40, 10) => client(&[Short, ShortString, ShortString, Octet, Table]),
            (40, 20) => client(&[Short, ShortString, Octet]),
            (40, 30 | 40) | (50, 20) => client(BIND),
            (40, 11 | 21 | 31 | 51) => server(&[]),
            // queue
            (50, 10) => client(&[Short, ShortString, Octet, Table]),
            (50, 11) => server(&[ShortString, Long, Long]),
            (50, 30 | 40) => client(&[Short, ShortString, Octet]),
            (50, 31 | 41) => server(&[Long]),
            (50, 50) => client(&[Short, ShortString, ShortString, ShortString, Table]),
            (50, 21 | 51) => server(&[]),
            // basic
            (60, 10) => client(&[Long, Short, Octet]),
            (60, 20) => client(&[Short, ShortString, ShortString, Octet, Table]),
            (60, 21 | 72) => server(&[ShortString]),
            (60, 30) => either(&[ShortString, Octet]),
            (60, 31) => either(&[ShortString]),
            (60, 40) => client(&[Short, ShortString, ShortString, Octet]),
            (60, 50) => server(&[Short, ShortString, ShortString, ShortString]),
            (60, 60) => server(&[ShortString, LongLong, Octet, ShortString, ShortString]),
            (60, 70) => client(&[Short, ShortString, Octet]),
            (60, 71) => server(&[LongLong, Octet, ShortString, ShortString, Long]),
            (60, 80 | 120) => either(&[LongLong, Octet]),
            (60, 90) => client(&[LongLong, Octet]),
            (60, 100 | 110) => client(&[Octet]),
            (60, 11 | 111) => server(&[]),
            // confirm, tx
            (85, 10) => client(&[Octet]),
            (85, 11) | (90, 11 | 21 | 31) => server(&[]),
            (90, 10 | 20 | 30) => client(&[]),
            _ => return None,
        })
    }

    /// Whether only the other peer sends this method.
    pub(super) fn is_foreign_to(self, sender: Role) -> bool {
        self.sender.is_some_and(|only| only != sender)
    }

    /// Compares a payload with this shape. Returns the place of its table, whose content is checked where it is decoded.
    pub(super) fn check(self, payload: &[u8], ids: (u16, u16)) -> Result<Option<Range<usize>>, MethodError> {
        let malformed = || MethodError::Malformed { class_id: ids.0, method_id: ids.1 };
        let mut at = 4;
        let (mut table, mut is_utf8) = (None, true);
        for argument in self.arguments {
            let rest = payload.get(at..).ok_or_else(malformed)?;
            let length = argument.length(rest).ok_or_else(malformed)?;
            match argument {
                Argument::Table => table = Some(at..at + length),
                // AMQP 0-9-1 §4.2.5.3: RabbitMQ refuses other text in every method except `basic.publish`.
                Argument::ShortString => is_utf8 &= std::str::from_utf8(&rest[1..length]).is_ok(),
                _ => {}
            }
            at += length;
        }
        if at != payload.len() {
            return Err(malformed());
        }
        if !is_utf8 {
            return Err(MethodError::NotUtf8 { class_id: ids.0, method_id: ids.1 });
        }
        Ok(table)
    }

    /// The same payload with a question mark for each byte of its short strings that is no UTF-8.
    pub(super) fn legible(self, payload: &[u8]) -> Vec<u8> {
        let mut legible = payload.to_vec();
        let mut at = 4;
        for argument in self.arguments {
            let Some(length) = payload.get(at..).and_then(|rest| argument.length(rest)) else { break };
            if *argument == Argument::ShortString {
                let mut next = at + 1;
                for chunk in payload[at + 1..at + length].utf8_chunks() {
                    next += chunk.valid().len();
                    let invalid = next..next + chunk.invalid().len();
                    next = invalid.end;
                    legible[invalid].fill(b'?');
                }
            }
            at += length;
        }
        legible
    }
}

impl Argument {
    /// The bytes that this argument takes at the front of `rest`; `None` if `rest` is shorter.
    fn length(self, rest: &[u8]) -> Option<usize> {
        let length = match self {
            Self::Octet => 1,
            Self::Short => 2,
            Self::Long => 4,
            Self::LongLong => 8,
            Self::ShortString => 1 + usize::from(*rest.first()?),
            Self::LongString | Self::Table => (u32::from_be_bytes(*rest.first_chunk()?) as usize).checked_add(4)?,
        };
        (length <= rest.len()).then_some(length)
    }
}

const fn client(arguments: &'static [Argument]) -> Grammar {
    Grammar { sender: Some(Role::Client), arguments }
}

const fn server(arguments: &'static [Argument]) -> Grammar {
    Grammar { sender: Some(Role::Server), arguments }
}

const fn either(arguments: &'static [Argument]) -> Grammar {
    Grammar { sender: None, arguments }
}

#[cfg(test)]
mod tests {
    use amq_protocol::{
        frame::WriteContext,
        protocol::{gen_class, parse_class},
    };

    use super::*;

    /// Every method that the library can read, with arguments of zero.
    fn every_method() -> impl Iterator<Item = ((u16, u16), Vec<u8>)> {
        (0..=255_u16).flat_map(|class_id| (0..=255_u16).map(move |method_id| (class_id, method_id))).filter_map(|ids| {
            let header = [ids.0.to_be_bytes(), ids.1.to_be_bytes()].concat();
            // The shortest payload that is a whole method; the ids alone decide whether there is one.
            let payload = (0..=32).map(|zeros| [&header[..], &vec![0; zeros]].concat());
            payload
                .filter(|payload| parse_class(&payload[..]).is_ok_and(|(rest, _)| rest.is_empty()))
                .map(|payload| (ids, payload))
                .next()
        })
    }

    #[test]
    fn every_method_of_the_library_and_each_of_its_tables_is_listed() {
        let mut tables = 0;
        for (ids, payload) in every_method() {
            let grammar = Grammar::of(ids).unwrap_or_else(|| panic!("{ids:?} is not listed"));
            let place = grammar.check(&payload, ids).unwrap_or_else(|error| panic!("{error:?}"));
            let (_, class) = parse_class(&payload[..]).unwrap();
            assert_eq!(place.is_some(), format!("{class:?}").contains("FieldTable("), "{class:?}");
            let written = gen_class(&class)(WriteContext::from(Vec::new())).unwrap().write;
            assert_eq!(written.len(), payload.len(), "{class:?}");
            tables += usize::from(place.is_some());
        }
        assert_eq!(tables, 9, "connection.start, start-ok and the client's seven");
    }

    #[test]
    fn every_listed_method_is_known_to_the_library() {
        let known: Vec<_> = every_method().map(|(ids, _)| ids).collect();
        for ids in (0..=255_u16).flat_map(|class_id| (0..=255_u16).map(move |method_id| (class_id, method_id))) {
            assert_eq!(Grammar::of(ids).is_some(), known.contains(&ids), "{ids:?}");
        }
    }
}

//! Methods. The two of the hot path are read by hand, all others by `amq-protocol`.

use amq_protocol::protocol::{AMQPClass, parse_class};

use super::table;

/// A method as received.
#[derive(Debug)]
pub(crate) enum Method<'a> {
    Publish(Publish<'a>),
    Ack(Ack),
    Other(Box<AMQPClass>),
}

/// `basic.publish`, with names borrowed from the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

impl<'a> Publish<'a> {
    /// Reads the payload of a method frame; `None` when it is no publish.
    pub(crate) fn read(payload: &'a [u8]) -> Option<Self> {
        if method_ids(payload) == Some((BASIC, PUBLISH)) { read_publish(payload) } else { None }
    }
}

/// `basic.deliver`, with names borrowed from the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deliver<'a> {
    pub(crate) consumer_tag: &'a [u8],
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
}

impl<'a> Deliver<'a> {
    /// Reads the payload of a method frame; `None` when it is no delivery.
    pub(crate) fn read(payload: &'a [u8]) -> Option<Self> {
        if method_ids(payload) != Some((BASIC, DELIVER)) {
            return None;
        }
        let (consumer_tag, rest) = short_string(payload.get(4..)?)?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (&bits, rest) = rest.split_first()?;
        let (exchange, rest) = short_string(rest)?;
        let (routing_key, []) = short_string(rest)? else { return None };
        let (delivery_tag, redelivered) = (u64::from_be_bytes(*tag), bits & 1 != 0);
        Some(Self { consumer_tag, delivery_tag, redelivered, exchange, routing_key })
    }
}

/// `basic.ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) delivery_tag: u64,
    pub(crate) multiple: bool,
}

/// The reason why a payload is no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodError {
    /// Shorter than the ids.
    Truncated,
    /// No class or method has these ids.
    Unknown { class_id: u16, method_id: u16 },
    /// The ids are known, but the arguments are malformed.
    Malformed { class_id: u16, method_id: u16 },
}

/// The class and method ids at the start of every method.
pub(crate) fn method_ids(payload: &[u8]) -> Option<(u16, u16)> {
    let &[c0, c1, m0, m1] = payload.first_chunk()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// Reads the payload of a method frame. Tables in its arguments may nest to the given depth.
pub(crate) fn read_method(payload: &[u8], table_depth_max: usize) -> Result<Method<'_>, MethodError> {
    let (class_id, method_id) = method_ids(payload).ok_or(MethodError::Truncated)?;
    let malformed = MethodError::Malformed { class_id, method_id };
    match (class_id, method_id) {
        (BASIC, PUBLISH) => read_publish(payload).map(Method::Publish).ok_or(malformed),
        (BASIC, ACK) => read_ack(payload).map(Method::Ack).ok_or(malformed),
        _ if !is_known(class_id, method_id) => Err(MethodError::Unknown { class_id, method_id }),
        // Checked before `amq-protocol` reads it, because its parser recurses for each level of a table.
        ids if !is_table_good(ids, payload, table_depth_max) => Err(malformed),
        _ => match parse_class(payload) {
            Ok(([], class)) => Ok(Method::Other(Box::new(class))),
            Ok(_) | Err(_) => Err(malformed),
        },
    }
}

fn read_publish(payload: &[u8]) -> Option<Publish<'_>> {
    // Ids (4), a reserved short (2), then the names.
    let (exchange, rest) = short_string(payload.get(6..)?)?;
    let (routing_key, rest) = short_string(rest)?;
    let &[bits] = rest else { return None };
    Some(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

fn read_ack(payload: &[u8]) -> Option<Ack> {
    let (tag, rest) = payload.get(4..)?.split_first_chunk()?;
    let &[bits] = rest else { return None };
    Some(Ack { delivery_tag: u64::from_be_bytes(*tag), multiple: bits & 1 != 0 })
}

/// The table of a method that has one.
fn is_table_good((class_id, method_id): (u16, u16), payload: &[u8], table_depth_max: usize) -> bool {
    // The arguments before the table: fixed bytes, short strings, fixed bytes.
    let (before, strings, after) = match (class_id, method_id) {
        (10, 11) => (4, 0, 0),
        (40, 10) | (BASIC, 20) => (6, 2, 1),
        (50, 10) => (6, 1, 1),
        (40, 30 | 40) | (50, 20) => (6, 3, 1),
        (50, 50) => (6, 3, 0),
        _ => return true,
    };
    let mut rest = payload.get(before..).unwrap_or_default();
    for _ in 0..strings {
        let Some((_, after)) = short_string(rest) else { return false };
        rest = after;
    }
    rest.get(after..).and_then(table::split_table).is_some_and(|(table, _)| table::check(table, table_depth_max))
}

/// The short string at the front, and the rest.
fn short_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
}

/// All methods of AMQP 0-9-1 and of RabbitMQ's extensions.
fn is_known(class_id: u16, method_id: u16) -> bool {
    match class_id {
        10 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 41 | 50 | 51 | 60 | 61 | 70 | 71),
        20 => matches!(method_id, 10 | 11 | 20 | 21 | 40 | 41),
        30 => matches!(method_id, 10 | 11),
        40 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 51),
        50 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 41 | 50 | 51),
        BASIC => matches!(
            method_id,
            10 | 11 | 20 | 21 | 30 | 31 | 40 | 50 | 60 | 70 | 71 | 72 | 80 | 90 | 100 | 110 | 111 | 120
        ),
        85 => matches!(method_id, 10 | 11),
        90 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31),
        _ => false,
    }
}

const BASIC: u16 = 60;
const PUBLISH: u16 = 40;
const DELIVER: u16 = 60;
const ACK: u16 = 80;

#[cfg(test)]
mod tests {
    use amq_protocol::{
        frame::WriteContext,
        protocol::{basic, connection, exchange, gen_class, queue},
        types::{AMQPValue, FieldTable},
    };

    use super::*;

    fn read(payload: &[u8]) -> Result<Method<'_>, MethodError> {
        read_method(payload, table::DEPTH_MAX)
    }

    fn bytes_of(class: &AMQPClass) -> Vec<u8> {
        gen_class(class)(WriteContext::from(Vec::new())).unwrap().write
    }

    #[test]
    fn hand_read_methods_agree_with_the_library() {
        let publish = basic::Publish {
            exchange: "amq.topic".into(),
            routing_key: "a.b".into(),
            mandatory: true,
            immediate: false,
        };
        let payload = bytes_of(&AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
        let expected = Publish { exchange: b"amq.topic", routing_key: b"a.b", mandatory: true, immediate: false };
        assert!(matches!(read(&payload), Ok(Method::Publish(publish)) if publish == expected));
        for end in 0..payload.len() {
            assert!(read(&payload[..end]).is_err(), "{end}");
        }
        let deliver = basic::Deliver {
            consumer_tag: "tag".into(),
            delivery_tag: 7,
            redelivered: true,
            exchange: "ex".into(),
            routing_key: "a.b".into(),
        };
        let payload = bytes_of(&AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)));
        let expected =
            Deliver { consumer_tag: b"tag", delivery_tag: 7, redelivered: true, exchange: b"ex", routing_key: b"a.b" };
        assert_eq!(Deliver::read(&payload), Some(expected));
        for end in 0..payload.len() {
            assert_eq!(Deliver::read(&payload[..end]), None, "{end}");
        }
        let ack = basic::Ack { delivery_tag: u64::MAX - 1, multiple: true };
        let payload = bytes_of(&AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
        let expected = Ack { delivery_tag: u64::MAX - 1, multiple: true };
        assert!(matches!(read(&payload), Ok(Method::Ack(ack)) if ack == expected));
    }

    #[test]
    fn tables_are_found_where_the_methods_have_them() {
        let mut arguments = FieldTable::default();
        arguments.insert("x".into(), AMQPValue::LongString("y".into()));
        let classes = [
            AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                client_properties: arguments.clone(),
                mechanism: "PLAIN".into(),
                response: "r".into(),
                locale: "en_US".into(),
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
                exchange: "e".into(),
                kind: "direct".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
                source: "a".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Unbind(exchange::Unbind {
                source: "a".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue: "q".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                queue: "q".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
                queue: "q".into(),
                arguments: arguments.clone(),
                ..Default::default()
            })),
            AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
                queue: "q".into(),
                arguments,
                ..Default::default()
            })),
        ];
        for class in classes {
            let mut payload = bytes_of(&class);
            assert!(matches!(read(&payload), Ok(Method::Other(read)) if *read == class), "{class:?}");
            let at = payload.windows(4).position(|bytes| bytes == b"\x01xS\0").unwrap();
            payload[at + 2] = b'?';
            assert!(matches!(read(&payload), Err(MethodError::Malformed { .. })), "{class:?}");
        }
    }

    #[test]
    fn unknown_malformed_and_overlong_methods_are_distinguished() {
        let unknown = MethodError::Unknown { class_id: 99, method_id: 1 };
        assert_eq!(read(&[0, 99, 0, 1]).unwrap_err(), unknown);
        let malformed = MethodError::Malformed { class_id: 50, method_id: 10 };
        assert_eq!(read(&[0, 50, 0, 10, 0]).unwrap_err(), malformed);
        let overlong = MethodError::Malformed { class_id: 60, method_id: 10 };
        assert_eq!(read(&[0, 60, 0, 10, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap_err(), overlong);
        assert_eq!(read(&[0, 50]).unwrap_err(), MethodError::Truncated);
    }
}

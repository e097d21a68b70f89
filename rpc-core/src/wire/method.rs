//! Methods. The two of the hot path are read by hand, all others by `amq-protocol`.

use std::ops::Range;

use amq_protocol::{
    protocol::{AMQPClass, basic, connection, exchange, parse_class, queue},
    types::FieldTable,
};

use super::{
    decoded_table,
    grammar::{Grammar, Role},
    method_error::MethodError,
};

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

/// The class and method ids at the start of every method.
pub(crate) fn method_ids(payload: &[u8]) -> Option<(u16, u16)> {
    let &[c0, c1, m0, m1] = payload.first_chunk()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// Reads the payload of a method frame that `sender` has sent. Tables in its arguments may nest to the given depth.
pub(crate) fn read_method(payload: &[u8], sender: Role, table_depth_max: usize) -> Result<Method<'_>, MethodError> {
    let ids = method_ids(payload).ok_or(MethodError::Truncated)?;
    let (class_id, method_id) = ids;
    let malformed = MethodError::Malformed { class_id, method_id };
    match (ids, sender) {
        ((BASIC, PUBLISH), Role::Client) => return read_publish(payload).map(Method::Publish).ok_or(malformed),
        ((BASIC, ACK), _) => return read_ack(payload).map(Method::Ack).ok_or(malformed),
        _ => {}
    }
    let grammar = Grammar::of(ids).ok_or(MethodError::Unknown { class_id, method_id })?;
    if grammar.is_foreign_to(sender) {
        return Err(MethodError::Foreign { class_id, method_id });
    }
    match grammar.check(payload, ids) {
        // A broker names what others have sent: the key of a returned message, the exchange that does not exist.
        Err(MethodError::NotUtf8 { .. }) if sender == Role::Server => {
            let legible = grammar.legible(payload);
            read_checked(&legible, grammar.check(&legible, ids)?, table_depth_max)
        }
        checked => read_checked(payload, checked?, table_depth_max),
    }
    .map(Method::Other)
    .ok_or(malformed)
}

/// Decodes a method whose table stands at `place`, if it has one.
fn read_checked(payload: &[u8], place: Option<Range<usize>>, table_depth_max: usize) -> Option<Box<AMQPClass>> {
    let Some(place) = place else { return parse(payload) };
    // `amq-protocol` gets an empty table: its parser recurses for each level, and refuses keys that are not UTF-8.
    let table = decoded_table::decode(&payload[place.clone()], table_depth_max)?;
    let others = [&payload[..place.start], &[0; 4], &payload[place.end..]].concat();
    let mut class = parse(&others)?;
    *table_of(&mut class)? = table;
    Some(class)
}

fn parse(payload: &[u8]) -> Option<Box<AMQPClass>> {
    match parse_class(payload) {
        Ok(([], class)) => Some(Box::new(class)),
        Ok(_) | Err(_) => None,
    }
}

/// The table among a method's arguments.
fn table_of(class: &mut AMQPClass) -> Option<&mut FieldTable> {
    Some(match class {
        AMQPClass::Connection(connection::AMQPMethod::Start(start)) => &mut start.server_properties,
        AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)) => &mut start_ok.client_properties,
        AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)) => &mut declare.arguments,
        AMQPClass::Exchange(exchange::AMQPMethod::Bind(bind)) => &mut bind.arguments,
        AMQPClass::Exchange(exchange::AMQPMethod::Unbind(unbind)) => &mut unbind.arguments,
        AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) => &mut declare.arguments,
        AMQPClass::Queue(queue::AMQPMethod::Bind(bind)) => &mut bind.arguments,
        AMQPClass::Queue(queue::AMQPMethod::Unbind(unbind)) => &mut unbind.arguments,
        AMQPClass::Basic(basic::AMQPMethod::Consume(consume)) => &mut consume.arguments,
        _ => return None,
    })
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

/// The short string at the front, and the rest.
fn short_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
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
    use crate::wire::table::DEPTH_MAX;

    fn read(payload: &[u8]) -> Result<Method<'_>, MethodError> {
        read_method(payload, Role::Client, DEPTH_MAX)
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
        let start = AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: arguments.clone(),
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        }));
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
        let of_client = classes.into_iter().map(|class| (Role::Client, class));
        for (sender, class) in of_client.chain([(Role::Server, start)]) {
            let mut payload = bytes_of(&class);
            let sent = read_method(&payload, sender, DEPTH_MAX);
            assert!(matches!(sent, Ok(Method::Other(read)) if *read == class), "{class:?}");
            let at = payload.windows(4).position(|bytes| bytes == b"\x01xS\0").unwrap();
            payload[at + 2] = b'?';
            let sent = read_method(&payload, sender, DEPTH_MAX);
            assert!(matches!(sent, Err(MethodError::Malformed { .. })), "{class:?}");
        }
    }

    /// A method with a table of `depth` tables in one another.
    fn with_nested_table(before: &[u8], depth: usize, after: &[u8]) -> Vec<u8> {
        let mut table = vec![0; 4];
        for _ in 0..depth {
            table = [&((table.len() + 3) as u32).to_be_bytes()[..], b"\x01kF", &table].concat();
        }
        [before, &table, after].concat()
    }

    #[test]
    fn every_deep_table_is_refused_and_no_stack_is_exhausted() {
        let cases: [(Role, &[u8], &[u8]); 9] = [
            (Role::Server, b"\0\x0a\0\x0a\0\x09", b"\0\0\0\0\0\0\0\0"),
            (Role::Client, b"\0\x0a\0\x0b", b"\0\0\0\0\0\0"),
            (Role::Client, b"\0\x28\0\x0a\0\0\0\0\0", b""),
            (Role::Client, b"\0\x28\0\x1e\0\0\0\0\0\0", b""),
            (Role::Client, b"\0\x28\0\x28\0\0\0\0\0\0", b""),
            (Role::Client, b"\0\x32\0\x0a\0\0\0\0", b""),
            (Role::Client, b"\0\x32\0\x14\0\0\0\0\0\0", b""),
            (Role::Client, b"\0\x32\0\x32\0\0\0\0\0", b""),
            (Role::Client, b"\0\x3c\0\x14\0\0\0\0\0", b""),
        ];
        for (sender, before, after) in cases {
            let read =
                |depth, depth_max| read_method(&with_nested_table(before, depth, after), sender, depth_max).map(|_| ());
            assert_eq!(read(DEPTH_MAX, DEPTH_MAX), Ok(()), "{before:?}");
            assert_eq!(read(3, 3), Ok(()), "{before:?}");
            for (depth, depth_max) in [(4, 3), (DEPTH_MAX + 1, DEPTH_MAX), (18_000, DEPTH_MAX), (18_000, usize::MAX)] {
                let refused = matches!(read(depth, depth_max), Err(MethodError::Malformed { .. }));
                assert!(refused, "{before:?}: {depth}");
            }
        }
    }

    #[test]
    fn methods_of_the_other_peer_are_refused_unread() {
        let start = with_nested_table(b"\0\x0a\0\x0a\0\x09", 18_000, b"\0\0\0\0\0\0\0\0");
        assert_eq!(read(&start).unwrap_err(), MethodError::Foreign { class_id: 10, method_id: 10 });
        assert_eq!(read(&[0, 60, 0, 60]).unwrap_err(), MethodError::Foreign { class_id: 60, method_id: 60 });
        for ids in [(60, 40), (50, 10), (10, 11)] {
            let payload = [0, ids.0 as u8, 0, ids.1 as u8];
            let refused = MethodError::Foreign { class_id: ids.0, method_id: ids.1 };
            assert_eq!(read_method(&payload, Role::Server, DEPTH_MAX).unwrap_err(), refused);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_told_from_malformed_arguments() {
        let error = MethodError::NotUtf8 { class_id: 50, method_id: 10 };
        assert_eq!(read(b"\0\x32\0\x0a\0\0\x01\xe9\0\0\0\0\0").unwrap_err(), error);
        let keys = read(b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x03\x01\xe9V").unwrap();
        let Method::Other(class) = keys else { panic!("{keys:?}") };
        let AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) = *class else { panic!("{class:?}") };
        assert_eq!(declare.arguments.inner().values().collect::<Vec<_>>(), [&AMQPValue::Void]);
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

//! Methods: the two of the hot path by hand, all others through `amq-protocol`.

use amq_protocol::protocol::{AMQPClass, parse_class};
use bytes::Bytes;

/// A method as received.
#[derive(Debug)]
pub(crate) enum Method {
    Publish(Publish),
    Ack(Ack),
    Other(Box<AMQPClass>),
}

/// `basic.publish`, its names still slices of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) exchange: Bytes,
    pub(crate) routing_key: Bytes,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

/// `basic.ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) delivery_tag: u64,
    pub(crate) multiple: bool,
}

/// Why a payload is no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodError {
    /// Shorter than the ids.
    Truncated,
    /// No class or method has these ids.
    Unknown { class_id: u16, method_id: u16 },
    /// The ids are known, the arguments are not what they say.
    Malformed { class_id: u16, method_id: u16 },
}

/// The ids every method starts with.
pub(crate) fn method_ids(payload: &[u8]) -> Option<(u16, u16)> {
    let ids: [u8; 4] = payload.get(..4)?.try_into().ok()?;
    Some((u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]])))
}

/// Reads a method frame's payload.
pub(crate) fn read_method(payload: &Bytes) -> Result<Method, MethodError> {
    let (class_id, method_id) = method_ids(payload).ok_or(MethodError::Truncated)?;
    let malformed = MethodError::Malformed { class_id, method_id };
    match (class_id, method_id) {
        (BASIC, PUBLISH) => read_publish(payload).map(Method::Publish).ok_or(malformed),
        (BASIC, ACK) => read_ack(payload).map(Method::Ack).ok_or(malformed),
        _ if !is_known(class_id, method_id) => Err(MethodError::Unknown { class_id, method_id }),
        _ => match parse_class(&payload[..]) {
            Ok(([], class)) => Ok(Method::Other(Box::new(class))),
            _ => Err(malformed),
        },
    }
}

fn read_publish(payload: &Bytes) -> Option<Publish> {
    // Ids (4), a reserved short (2), then the names.
    let (exchange, at) = short_string(payload, 6)?;
    let (routing_key, at) = short_string(payload, at)?;
    let &[bits] = payload.get(at..)? else { return None };
    Some(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

fn read_ack(payload: &Bytes) -> Option<Ack> {
    let (tag, bits) = payload.get(4..)?.split_first_chunk()?;
    let &[bits] = bits else { return None };
    Some(Ack { delivery_tag: u64::from_be_bytes(*tag), multiple: bits & 1 != 0 })
}

/// A short string at `at`, which must be UTF-8, and where it ends.
fn short_string(payload: &Bytes, at: usize) -> Option<(Bytes, usize)> {
    let end = at + 1 + usize::from(*payload.get(at)?);
    std::str::from_utf8(payload.get(at + 1..end)?).ok()?;
    Some((payload.slice(at + 1..end), end))
}

/// Every method a client or a server may name (AMQP 0-9-1 and RabbitMQ's extensions).
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
const ACK: u16 = 80;

#[cfg(test)]
mod tests {
    use amq_protocol::{
        frame::WriteContext,
        protocol::{basic, gen_class},
    };

    use super::*;

    fn bytes_of(class: &AMQPClass) -> Bytes {
        let context = WriteContext::from(Vec::new());
        gen_class(class)(context).unwrap().write.into()
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
        match read_method(&payload).unwrap() {
            Method::Publish(publish) => {
                assert_eq!((&publish.exchange[..], &publish.routing_key[..]), (&b"amq.topic"[..], &b"a.b"[..]));
                assert_eq!((publish.mandatory, publish.immediate), (true, false));
            }
            other => panic!("{other:?}"),
        }
        for end in 0..payload.len() {
            assert!(read_method(&payload.slice(..end)).is_err(), "{end}");
        }
        let ack = basic::Ack { delivery_tag: u64::MAX - 1, multiple: true };
        let payload = bytes_of(&AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
        assert!(matches!(
            read_method(&payload).unwrap(),
            Method::Ack(Ack { delivery_tag, multiple: true }) if delivery_tag == u64::MAX - 1
        ));
    }

    #[test]
    fn unknown_and_malformed_methods_are_told_apart() {
        let unknown = Bytes::from_static(&[0, 99, 0, 1]);
        assert_eq!(read_method(&unknown).unwrap_err(), MethodError::Unknown { class_id: 99, method_id: 1 });
        let malformed = Bytes::from_static(&[0, 50, 0, 10, 0]);
        assert_eq!(read_method(&malformed).unwrap_err(), MethodError::Malformed { class_id: 50, method_id: 10 });
        assert_eq!(read_method(&Bytes::from_static(&[0, 50])).unwrap_err(), MethodError::Truncated);
    }
}

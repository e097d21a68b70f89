use amq_protocol::protocol::basic::{self, AMQPMethod};

use super::*;
use crate::wire::{Batch, Decoder, Method, Role, read_method, table::DEPTH_MAX};

const DELIVERY: Delivery<'_> = Delivery { delivery_tag: 7, redelivered: true, exchange: b"ex", routing_key: b"key" };

fn bytes_of(out: &mut OutBuffer) -> BytesMut {
    let mut segments = VecDeque::new();
    out.take_into(&mut segments);
    segments.into_iter().flatten().collect()
}

fn frames(out: &mut OutBuffer, frame_max: u32) -> Batch {
    let mut buffer = bytes_of(out);
    let (batch, error) = Decoder::new(frame_max).cut(&mut buffer, usize::MAX);
    assert!(buffer.is_empty() && error.is_none());
    batch
}

fn method_of(payload: &[u8]) -> AMQPMethod {
    match read_method(payload, Role::Server, DEPTH_MAX) {
        Ok(Method::Other(class)) => match *class {
            AMQPClass::Basic(method) => method,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_is_cut_anew_to_frame_max_and_counted() {
    for parts in [&[0][..], &[1], &[4_088], &[4_089], &[10_000], &[1, 2, 3], &[4_088, 1_000, 4_088, 824], &[5_000, 1]] {
        let mut out = OutBuffer::default();
        let parts: Vec<_> = parts.iter().map(|&length| Bytes::from(vec![7; length])).collect();
        let body_size: usize = parts.iter().map(Bytes::len).sum();
        out.deliver(3, b"tag", &DELIVERY, &Content { properties: &[0, 0], small: &[], parts: &parts }, 4_096);
        let bytes = out.bytes();
        let batch = frames(&mut out, 4_096);
        let lengths: Vec<_> = batch.frames().map(|frame| frame.payload.len()).collect();
        assert_eq!(lengths.iter().map(|length| length + FRAME_OVERHEAD).sum::<usize>(), bytes);
        assert_eq!(lengths[2..].iter().sum::<usize>(), body_size);
        let full = lengths.len().saturating_sub(3);
        assert!(lengths[2..].iter().take(full).all(|&length| length == 4_088), "{lengths:?}");
    }
}

#[test]
fn a_small_body_is_cut_to_a_small_frame_max_too() {
    let mut out = OutBuffer::default();
    out.deliver(1, b"t", &DELIVERY, &Content { properties: &[0, 0], small: &[7; 30], parts: &[] }, 20);
    let batch = frames(&mut out, 4_096);
    let lengths: Vec<_> = batch.frames().skip(2).map(|frame| frame.payload.len()).collect();
    assert_eq!(lengths, [12, 12, 6]);
}

#[test]
fn hand_written_methods_are_read_back() {
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: b"body", parts: &[] };
    out.deliver(9, b"tag", &DELIVERY, &content, 4_096);
    out.get_ok(9, 3, &DELIVERY, &content, 4_096);
    out.returned(9, ReplyCode::NoRoute, (b"ex", b"key"), &content, 4_096);
    out.nack(9, 6, true);
    out.ack(9, 5, true);
    let batch = frames(&mut out, 4_096);
    let contents: Vec<_> = batch.frames().filter(|frame| frame.kind != FrameKind::Method).collect();
    let expected = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0][..], b"body"].repeat(3);
    assert_eq!(contents.iter().map(|frame| frame.payload).collect::<Vec<_>>(), expected);
    let mut payloads = batch.frames().filter(|frame| frame.kind == FrameKind::Method).map(|frame| frame.payload);
    let deliver = basic::Deliver {
        consumer_tag: "tag".into(),
        delivery_tag: 7,
        redelivered: true,
        exchange: "ex".into(),
        routing_key: "key".into(),
    };
    assert_eq!(method_of(payloads.next().unwrap()), AMQPMethod::Deliver(deliver));
    let get_ok = basic::GetOk {
        delivery_tag: 7,
        redelivered: true,
        exchange: "ex".into(),
        routing_key: "key".into(),
        message_count: 3,
    };
    assert_eq!(method_of(payloads.next().unwrap()), AMQPMethod::GetOk(get_ok));
    let returned = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "ex".into(),
        routing_key: "key".into(),
    };
    assert_eq!(method_of(payloads.next().unwrap()), AMQPMethod::Return(returned));
    let nack = basic::Nack { delivery_tag: 6, multiple: true, requeue: true };
    assert_eq!(method_of(payloads.next().unwrap()), AMQPMethod::Nack(nack));
    let Ok(Method::Ack(ack)) = read_method(payloads.next().unwrap(), Role::Server, DEPTH_MAX) else { panic!() };
    assert_eq!((ack.delivery_tag, ack.multiple), (5, true));
    let publish = Publish { exchange: b"ex", routing_key: b"key", mandatory: true, immediate: false };
    out.publish(9, publish, &content, 4_096);
    out.nack(9, 6, false);
    let batch = frames(&mut out, 4_096);
    let mut payloads = batch.frames().map(|frame| frame.payload);
    assert_eq!(Publish::read(payloads.next().unwrap()), Some(publish));
    assert_eq!(payloads.by_ref().take(2).collect::<Vec<_>>(), expected[..2]);
    let nack = basic::Nack { delivery_tag: 6, multiple: false, requeue: true };
    assert_eq!(method_of(payloads.next().unwrap()), AMQPMethod::Nack(nack));
}

#[test]
fn a_burst_is_many_segments_and_none_of_them_is_long() {
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: &[7; 1_000], parts: &[] };
    for _ in 0..10_000 {
        out.deliver(1, b"tag", &DELIVERY, &content, 131_072);
    }
    let bytes = out.bytes();
    let mut segments = VecDeque::new();
    out.take_into(&mut segments);
    assert_eq!(segments.iter().map(Bytes::len).sum::<usize>(), bytes);
    assert!(segments.iter().all(|segment| segment.len() < 2 * SEGMENT_BYTES));
    drop(segments);
    out.raw(&[0; SEGMENT_BYTES]);
    assert!(out.tail.capacity() < 4 * SEGMENT_BYTES, "{}", out.tail.capacity());
}

#[test]
fn a_segment_that_was_written_lends_its_memory_to_the_next_one_which_is_not_moved_as_it_grows() {
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: &[7; 1_000], parts: &[] };
    let mut train = || {
        out.deliver(1, b"tag", &DELIVERY, &content, 131_072);
        let begin = out.tail.as_ptr().addr();
        for _ in 0..12 {
            out.deliver(1, b"tag", &DELIVERY, &content, 131_072);
        }
        let mut segments = VecDeque::new();
        out.take_into(&mut segments);
        assert_eq!(segments.len(), 1);
        (begin, segments[0].as_ptr().addr())
    };
    // The first ones find out how long a train is.
    let trains = [(); 10].map(|()| train());
    assert!(trains[4..].iter().all(|(begin, at)| begin == at && *at == trains[3].1), "{trains:?}");
}

#[test]
fn appending_keeps_order_and_count() {
    let mut first = OutBuffer::default();
    first.raw(b"a");
    let mut second = OutBuffer::default();
    let parts = [Bytes::from(vec![1; 20_000])];
    second.deliver(1, b"", &DELIVERY, &Content { properties: &[0, 0], small: &[], parts: &parts }, 131_072);
    let bytes = second.bytes();
    first.append(&mut second);
    first.raw(b"z");
    assert_eq!(first.bytes(), bytes + 2);
    let whole = bytes_of(&mut first);
    assert_eq!((whole[0], whole[whole.len() - 1], whole.len()), (b'a', b'z', bytes + 2));
    assert!(first.is_empty() && second.is_empty());
}

//! Encodes frames into one growing buffer. Large bodies are not copied: they are written from where they were received.

use std::collections::VecDeque;

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, gen_class},
};
use bytes::{Bytes, BytesMut};

use super::{
    frame::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD, FrameKind},
    method::Publish,
    reply_code::ReplyCode,
};

/// The envelope of a delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
}

/// The content of a message. Its body is `small`, which is copied, followed by the parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) properties: &'a [u8],
    pub(crate) small: &'a [u8],
    pub(crate) parts: &'a [Bytes],
}

/// Encoded frames that wait to be written to one connection.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    /// The length of the segment that was cut last: the next one is likely to be as long.
    usual_bytes: usize,
    bytes: usize,
}

impl OutBuffer {
    /// The number of waiting bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Moves all bytes of `other` to the end of this buffer.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        if other.is_empty() {
            return;
        }
        if other.segments.is_empty() && other.tail.len() <= COPY_MAX_BYTES {
            self.tail.extend_from_slice(&other.tail);
            other.tail.clear();
        } else {
            self.cut();
            self.segments.append(&mut other.segments);
            self.tail = other.tail.split();
        }
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Moves all bytes, in order, to the end of `segments`.
    pub(crate) fn take_into(&mut self, segments: &mut VecDeque<Bytes>) {
        self.cut();
        self.bytes = 0;
        segments.append(&mut self.segments);
    }

    /// Appends bytes unchanged.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.cut_long();
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    pub(crate) fn heartbeat(&mut self) {
        self.raw(&[FrameKind::Heartbeat.octet(), 0, 0, 0, 0, 0, 0, FRAME_END]);
    }

    /// Appends a method frame.
    pub(crate) fn method(&mut self, channel: u16, class: &AMQPClass) {
        // Writing to a Vec does not fail.
        if let Ok(context) = gen_class(class)(WriteContext::from(Vec::with_capacity(64))) {
            let mut room = self.room(context.write.len() + FRAME_OVERHEAD);
            room.array(frame_header(FrameKind::Method, channel, context.write.len()));
            room.slice(&context.write);
            room.array([FRAME_END]);
        }
    }

    /// Appends `basic.deliver` and its content, in frames of the receiver's `frame_max`.
    pub(crate) fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &[u8],
        delivery: &Delivery<'_>,
        content: &Content<'_>,
        frame_max: u32,
    ) {
        let &Delivery { delivery_tag, redelivered, exchange, routing_key } = delivery;
        let payload = 4 + 1 + consumer_tag.len() + 8 + 1 + 1 + exchange.len() + 1 + routing_key.len();
        let fill = |room: &mut Room<'_>| {
            room.array(u32::to_be_bytes(BASIC << 16 | DELIVER));
            room.short_string(consumer_tag);
            room.array(delivery_tag.to_be_bytes());
            room.array([redelivered.into()]);
            room.short_string(exchange);
            room.short_string(routing_key);
        };
        self.with_content(channel, payload, fill, content, frame_max);
    }

    /// Appends `basic.publish` and its content.
    pub(crate) fn publish(&mut self, channel: u16, publish: Publish<'_>, content: &Content<'_>, frame_max: u32) {
        let Publish { exchange, routing_key, mandatory, immediate } = publish;
        let payload = 4 + 2 + 1 + exchange.len() + 1 + routing_key.len() + 1;
        let fill = |room: &mut Room<'_>| {
            room.array(u32::to_be_bytes(BASIC << 16 | PUBLISH));
            // The access ticket of older versions.
            room.array([0; 2]);
            room.short_string(exchange);
            room.short_string(routing_key);
            room.array([u8::from(mandatory) | u8::from(immediate) << 1]);
        };
        self.with_content(channel, payload, fill, content, frame_max);
    }

    /// Appends `basic.get-ok` and its content.
    pub(crate) fn get_ok(
        &mut self,
        channel: u16,
        message_count: u32,
        delivery: &Delivery<'_>,
        content: &Content<'_>,
        frame_max: u32,
    ) {
        let &Delivery { delivery_tag, redelivered, exchange, routing_key } = delivery;
        let payload = 4 + 8 + 1 + 1 + exchange.len() + 1 + routing_key.len() + 4;
        let fill = |room: &mut Room<'_>| {
            room.array(u32::to_be_bytes(BASIC << 16 | GET_OK));
            room.array(delivery_tag.to_be_bytes());
            room.array([redelivered.into()]);
            room.short_string(exchange);
            room.short_string(routing_key);
            room.array(message_count.to_be_bytes());
        };
        self.with_content(channel, payload, fill, content, frame_max);
    }

    /// Appends `basic.return` and its content.
    pub(crate) fn returned(
        &mut self,
        channel: u16,
        reply_code: ReplyCode,
        (exchange, routing_key): (&[u8], &[u8]),
        content: &Content<'_>,
        frame_max: u32,
    ) {
        let reply_text = reply_code.name().as_bytes();
        let payload = 4 + 2 + 1 + reply_text.len() + 1 + exchange.len() + 1 + routing_key.len();
        let fill = |room: &mut Room<'_>| {
            room.array(u32::to_be_bytes(BASIC << 16 | RETURN));
            room.array(reply_code.number().to_be_bytes());
            room.short_string(reply_text);
            room.short_string(exchange);
            room.short_string(routing_key);
        };
        self.with_content(channel, payload, fill, content, frame_max);
    }

    /// Appends `basic.ack`, which confirms a publish or acknowledges a delivery.
    pub(crate) fn ack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settle(channel, ACK, delivery_tag, multiple.into());
    }

    /// Appends `basic.nack` with the `requeue` bit, which requeues a delivery. For a refused publish the bit has no meaning.
    pub(crate) fn nack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settle(channel, NACK, delivery_tag, u8::from(multiple) | 0b10);
    }

    fn settle(&mut self, channel: u16, method_id: u32, delivery_tag: u64, bits: u8) {
        let mut room = self.room(13 + FRAME_OVERHEAD);
        room.array(frame_header(FrameKind::Method, channel, 13));
        room.array(u32::to_be_bytes(BASIC << 16 | method_id));
        room.array(delivery_tag.to_be_bytes());
        room.array([bits, FRAME_END]);
    }

    /// Appends a method whose arguments `fill` writes, the content header, and the body in frames of the receiver's
    /// `frame_max`.
    #[inline]
    fn with_content(
        &mut self,
        channel: u16,
        method_bytes: usize,
        fill: impl FnOnce(&mut Room<'_>),
        content: &Content<'_>,
        frame_max: u32,
    ) {
        let &Content { properties, small, parts } = content;
        let limit = (frame_max as usize).saturating_sub(FRAME_OVERHEAD).max(1);
        let parts_bytes = parts.iter().map(Bytes::len).sum::<usize>();
        let header_bytes = 12 + properties.len();
        // The common case, a body of one small frame, needs a single reservation.
        let is_one_frame = !small.is_empty() && small.len() <= limit;
        let body_bytes = if is_one_frame { small.len() + FRAME_OVERHEAD } else { 0 };
        let mut room = self.room(method_bytes + header_bytes + 2 * FRAME_OVERHEAD + body_bytes);
        room.array(frame_header(FrameKind::Method, channel, method_bytes));
        fill(&mut room);
        room.array([FRAME_END]);
        room.array(frame_header(FrameKind::Header, channel, header_bytes));
        // The class basic (60), and the weight, which is always 0.
        room.array(u32::to_be_bytes(BASIC << 16));
        room.array(u64::to_be_bytes((small.len() + parts_bytes) as u64));
        room.slice(properties);
        room.array([FRAME_END]);
        if is_one_frame {
            room.body(channel, small);
        } else {
            for chunk in small.chunks(limit) {
                self.room(chunk.len() + FRAME_OVERHEAD).body(channel, chunk);
            }
        }
        if !parts.is_empty() {
            self.parts(channel, parts, parts_bytes, limit);
        }
    }

    fn parts(&mut self, channel: u16, parts: &[Bytes], mut body_left: usize, limit: usize) {
        let mut frame_left = 0;
        for part in parts {
            let mut at = 0;
            while at < part.len() {
                if frame_left == 0 {
                    frame_left = body_left.min(limit);
                    body_left -= frame_left;
                    self.raw(&frame_header(FrameKind::Body, channel, frame_left));
                }
                let end = part.len().min(at + frame_left);
                self.share(part, at, end);
                frame_left -= end - at;
                at = end;
                if frame_left == 0 {
                    self.raw(&[FRAME_END]);
                }
            }
        }
    }

    /// Copies a small part, and shares a large one.
    fn share(&mut self, part: &Bytes, start: usize, end: usize) {
        if end - start <= COPY_MAX_BYTES {
            self.raw(&part[start..end]);
        } else {
            self.cut();
            self.bytes += end - start;
            self.segments.push_back(part.slice(start..end));
        }
    }

    /// Reserves `bytes` bytes, which the caller must fill completely.
    #[inline]
    fn room(&mut self, bytes: usize) -> Room<'_> {
        self.cut_long();
        let at = self.tail.len();
        if at == 0 {
            // While it is empty, the memory of segments that were written is taken again without copying anything.
            self.tail.reserve(self.usual_bytes);
        }
        self.tail.resize(at + bytes, 0);
        self.bytes += bytes;
        Room(&mut self.tail[at..])
    }

    /// Ends a segment early. One that grew with a burst would be copied as it grows, and hold its memory afterwards.
    #[inline]
    fn cut_long(&mut self) {
        if self.tail.len() >= SEGMENT_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.usual_bytes = self.tail.len();
            self.segments.push_back(self.tail.split().freeze());
        }
    }
}

/// A reserved run of bytes, written field by field. One reservation instead of one a field halves the cost of a delivery.
struct Room<'a>(&'a mut [u8]);

impl Room<'_> {
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.slice(&bytes);
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        let (room, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        room.copy_from_slice(bytes);
        self.0 = rest;
    }

    /// Names were received as short strings, so they fit.
    #[inline]
    fn short_string(&mut self, bytes: &[u8]) {
        self.array([bytes.len() as u8]);
        self.slice(bytes);
    }

    #[inline]
    fn body(&mut self, channel: u16, bytes: &[u8]) {
        self.array(frame_header(FrameKind::Body, channel, bytes.len()));
        self.slice(bytes);
        self.array([FRAME_END]);
    }
}

/// The seven octets before a payload.
#[inline]
fn frame_header(kind: FrameKind, channel: u16, payload_bytes: usize) -> [u8; FRAME_HEADER_BYTES] {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = (payload_bytes as u32).to_be_bytes();
    [kind.octet(), c0, c1, s0, s1, s2, s3]
}

/// Larger bodies are shared with the buffer that they were received in; smaller ones are copied.
pub(crate) const COPY_MAX_BYTES: usize = 4_096;

/// A segment of small frames ends with the frame that makes it this long.
const SEGMENT_BYTES: usize = 128 * 1_024;

const BASIC: u32 = 60;
const PUBLISH: u32 = 40;
const RETURN: u32 = 50;
const DELIVER: u32 = 60;
const GET_OK: u32 = 71;
const ACK: u32 = 80;
const NACK: u32 = 120;

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::basic::{self, AMQPMethod};

    use super::*;
    use crate::wire::{Batch, Decoder, Method, Role, read_method, table::DEPTH_MAX};

    const DELIVERY: Delivery<'_> =
        Delivery { delivery_tag: 7, redelivered: true, exchange: b"ex", routing_key: b"key" };

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
        for parts in
            [&[0][..], &[1], &[4_088], &[4_089], &[10_000], &[1, 2, 3], &[4_088, 1_000, 4_088, 824], &[5_000, 1]]
        {
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
}

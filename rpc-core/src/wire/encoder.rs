//! Frames out: one growing buffer, large bodies beside it as they came.

use std::collections::VecDeque;

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, gen_class},
};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    frame::{FRAME_END, FRAME_OVERHEAD, FrameKind},
    reply_code::ReplyCode,
};

/// What a delivery says of its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
}

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl OutBuffer {
    /// How much waits.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes over what waits in `other`, behind what waits here.
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

    /// Moves everything that waits, in order, behind what is in `segments`.
    pub(crate) fn take_into(&mut self, segments: &mut VecDeque<Bytes>) {
        self.cut();
        self.bytes = 0;
        segments.append(&mut self.segments);
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    pub(crate) fn heartbeat(&mut self) {
        self.raw(&[FrameKind::Heartbeat.octet(), 0, 0, 0, 0, 0, 0, FRAME_END]);
    }

    /// A method frame.
    pub(crate) fn method(&mut self, channel: u16, class: &AMQPClass) {
        // Writing to a Vec does not fail.
        if let Ok(context) = gen_class(class)(WriteContext::from(Vec::with_capacity(64))) {
            self.start(FrameKind::Method, channel, context.write.len());
            self.tail.extend_from_slice(&context.write);
            self.tail.put_u8(FRAME_END);
        }
    }

    /// `basic.deliver`.
    pub(crate) fn deliver(&mut self, channel: u16, consumer_tag: &[u8], delivery: &Delivery<'_>) {
        let &Delivery { delivery_tag, redelivered, exchange, routing_key } = delivery;
        let payload = 4 + 1 + consumer_tag.len() + 8 + 1 + 1 + exchange.len() + 1 + routing_key.len();
        self.start(FrameKind::Method, channel, payload);
        self.tail.put_u32(BASIC << 16 | DELIVER);
        self.short_string(consumer_tag);
        self.tail.put_u64(delivery_tag);
        self.tail.put_u8(redelivered.into());
        self.short_string(exchange);
        self.short_string(routing_key);
        self.tail.put_u8(FRAME_END);
    }

    /// `basic.get-ok`.
    pub(crate) fn get_ok(&mut self, channel: u16, message_count: u32, delivery: &Delivery<'_>) {
        let &Delivery { delivery_tag, redelivered, exchange, routing_key } = delivery;
        let payload = 4 + 8 + 1 + 1 + exchange.len() + 1 + routing_key.len() + 4;
        self.start(FrameKind::Method, channel, payload);
        self.tail.put_u32(BASIC << 16 | GET_OK);
        self.tail.put_u64(delivery_tag);
        self.tail.put_u8(redelivered.into());
        self.short_string(exchange);
        self.short_string(routing_key);
        self.tail.put_u32(message_count);
        self.tail.put_u8(FRAME_END);
    }

    /// `basic.return`.
    pub(crate) fn returned(&mut self, channel: u16, reply_code: ReplyCode, exchange: &[u8], routing_key: &[u8]) {
        let reply_text = reply_code.name().as_bytes();
        let payload = 4 + 2 + 1 + reply_text.len() + 1 + exchange.len() + 1 + routing_key.len();
        self.start(FrameKind::Method, channel, payload);
        self.tail.put_u32(BASIC << 16 | RETURN);
        self.tail.put_u16(reply_code.number());
        self.short_string(reply_text);
        self.short_string(exchange);
        self.short_string(routing_key);
        self.tail.put_u8(FRAME_END);
    }

    /// `basic.ack` to a publisher.
    pub(crate) fn confirm(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settle(channel, ACK, delivery_tag, multiple.into());
    }

    /// `basic.nack` to a publisher. Its `requeue` bit, set by default, means nothing there.
    pub(crate) fn refuse(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settle(channel, NACK, delivery_tag, u8::from(multiple) | 0b10);
    }

    fn settle(&mut self, channel: u16, method_id: u32, delivery_tag: u64, bits: u8) {
        self.start(FrameKind::Method, channel, 13);
        self.tail.put_u32(BASIC << 16 | method_id);
        self.tail.put_u64(delivery_tag);
        self.tail.put_u8(bits);
        self.tail.put_u8(FRAME_END);
    }

    /// A content header and its body, cut anew to the receiver's `frame_max`. The body is what is `small` and is copied,
    /// and then the parts.
    pub(crate) fn content(&mut self, channel: u16, properties: &[u8], small: &[u8], parts: &[Bytes], frame_max: u32) {
        let limit = (frame_max as usize).saturating_sub(FRAME_OVERHEAD).max(1);
        let body_size = small.len() + parts.iter().map(Bytes::len).sum::<usize>();
        self.start(FrameKind::Header, channel, 12 + properties.len());
        self.tail.put_u16(BASIC as u16);
        self.tail.put_u16(0);
        self.tail.put_u64(body_size as u64);
        self.tail.extend_from_slice(properties);
        self.tail.put_u8(FRAME_END);
        for chunk in small.chunks(limit) {
            self.start(FrameKind::Body, channel, chunk.len());
            self.tail.extend_from_slice(chunk);
            self.tail.put_u8(FRAME_END);
        }
        let mut body_left = body_size - small.len();
        let mut frame_left = 0;
        for part in parts {
            let mut at = 0;
            while at < part.len() {
                if frame_left == 0 {
                    frame_left = body_left.min(limit);
                    body_left -= frame_left;
                    self.start(FrameKind::Body, channel, frame_left);
                }
                let end = part.len().min(at + frame_left);
                self.share(part, at, end);
                frame_left -= end - at;
                at = end;
                if frame_left == 0 {
                    self.tail.put_u8(FRAME_END);
                }
            }
        }
    }

    /// Copies what is small; what is large goes out from where it was received.
    fn share(&mut self, part: &Bytes, start: usize, end: usize) {
        if end - start <= COPY_MAX_BYTES {
            self.tail.extend_from_slice(&part[start..end]);
        } else {
            self.cut();
            self.segments.push_back(part.slice(start..end));
        }
    }

    /// The seven bytes before a payload, and the count of the whole frame.
    fn start(&mut self, kind: FrameKind, channel: u16, payload_bytes: usize) {
        self.tail.reserve(payload_bytes.min(COPY_MAX_BYTES) + FRAME_OVERHEAD);
        self.tail.put_u8(kind.octet());
        self.tail.put_u16(channel);
        self.tail.put_u32(payload_bytes as u32);
        self.bytes += payload_bytes + FRAME_OVERHEAD;
    }

    /// Names come from short strings: they fit.
    fn short_string(&mut self, bytes: &[u8]) {
        self.tail.put_u8(bytes.len() as u8);
        self.tail.extend_from_slice(bytes);
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
    }
}

/// Larger bodies are kept and written where they were received, smaller ones are copied.
pub(crate) const COPY_MAX_BYTES: usize = 4_096;

const BASIC: u32 = 60;
const RETURN: u32 = 50;
const DELIVER: u32 = 60;
const GET_OK: u32 = 71;
const ACK: u32 = 80;
const NACK: u32 = 120;

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::basic::{self, AMQPMethod};

    use super::*;
    use crate::wire::{Batch, Decoder, Method, read_method};

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
        match read_method(payload) {
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
            out.content(3, &[0, 0], &[], &parts, 4_096);
            let bytes = out.bytes();
            let batch = frames(&mut out, 4_096);
            let lengths: Vec<_> = batch.frames().map(|frame| frame.payload.len()).collect();
            assert_eq!(lengths.iter().map(|length| length + FRAME_OVERHEAD).sum::<usize>(), bytes);
            assert_eq!(lengths[1..].iter().sum::<usize>(), body_size);
            let full = lengths.len().saturating_sub(2);
            assert!(lengths[1..].iter().take(full).all(|&length| length == 4_088), "{lengths:?}");
        }
    }

    #[test]
    fn hand_written_methods_are_read_back() {
        let mut out = OutBuffer::default();
        let delivery = Delivery { delivery_tag: 7, redelivered: true, exchange: b"ex", routing_key: b"key" };
        out.deliver(9, b"tag", &delivery);
        out.get_ok(9, 3, &delivery);
        out.returned(9, ReplyCode::NoRoute, b"ex", b"key");
        out.refuse(9, 6, true);
        out.confirm(9, 5, true);
        let batch = frames(&mut out, 4_096);
        let mut payloads = batch.frames().map(|frame| frame.payload);
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
        let Ok(Method::Ack(ack)) = read_method(payloads.next().unwrap()) else { panic!() };
        assert_eq!((ack.delivery_tag, ack.multiple), (5, true));
    }

    #[test]
    fn appending_keeps_order_and_count() {
        let mut first = OutBuffer::default();
        first.raw(b"a");
        let mut second = OutBuffer::default();
        second.content(1, &[0, 0], &[], &[Bytes::from(vec![1; 20_000])], 131_072);
        let bytes = second.bytes();
        first.append(&mut second);
        first.raw(b"z");
        assert_eq!(first.bytes(), bytes + 2);
        let whole = bytes_of(&mut first);
        assert_eq!((whole[0], whole[whole.len() - 1], whole.len()), (b'a', b'z', bytes + 2));
        assert!(first.is_empty() && second.is_empty());
    }
}

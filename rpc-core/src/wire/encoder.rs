//! Frames out: one growing buffer, large bodies beside it as they came.

use std::collections::VecDeque;

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, gen_class},
};
use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{FRAME_END, FRAME_OVERHEAD, FrameKind};

/// A part of the output.
pub(crate) type Segment = Bytes;

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    segments: VecDeque<Segment>,
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

    /// Everything that waits, in order.
    pub(crate) fn take(&mut self) -> VecDeque<Segment> {
        self.cut();
        self.bytes = 0;
        std::mem::take(&mut self.segments)
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
        let mut payload = Vec::with_capacity(64);
        // Writing to a Vec does not fail.
        if let Ok(context) = gen_class(class)(WriteContext::from(std::mem::take(&mut payload))) {
            self.frame(FrameKind::Method, channel, &context.write);
        }
    }

    /// `basic.deliver`.
    pub(crate) fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &[u8],
        delivery_tag: u64,
        redelivered: bool,
        exchange: &[u8],
        routing_key: &[u8],
    ) {
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

    /// `basic.ack` to a publisher.
    pub(crate) fn confirm(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.start(FrameKind::Method, channel, 13);
        self.tail.put_u32(BASIC << 16 | ACK);
        self.tail.put_u64(delivery_tag);
        self.tail.put_u8(multiple.into());
        self.tail.put_u8(FRAME_END);
    }

    /// A content header and its body, cut to the peer's `frame_max`.
    pub(crate) fn content(&mut self, channel: u16, properties: &[u8], body: &[Bytes], frame_max: u32) {
        let body_size: usize = body.iter().map(Bytes::len).sum();
        self.start(FrameKind::Header, channel, 12 + properties.len());
        self.tail.put_u16(BASIC as u16);
        self.tail.put_u16(0);
        self.tail.put_u64(body_size as u64);
        self.tail.extend_from_slice(properties);
        self.tail.put_u8(FRAME_END);
        let limit = (frame_max as usize).saturating_sub(FRAME_OVERHEAD).max(1);
        for part in body {
            let mut rest = part.clone();
            while !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(limit));
                self.body(channel, chunk);
            }
        }
    }

    fn body(&mut self, channel: u16, chunk: Bytes) {
        self.start(FrameKind::Body, channel, chunk.len());
        if chunk.len() <= COPY_MAX_BYTES {
            self.tail.extend_from_slice(&chunk);
        } else {
            self.cut();
            self.segments.push_back(chunk);
        }
        self.tail.put_u8(FRAME_END);
    }

    fn frame(&mut self, kind: FrameKind, channel: u16, payload: &[u8]) {
        self.start(kind, channel, payload.len());
        self.tail.extend_from_slice(payload);
        self.tail.put_u8(FRAME_END);
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

/// Larger bodies are written from where they were received.
const COPY_MAX_BYTES: usize = 4_096;

const BASIC: u32 = 60;
const DELIVER: u32 = 60;
const ACK: u32 = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Decoder, Method, RawFrame, read_method};

    fn frames(out: &mut OutBuffer, frame_max: u32) -> Vec<RawFrame> {
        let mut buffer = BytesMut::new();
        for segment in out.take() {
            buffer.extend_from_slice(&segment);
        }
        let mut decoder = Decoder::new(frame_max);
        let frames = std::iter::from_fn(|| decoder.next(&mut buffer).unwrap()).collect();
        assert!(buffer.is_empty());
        frames
    }

    #[test]
    fn a_body_is_cut_to_frame_max_and_counted() {
        for body_size in [0, 1, 4_088, 4_089, 10_000] {
            let mut out = OutBuffer::default();
            out.content(3, &[0, 0], &[Bytes::from(vec![7; body_size])], 4_096);
            let bytes = out.bytes();
            let frames = frames(&mut out, 4_096);
            let whole: usize = frames.iter().map(|frame| frame.payload.len() + FRAME_OVERHEAD).sum();
            assert_eq!(whole, bytes);
            assert_eq!(frames.len(), 1 + body_size.div_ceil(4_088));
            assert_eq!(frames[1..].iter().map(|frame| frame.payload.len()).sum::<usize>(), body_size);
        }
    }

    #[test]
    fn hand_written_methods_are_read_back() {
        let mut out = OutBuffer::default();
        out.deliver(9, b"tag", 7, true, b"ex", b"key");
        out.confirm(9, 5, true);
        let frames = frames(&mut out, 4_096);
        let Ok(Method::Other(class)) = read_method(&frames[0].payload) else { panic!() };
        let AMQPClass::Basic(amq_protocol::protocol::basic::AMQPMethod::Deliver(deliver)) = *class else { panic!() };
        assert_eq!((deliver.consumer_tag.as_str(), deliver.delivery_tag, deliver.redelivered), ("tag", 7, true));
        assert_eq!((deliver.exchange.as_str(), deliver.routing_key.as_str()), ("ex", "key"));
        let Ok(Method::Ack(ack)) = read_method(&frames[1].payload) else { panic!() };
        assert_eq!((ack.delivery_tag, ack.multiple), (5, true));
    }

    #[test]
    fn appending_keeps_order_and_count() {
        let mut first = OutBuffer::default();
        first.raw(b"a");
        let mut second = OutBuffer::default();
        second.content(1, &[0, 0], &[Bytes::from(vec![1; 20_000])], 131_072);
        let bytes = second.bytes();
        first.append(&mut second);
        first.raw(b"z");
        assert_eq!(first.bytes(), bytes + 2);
        let whole: Vec<u8> = first.take().into_iter().flatten().collect();
        assert_eq!((whole[0], whole[whole.len() - 1], whole.len()), (b'a', b'z', bytes + 2));
        assert!(first.is_empty() && second.is_empty());
    }
}

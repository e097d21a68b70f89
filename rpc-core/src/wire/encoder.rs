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
mod tests;

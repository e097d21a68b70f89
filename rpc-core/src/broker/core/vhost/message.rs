//! A message, kept in the bytes it was published with.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use crate::broker::core::limits::memory::{Held, MESSAGE_OVERHEAD_BYTES, Memory};
use crate::wire::{COPY_MAX_BYTES, Content};

/// A published message, shared by all queues it is in.
///
/// Names, properties and a small body are copied into one piece of memory, which is inside the message if they are short:
/// one allocation a message, and the buffer it was read into is free again. The parts of a large body are not copied.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Gathered,
    /// Where each part ends in `bytes`. The names are short strings, and properties fit a frame.
    exchange_end: u16,
    routing_key_end: u16,
    properties_end: u32,
    parts: Box<[Bytes]>,
    /// Counted once, however many queues the message is in.
    held: Held,
    pub(crate) priority: u8,
    pub(crate) letter: Letter,
    /// How often deliveries of a dead letter failed before it became one.
    pub(crate) failed_before: u16,
    /// The message's own time to live.
    pub(crate) expiration_ms: Option<u64>,
}

/// Whether a message is a dead letter: then its `x-death` is the broker's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Letter {
    No,
    Yes,
    /// Its routing key is its queue's, which replaces those in CC.
    WithNewKey,
}

impl Message {
    #[inline]
    pub(crate) fn new(
        (exchange, routing_key): (&[u8], &[u8]),
        content: &Content<'_>,
        priority: u8,
        expiration_ms: Option<u64>,
        mut held: Held,
    ) -> Self {
        let &Content { properties, small, parts } = content;
        let exchange_end = exchange.len();
        let routing_key_end = exchange_end + routing_key.len();
        let properties_end = routing_key_end + properties.len();
        let length = properties_end + small.len();
        let bytes = Gathered::new([exchange, routing_key, properties, small], length);
        let parts_bytes: usize = parts.iter().map(Bytes::len).sum();
        debug_assert!(exchange.len() <= 255 && routing_key.len() <= 255, "names come from short strings");
        held.set(length + parts_bytes + MESSAGE_OVERHEAD_BYTES);
        Self {
            bytes,
            exchange_end: exchange_end as u16,
            routing_key_end: routing_key_end as u16,
            properties_end: properties_end as u32,
            parts: parts.into(),
            held,
            priority,
            letter: Letter::No,
            failed_before: 0,
            expiration_ms,
        }
    }

    /// The same message as a dead letter.
    pub(crate) fn marked(mut self, letter: Letter, failed_before: u16) -> Self {
        self.letter = letter;
        self.failed_before = failed_before;
        self
    }

    /// An empty account of memory for the message that replaces this one.
    pub(crate) fn another_held(&self) -> Held {
        self.held.another()
    }

    pub(crate) fn exchange(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.exchange_end.into()]
    }

    pub(crate) fn routing_key(&self) -> &[u8] {
        &self.bytes.as_slice()[self.exchange_end.into()..self.routing_key_end.into()]
    }

    /// Property flags and values, as published.
    pub(crate) fn properties(&self) -> &[u8] {
        &self.bytes.as_slice()[self.routing_key_end.into()..self.properties_end as usize]
    }

    /// The body: a copied part, and the parts of a large one. One of the two is empty.
    pub(crate) fn body(&self) -> (&[u8], &[Bytes]) {
        (&self.bytes.as_slice()[self.properties_end as usize..], &self.parts)
    }

    /// The content with these properties: the message's own, or those of a delivery that adds a header.
    pub(crate) fn content<'a>(&'a self, properties: &'a [u8]) -> Content<'a> {
        let (small, parts) = self.body();
        Content { properties, small, parts }
    }

    pub(crate) fn body_bytes(&self) -> usize {
        let (small, parts) = self.body();
        small.len() + parts.iter().map(Bytes::len).sum::<usize>()
    }
}

#[cfg(any(test, fuzzing))]
impl Message {
    pub(crate) fn counted_bytes(&self) -> usize {
        self.held.bytes()
    }
}

#[cfg(any(test, fuzzing))]
impl Assembly {
    pub(crate) fn counted_bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Bytes gathered from several slices: inline if they are few.
#[derive(Debug)]
enum Gathered {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl Gathered {
    #[inline]
    fn new<const N: usize>(pieces: [&[u8]; N], length: usize) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        let Some(mut room) = bytes.get_mut(..length) else {
            return Self::Boxed(pieces.concat().into());
        };
        for piece in pieces {
            let (taken, rest) = room.split_at_mut(piece.len());
            taken.copy_from_slice(piece);
            room = rest;
        }
        Self::Inline { length: length as u8, bytes }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..(*length).into()],
            Self::Boxed(bytes) => bytes,
        }
    }
}

/// A message that is received frame by frame. Its memory is reused for the next one.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    exchange_end: usize,
    routing_key_end: usize,
    properties_end: usize,
    parts: Vec<Bytes>,
    /// Small pieces of a large body, collected until they make a part.
    pieces: BytesMut,
    body_left: u64,
    is_small: bool,
    /// Counts a large body while it is received.
    held: Held,
}

impl Assembly {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self { held: Held::nothing_of(memory), ..Self::default() }
    }

    /// Begins the next message.
    pub(crate) fn begin(&mut self, exchange: &[u8], routing_key: &[u8]) {
        self.bytes.clear();
        self.parts.clear();
        self.pieces.clear();
        self.held.set(0);
        self.bytes.extend_from_slice(exchange);
        self.exchange_end = self.bytes.len();
        self.bytes.extend_from_slice(routing_key);
        self.routing_key_end = self.bytes.len();
    }

    pub(crate) fn properties(&mut self, properties: &[u8], body_size: u64) {
        self.bytes.truncate(self.routing_key_end);
        self.bytes.extend_from_slice(properties);
        self.properties_end = self.bytes.len();
        self.body_left = body_size;
        self.is_small = body_size <= COPY_MAX_BYTES as u64;
    }

    /// Adds a piece of the body: a copy, or a reference made by `share`. The error is by how many bytes the body exceeds its
    /// announced size.
    pub(crate) fn body(&mut self, piece: &[u8], share: impl FnOnce() -> Bytes) -> Result<(), u64> {
        let length = piece.len() as u64;
        self.body_left = self.body_left.checked_sub(length).ok_or_else(|| length - self.body_left)?;
        if !self.is_small {
            self.held.grow(piece.len());
        }
        if self.is_small {
            self.bytes.extend_from_slice(piece);
        } else if piece.len() > COPY_MAX_BYTES {
            self.cut_pieces();
            self.parts.push(share());
        } else {
            self.pieces.extend_from_slice(piece);
        }
        if self.body_left == 0 {
            self.cut_pieces();
        }
        Ok(())
    }

    pub(crate) const fn is_whole(&self) -> bool {
        self.body_left == 0
    }

    pub(crate) fn exchange(&self) -> &[u8] {
        &self.bytes[..self.exchange_end]
    }

    pub(crate) fn routing_key(&self) -> &[u8] {
        &self.bytes[self.exchange_end..self.routing_key_end]
    }

    /// The content received so far.
    pub(crate) fn content(&self) -> Content<'_> {
        Content {
            properties: &self.bytes[self.routing_key_end..self.properties_end],
            small: &self.bytes[self.properties_end..],
            parts: &self.parts,
        }
    }

    /// An empty assembly that reuses the memory of this one.
    pub(crate) fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX_BYTES);
        Self { bytes: self.bytes, held: self.held.another(), ..Self::default() }
    }

    fn cut_pieces(&mut self) {
        if !self.pieces.is_empty() {
            self.parts.push(self.pieces.split().freeze());
        }
    }
}

/// A message in one queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its place in the queue, to which a requeue returns it.
    pub(crate) place: u64,
    pub(crate) message: Arc<Message>,
    /// How often it was delivered and requeued.
    pub(crate) delivery_count: u32,
    /// How often of these the delivery failed: a client rejected it, or lost its channel.
    pub(crate) failed_count: u16,
    /// Whether it is a dead letter of a failed delivery that had to wait in this queue.
    pub(crate) is_failed_letter: bool,
    pub(crate) expires_at: Option<Instant>,
}

impl Entry {
    pub(crate) const fn is_redelivered(&self) -> bool {
        self.delivery_count > 0 || self.is_failed_letter
    }

    /// Counts a delivery that has failed.
    pub(crate) const fn note_failure(&mut self, has_failed: bool) {
        self.failed_count = self.failed_count.saturating_add(has_failed as u16);
    }

    /// How often it was delivered and requeued, and how often of these a delivery failed, with those before it became a
    /// dead letter.
    pub(crate) fn counts(&self) -> (i64, i64) {
        let before = i64::from(self.message.failed_before);
        let failed = if self.failed_count > 0 { self.failed_count.into() } else { before };
        (i64::from(self.delivery_count).max(before), failed)
    }
}

/// Room for the names, properties and body of a usual request or reply.
const INLINE_BYTES: usize = 159;
/// Bytes that a channel keeps allocated for the next message.
const KEPT_MAX_BYTES: usize = 16 * 1_024;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message without names and properties.
    pub(crate) fn message(body: &[u8], priority: u8) -> Arc<Message> {
        let content = Content { properties: &[0, 0], small: body, parts: &[] };
        Arc::new(Message::new((b"", b""), &content, priority, None, Held::default()))
    }

    #[test]
    fn a_small_body_is_copied_and_a_large_one_is_not() {
        let mut assembly = Assembly::default();
        for _ in 0..2 {
            assembly.begin(b"exchange", b"key");
            assembly.properties(b"\0\0", 4);
            assert_eq!(assembly.body(b"bo", || panic!("copied")), Ok(()));
            assert_eq!(assembly.body(b"dy!", || panic!("copied")), Err(1));
            assert_eq!(assembly.body(b"dy", || panic!("copied")), Ok(()));
            assert!(assembly.is_whole());
            let small = Message::new(
                (assembly.exchange(), assembly.routing_key()),
                &assembly.content(),
                0,
                None,
                Held::default(),
            );
            assert_eq!((small.exchange(), small.routing_key()), (&b"exchange"[..], &b"key"[..]));
            assert_eq!((small.properties(), small.body()), (&b"\0\0"[..], (&b"body"[..], &[][..])));
            assembly = assembly.emptied();
        }
        let large = Bytes::from(vec![1; 10_000]);
        assembly.begin(b"", b"q");
        assembly.properties(b"\0\0", 10_003);
        for piece in [&b"a"[..], b"b"] {
            assembly.body(piece, || panic!("copied")).unwrap();
        }
        assembly.body(&large, || large.clone()).unwrap();
        assembly.body(b"c", || panic!("copied")).unwrap();
        let message = Message::new((b"", b"q"), &assembly.content(), 0, None, Held::default());
        let (small, parts) = message.body();
        assert_eq!((small, message.body_bytes()), (&b""[..], 10_003));
        assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [2, 10_000, 1]);
        assert_eq!(parts[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_message_returns_the_parts_it_was_made_from() {
        let content = Content { properties: b"\0\0", small: b"x", parts: &[] };
        let message = Message::new((b"e", b"k"), &content, 3, Some(7), Held::default());
        assert_eq!((message.properties(), message.body()), (&b"\0\0"[..], (&b"x"[..], &[][..])));
        let copy =
            Message::new((b"other", b"key"), &message.content(b"longer"), message.priority, None, Held::default());
        assert_eq!((copy.exchange(), copy.properties()), (&b"other"[..], &b"longer"[..]));
        assert_eq!((copy.body().0, copy.priority, message.expiration_ms), (&b"x"[..], 3, Some(7)));
    }
}

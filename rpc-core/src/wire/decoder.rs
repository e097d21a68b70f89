//! Cuts bytes into frames. It checks a length before it reserves memory for it.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD, FrameKind, RawFrame};

/// The first bytes of a peer, for AMQP 0-9-1.
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The other headers that RabbitMQ accepts, and the version in its answer.
const OLD_PROTOCOL_HEADERS: [([u8; 8], Start); 3] = [
    (*b"AMQP\x01\x01\x00\x09", Start::Version0_9),
    (*b"AMQP\x01\x01\x08\x00", Start::Version0_8),
    (*b"AMQP\x01\x01\x09\x01", Start::Version0_8),
];

/// The version that the first eight bytes ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Version0_9,
    Version0_8,
    /// None that we have: answer with our header, and close.
    Unknown,
}

/// Takes the protocol header from the front of `buffer`; `None` while it is incomplete.
pub(crate) fn read_protocol_header(buffer: &mut BytesMut) -> Option<Start> {
    let start = &buffer[..buffer.len().min(PROTOCOL_HEADER.len())];
    let known = std::iter::once((PROTOCOL_HEADER, Start::Version0_9)).chain(OLD_PROTOCOL_HEADERS);
    // Answered at the first wrong byte: a peer of another protocol may wait for an answer before it sends more.
    let Some((_, version)) = known.into_iter().find(|(header, _)| header.starts_with(start)) else {
        return Some(Start::Unknown);
    };
    if start.len() < PROTOCOL_HEADER.len() {
        return None;
    }
    buffer.advance(PROTOCOL_HEADER.len());
    Some(version)
}

/// The reason why bytes are no frame. All of them are `501 frame_error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameError {
    UnknownKind { kind: u8, payload: Bytes },
    TooLarge { kind: u8, payload_bytes: u32, limit_bytes: u32 },
    BadEnd { kind: u8, payload: Bytes, end: u8 },
}

/// Cuts frames out of a read buffer.
#[derive(Debug)]
pub(crate) struct Decoder {
    frame_max: u32,
    /// By which a content header may exceed it.
    header_excess: u32,
}

impl Decoder {
    pub(crate) const fn new(frame_max: u32) -> Self {
        Self { frame_max, header_excess: 0 }
    }

    /// Takes content headers that exceed the size by `bytes`, as they come from brokers that add to them.
    #[cfg(feature = "framework")]
    pub(crate) const fn with_larger_headers(self, bytes: u32) -> Self {
        Self { header_excess: bytes, ..self }
    }

    /// Sets the negotiated size.
    pub(crate) const fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// Cuts the whole frames at the front of `buffer`, at most `frames_max` of them, and reserves memory for the rest of
    /// the next one. The error is that of the frame after them, which is cut off, too.
    pub(crate) fn cut(&self, buffer: &mut BytesMut, frames_max: usize) -> (Batch, Option<FrameError>) {
        let mut end = 0;
        let mut error = None;
        for _ in 0..frames_max {
            match self.next(&buffer[end..]) {
                Next::Frame { whole } => end += whole,
                Next::Incomplete { missing } => {
                    let batch = Batch { bytes: buffer.split_to(end).freeze() };
                    // At most frame_max and the tolerance: the length was checked.
                    buffer.reserve(missing);
                    return (batch, None);
                }
                Next::Bad(bad) => {
                    error = Some(bad);
                    break;
                }
            }
        }
        let batch = Batch { bytes: buffer.split_to(end).freeze() };
        match &error {
            // Skipped like a frame: the bytes after it may be the answer to our `connection.close`.
            Some(FrameError::UnknownKind { payload, .. } | FrameError::BadEnd { payload, .. }) => {
                buffer.advance(payload.len() + FRAME_OVERHEAD);
            }
            // The start of the next frame is unknown.
            Some(FrameError::TooLarge { .. }) => buffer.clear(),
            None => {}
        }
        (batch, error)
    }

    fn next(&self, bytes: &[u8]) -> Next {
        let Some((octet, _, payload_bytes)) = read_frame_header(bytes) else {
            return Next::Incomplete { missing: FRAME_OVERHEAD };
        };
        // As RabbitMQ: some clients do not count the octets of the frame itself, although frame_max includes them.
        let is_header = octet == FrameKind::Header.octet();
        let excess = if is_header { self.header_excess } else { 0 };
        if payload_bytes > self.frame_max.saturating_add(excess) {
            let limit_bytes = self.frame_max.saturating_sub(FRAME_OVERHEAD as u32);
            return Next::Bad(FrameError::TooLarge { kind: octet, payload_bytes, limit_bytes });
        }
        let whole = payload_bytes as usize + FRAME_OVERHEAD;
        let Some(frame) = bytes.get(..whole) else {
            return Next::Incomplete { missing: whole - bytes.len() };
        };
        let (payload, end) = (&frame[FRAME_HEADER_BYTES..whole - 1], frame[whole - 1]);
        if end != FRAME_END {
            return Next::Bad(FrameError::BadEnd { kind: octet, payload: Bytes::copy_from_slice(payload), end });
        }
        match FrameKind::from_octet(octet) {
            Some(FrameKind::Heartbeat) if !payload.is_empty() => {}
            Some(_) => return Next::Frame { whole },
            None => {}
        }
        Next::Bad(FrameError::UnknownKind { kind: octet, payload: Bytes::copy_from_slice(payload) })
    }
}

enum Next {
    Frame { whole: usize },
    Incomplete { missing: usize },
    Bad(FrameError),
}

/// Consecutive whole frames, checked to be frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    bytes: Bytes,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the frames between two places, as [`Frames::bytes_left`] counts them.
    pub(crate) fn between(&self, from: usize, to: usize) -> &[u8] {
        let place = |left: usize| self.bytes.len().saturating_sub(left);
        self.bytes.get(place(from)..place(to)).unwrap_or_default()
    }

    /// Its last `bytes`, as [`Frames::bytes_left`] counts them.
    pub(crate) fn end(&self, bytes: usize) -> Self {
        Self { bytes: self.bytes.slice(self.bytes.len().saturating_sub(bytes)..) }
    }

    /// The frames in order.
    pub(crate) fn frames(&self) -> Frames<'_> {
        Frames { rest: &self.bytes, batch: &self.bytes }
    }
}

/// Frames that were cut from another batch.
impl From<Vec<u8>> for Batch {
    fn from(frames: Vec<u8>) -> Self {
        Self { bytes: frames.into() }
    }
}

/// An iterator over the frames of a batch. A clone of it looks ahead.
#[derive(Debug, Clone)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
    batch: &'a Bytes,
}

impl Frames<'_> {
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = RawFrame<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawFrame<'a>> {
        let (octet, channel, payload_bytes) = read_frame_header(self.rest)?;
        let (frame, rest) = self.rest.split_at_checked(payload_bytes as usize + FRAME_OVERHEAD)?;
        self.rest = rest;
        let payload = frame.get(FRAME_HEADER_BYTES..frame.len() - 1)?;
        Some(RawFrame { kind: FrameKind::from_octet(octet)?, channel, payload, batch: self.batch })
    }
}

fn read_frame_header(bytes: &[u8]) -> Option<(u8, u16, u32)> {
    let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
    let &[octet, c0, c1, s0, s1, s2, s3] = header;
    Some((octet, u16::from_be_bytes([c0, c1]), u32::from_be_bytes([s0, s1, s2, s3])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> Vec<u8> {
        vec![8, 0, 0, 0, 0, 0, 0, FRAME_END]
    }

    fn summary(batch: &Batch) -> Vec<(FrameKind, u16, Vec<u8>)> {
        batch.frames().map(|frame| (frame.kind, frame.channel, frame.share().to_vec())).collect()
    }

    fn error_of(bytes: &[u8]) -> Option<FrameError> {
        Decoder::new(4_096).cut(&mut BytesMut::from(bytes), 10).1
    }

    #[test]
    fn frames_arrive_byte_by_byte_and_many_at_once() {
        let decoder = Decoder::new(4_096);
        let mut bytes = vec![1, 0, 7, 0, 0, 0, 3, b'a', b'b', b'c', FRAME_END];
        bytes.extend(heartbeat());
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in &bytes {
            buffer.extend_from_slice(&[*byte]);
            let (batch, error) = decoder.cut(&mut buffer, 10);
            assert_eq!(error, None);
            frames.extend(summary(&batch));
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let at_once = summary(&decoder.cut(&mut buffer, 10).0);
        assert_eq!(frames, at_once);
        assert_eq!(frames[0], (FrameKind::Method, 7, b"abc".to_vec()));
        assert!(buffer.is_empty());
    }

    #[test]
    fn no_more_frames_are_cut_than_asked_for() {
        let mut buffer = BytesMut::from(&heartbeat().repeat(5)[..]);
        let (batch, _) = Decoder::new(4_096).cut(&mut buffer, 2);
        assert_eq!((batch.frames().count(), buffer.len()), (2, 24));
        let mut frames = batch.frames();
        frames.next();
        assert_eq!((frames.bytes_left(), batch.end(8).frames().count(), batch.end(0).is_empty()), (8, 1, true));
    }

    #[test]
    fn good_frames_before_a_bad_one_are_still_cut() {
        let mut bytes = heartbeat();
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        let (batch, error) = Decoder::new(4_096).cut(&mut BytesMut::from(&bytes[..]), 10);
        assert_eq!(batch.frames().count(), 1);
        assert_eq!(error, Some(FrameError::BadEnd { kind: 1, payload: Bytes::new(), end: 0 }));
    }

    #[test]
    fn a_length_is_refused_before_it_is_buffered() {
        assert_eq!(error_of(&[3, 0, 1, 0, 0, 0x10, 0x00]), None);
        let error = error_of(&[3, 0, 1, 0, 0, 0x10, 0x01]);
        assert_eq!(error, Some(FrameError::TooLarge { kind: 3, payload_bytes: 4_097, limit_bytes: 4_088 }));
        let error = error_of(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(error, Some(FrameError::TooLarge { kind: 3, payload_bytes: u32::MAX, limit_bytes: 4_088 }));
    }

    #[test]
    fn a_wrong_kind_and_a_heartbeat_with_a_payload_are_no_frames() {
        let unknown = |kind, payload| Some(FrameError::UnknownKind { kind, payload: Bytes::from_static(payload) });
        assert_eq!(error_of(&[7, 0, 0, 0, 0, 0, 0, FRAME_END]), unknown(7, b""));
        assert_eq!(error_of(&[8, 0, 0, 0, 0, 0, 1, b'x', FRAME_END]), unknown(8, b"x"));
    }

    #[test]
    fn protocol_headers_are_distinguished() {
        let read = |bytes: &[u8]| read_protocol_header(&mut BytesMut::from(bytes));
        assert_eq!(read(b"AMQP\x00\x00\x09\x01"), Some(Start::Version0_9));
        assert_eq!(read(b"AMQP\x01\x01\x00\x09"), Some(Start::Version0_9));
        assert_eq!(read(b"AMQP\x01\x01\x08\x00"), Some(Start::Version0_8));
        assert_eq!(read(b"AMQP\x00\x00\x0a\x00"), Some(Start::Unknown));
        assert_eq!(read(b"GET / HT"), Some(Start::Unknown));
        assert_eq!(read(b"G"), Some(Start::Unknown));
        assert_eq!(read(b"AMQP\x00"), None);
        assert_eq!(read(b""), None);
    }
}

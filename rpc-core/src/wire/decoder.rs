//! Bytes in, frames out. Lengths are checked before anything is buffered for them.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD, FrameKind, RawFrame};

/// What a peer sends first: AMQP 0-9-1.
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// RabbitMQ also accepts AMQP 0-8's header, and answers it with a start of version 8.0.
const PROTOCOL_HEADER_0_8: [u8; 8] = *b"AMQP\x01\x01\x08\x00";
/// Old clients ask for 0-9 and get 0-9-1.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// What the first eight bytes ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Version0_9,
    Version0_8,
    /// Answer with our header and close.
    Unknown,
}

/// Takes the protocol header from the front of `buffer`, when it is there.
pub(crate) fn read_protocol_header(buffer: &mut BytesMut) -> Option<Start> {
    let known = buffer.len().min(PROTOCOL_HEADER.len());
    let start = &buffer[..known];
    // A first wrong byte is answered at once: the peer may be waiting for ever.
    let may_become = |header: &[u8; 8]| header.starts_with(start);
    if ![PROTOCOL_HEADER, PROTOCOL_HEADER_0_9, PROTOCOL_HEADER_0_8].iter().any(may_become) {
        return Some(Start::Unknown);
    }
    if known < PROTOCOL_HEADER.len() {
        return None;
    }
    let version = if start == PROTOCOL_HEADER_0_8 { Start::Version0_8 } else { Start::Version0_9 };
    buffer.advance(PROTOCOL_HEADER.len());
    Some(version)
}

/// Why bytes are no frame: all of them are `501 frame_error`.
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
}

impl Decoder {
    pub(crate) const fn new(frame_max: u32) -> Self {
        Self { frame_max }
    }

    /// Sets the negotiated size.
    pub(crate) const fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// The next whole frame, or `None` when more bytes are needed.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<RawFrame>, FrameError> {
        let Some(&octet) = buffer.first() else {
            return Ok(None);
        };
        if buffer.len() < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let channel = u16::from_be_bytes([buffer[1], buffer[2]]);
        let payload_bytes = u32::from_be_bytes([buffer[3], buffer[4], buffer[5], buffer[6]]);
        let limit_bytes = self.frame_max.saturating_sub(FRAME_OVERHEAD as u32);
        if payload_bytes > limit_bytes {
            return Err(FrameError::TooLarge { kind: octet, payload_bytes, limit_bytes });
        }
        let payload_len = payload_bytes as usize;
        let whole = payload_len + FRAME_OVERHEAD;
        if buffer.len() < whole {
            // At most frame_max more: the length was checked above.
            buffer.reserve(whole - buffer.len());
            return Ok(None);
        }
        let mut frame = buffer.split_to(whole).freeze();
        let end = frame[whole - 1];
        frame.advance(FRAME_HEADER_BYTES);
        frame.truncate(payload_len);
        if end != FRAME_END {
            return Err(FrameError::BadEnd { kind: octet, payload: frame, end });
        }
        match FrameKind::from_octet(octet) {
            Some(kind) => Ok(Some(RawFrame { kind, channel, payload: frame })),
            None => Err(FrameError::UnknownKind { kind: octet, payload: frame }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> Vec<u8> {
        vec![8, 0, 0, 0, 0, 0, 0, FRAME_END]
    }

    #[test]
    fn frames_arrive_byte_by_byte_and_many_at_once() {
        let mut decoder = Decoder::new(4_096);
        let mut bytes = vec![1, 0, 7, 0, 0, 0, 3, b'a', b'b', b'c', FRAME_END];
        bytes.extend(heartbeat());
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in &bytes {
            buffer.extend_from_slice(&[*byte]);
            frames.extend(decoder.next(&mut buffer).unwrap());
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let at_once: Vec<_> = std::iter::from_fn(|| decoder.next(&mut buffer).unwrap()).collect();
        assert_eq!(frames, at_once);
        assert_eq!((frames[0].channel, &frames[0].payload[..]), (7, &b"abc"[..]));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_is_refused_before_it_is_buffered() {
        let mut buffer = BytesMut::from(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF][..]);
        let error = Decoder::new(4_096).next(&mut buffer).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { kind: 3, payload_bytes: u32::MAX, limit_bytes: 4_088 });
    }

    #[test]
    fn a_wrong_kind_or_end_is_an_error() {
        let mut buffer = BytesMut::from(&[7, 0, 0, 0, 0, 0, 1, b'x', FRAME_END][..]);
        let payload = Bytes::from_static(b"x");
        assert_eq!(Decoder::new(4_096).next(&mut buffer), Err(FrameError::UnknownKind { kind: 7, payload }));
        let mut buffer = BytesMut::from(&[8, 0, 0, 0, 0, 0, 0, 0][..]);
        assert!(matches!(Decoder::new(4_096).next(&mut buffer), Err(FrameError::BadEnd { end: 0, .. })));
    }

    #[test]
    fn protocol_headers_are_told_apart() {
        let read = |bytes: &[u8]| read_protocol_header(&mut BytesMut::from(bytes));
        assert_eq!(read(b"AMQP\x00\x00\x09\x01"), Some(Start::Version0_9));
        assert_eq!(read(b"AMQP\x01\x01\x08\x00"), Some(Start::Version0_8));
        assert_eq!(read(b"AMQP\x00\x00\x0a\x00"), Some(Start::Unknown));
        assert_eq!(read(b"GET / HT"), Some(Start::Unknown));
        assert_eq!(read(b"G"), Some(Start::Unknown));
        assert_eq!(read(b"AMQP\x00"), None);
        assert_eq!(read(b""), None);
    }
}

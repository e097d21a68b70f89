//! The frame: `kind(1) channel(2) size(4) payload(size) end(1)` (AMQP 0-9-1 §2.3.5).

use bytes::Bytes;

/// The kind of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

impl FrameKind {
    pub(crate) const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    pub(crate) const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// A frame, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawFrame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
    pub(super) batch: &'a Bytes,
}

impl RawFrame<'_> {
    /// Its length in a batch.
    pub(crate) const fn bytes(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }

    /// The payload as a share of the batch, without a copy. The batch stays in memory as long as the share.
    pub(crate) fn share(&self) -> Bytes {
        self.batch.slice_ref(self.payload)
    }
}

/// Ends every frame.
pub(crate) const FRAME_END: u8 = 0xCE;
/// Kind, channel and size.
pub(super) const FRAME_HEADER_BYTES: usize = 7;
/// The octets around a payload.
pub(crate) const FRAME_OVERHEAD: usize = FRAME_HEADER_BYTES + 1;
/// The smallest `frame_max` (AMQP 0-9-1 §4.2.3).
pub(crate) const FRAME_MIN_SIZE: u32 = 4_096;

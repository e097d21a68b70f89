//! A message: what was published, kept as it came.

use std::sync::Arc;

use bytes::Bytes;

/// A published message, shared by all queues it is in.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) exchange: Bytes,
    pub(super) routing_key: Bytes,
    /// Property flags and values, byte for byte.
    pub(super) properties: Bytes,
    pub(super) body: Body,
    pub(super) priority: u8,
    /// The message's own time to live.
    pub(super) expiration_ms: Option<u64>,
}

/// A body in the frames it came in.
#[derive(Debug, Default)]
pub(super) enum Body {
    #[default]
    Empty,
    One([Bytes; 1]),
    Many(Vec<Bytes>),
}

impl Body {
    pub(super) fn parts(&self) -> &[Bytes] {
        match self {
            Self::Empty => &[],
            Self::One(part) => part,
            Self::Many(parts) => parts,
        }
    }

    pub(super) fn push(&mut self, part: Bytes) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One([part]),
            Self::One([first]) => Self::Many(vec![first, part]),
            Self::Many(mut parts) => {
                parts.push(part);
                Self::Many(parts)
            }
        };
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }
}

/// A message in one queue.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its place in the queue, which it gets back when it is requeued.
    pub(super) place: u64,
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    pub(super) expires_at: Option<std::time::Instant>,
}

impl Entry {
    pub(super) fn is_expired(&self, now: std::time::Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

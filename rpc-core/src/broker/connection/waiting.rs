//! How long a connection waits for its client.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::core::Negotiated;

/// The thing that a connection waits for, and its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// `connection.open`.
    Handshake { deadline: Instant },
    /// Any frame; without heartbeats the client may be silent.
    Traffic { silence_max: Option<Duration> },
    /// The answer to our `connection.close`.
    Close { deadline: Instant },
}

impl Waiting {
    /// Follows the connection from the handshake to traffic, and from both to closing. Returns whether it is open now
    /// and was not before.
    pub(super) fn follow(&mut self, negotiated: &Negotiated) -> bool {
        match (&*self, negotiated.closing_limit) {
            (Self::Close { .. }, _) => {}
            (_, Some(limit)) => *self = Self::Close { deadline: Instant::now() + limit },
            (Self::Handshake { .. }, None) if negotiated.is_open => {
                let heartbeat = Duration::from_secs(negotiated.heartbeat_s.into());
                *self = Self::Traffic { silence_max: (!heartbeat.is_zero()).then(|| heartbeat * 2) };
                return true;
            }
            (Self::Handshake { .. } | Self::Traffic { .. }, None) => {}
        }
        false
    }

    /// When to stop waiting for a client that sent something at `last_read`.
    pub(super) fn deadline(self, last_read: Instant) -> Instant {
        match self {
            Self::Handshake { deadline } | Self::Close { deadline } => deadline,
            Self::Traffic { silence_max: Some(silence_max) } => last_read + silence_max,
            Self::Traffic { silence_max: None } => Instant::now() + NEVER,
        }
    }
}

/// Longer than any connection lasts.
pub(super) const NEVER: Duration = Duration::from_secs(365 * 86_400);

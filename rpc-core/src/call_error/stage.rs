//! [`TimeoutStage`]: how far a call had got when its deadline passed.

use std::fmt;

/// How far a call had got when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutStage {
    /// The connection or the reply queue was not ready: nothing was sent.
    Connecting,
    /// The broker had blocked the connection (`connection.blocked`), or read or confirmed so slowly that the request had to wait
    /// ([`outbox_max_bytes`](crate::ConnectionOptions::outbox_max_bytes)): nothing was sent.
    Blocked,
    /// The client had `max_in_flight` calls waiting already: nothing was sent.
    InFlightLimit,
    /// A layer of the client had not passed the call on: nothing was sent.
    Layer,
    /// The request was sent, and the broker had not confirmed it yet.
    Unconfirmed,
    /// A worker had begun, and said so.
    Running,
    /// The request was sent, and no reply arrived: it may be queued, running, or done.
    Unknown,
}

impl TimeoutStage {
    pub(crate) const ALL: [Self; 7] = [
        Self::Connecting,
        Self::Blocked,
        Self::InFlightLimit,
        Self::Layer,
        Self::Unconfirmed,
        Self::Running,
        Self::Unknown,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// As the label of a metric.
    #[cfg(feature = "metrics")]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Blocked => "blocked",
            Self::InFlightLimit => "in_flight_limit",
            Self::Layer => "layer",
            Self::Unconfirmed => "unconfirmed",
            Self::Running => "running",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the request had been sent.
    pub(super) const fn is_sent(self) -> bool {
        !matches!(self, Self::Connecting | Self::Blocked | Self::InFlightLimit | Self::Layer)
    }
}

impl fmt::Display for TimeoutStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "waiting for the connection; nothing was sent",
            Self::Blocked => "the broker had blocked the connection, or read or confirmed too slowly; nothing was sent",
            Self::InFlightLimit => "waiting for a free place among the calls in flight; nothing was sent",
            Self::Layer => "a layer of the client had not passed it on; nothing was sent",
            Self::Unconfirmed => "sent, waiting for the publisher confirm",
            Self::Running => "a worker was executing it",
            Self::Unknown => "sent, no answer",
        })
    }
}

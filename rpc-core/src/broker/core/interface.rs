//! The values that pass between the core and the owner of a socket.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize},
    time::{Duration, Instant},
};

/// Names a connection while it is open. A later connection may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) usize);

/// The client at the other end of a socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// `host:port`.
    pub(crate) address: String,
    /// The address without the port; of IPv6 the network, in which one client has many addresses.
    pub(crate) origin: String,
    /// Whether it is on this machine.
    pub(crate) is_loopback: bool,
    /// The name in its certificate, if it presented one that was verified.
    pub(crate) certificate_name: Option<String>,
}

/// State that the core and the owner of a socket share without a lock.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes handed to the writer and not written yet.
    pub(crate) backlog: AtomicUsize,
    /// Whether the client is blocked: its further frames are not handled.
    pub(crate) is_held: AtomicBool,
}

/// The current time, as the caller read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Seconds since 1970, for `x-death`.
    pub(crate) unix_s: u64,
}

/// The next step of the owner of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// This many bytes at the end of the batch are not handled yet: the connection has been blocked, or other
    /// connections have waited long enough for the lock.
    Paused(usize),
    /// As `Paused`, but a channel waits for the rest of a method: it goes on even if the connection has been blocked. Frames
    /// for other channels may be handed over meanwhile, if the whole batch is handled.
    Unfinished(usize),
    /// Write all pending output, then close the socket.
    Close,
    /// As `Close`, but only after a pause: RabbitMQ slows down clients that guess passwords.
    ClosePaused(Duration),
}

/// The state of the handshake, for the owner of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) is_open: bool,
    /// After a `connection.close`, how long to wait for the client to answer or hang up.
    pub(crate) closing_limit: Option<Duration>,
}

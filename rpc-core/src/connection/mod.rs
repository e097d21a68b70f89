//! Connections: opened by URI, named after the process, watched.
//!
//! ```text
//!  Connection ──channel()──► Channel ──► client::Session, worker::consume
//!      │ watch<State>
//!      └─ monitor task ◄── lapin's events
//! ```
//!
//! It does not know what travels on it. Dropping the last handle closes the socket.

mod lapin;
pub(crate) mod transport;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use tokio::{sync::watch, task::AbortHandle, time::timeout};

pub(crate) use self::lapin::{Channel, Consumer, Delivery};
use self::lapin::{Event, Link};
use crate::error::Error;

/// How a connection is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// What the broker's tools show as the connection's name. The default is the program's name and process id.
    pub name: String,
    /// How long opening may take, from name resolution to `connection.open-ok`. The default is 10 s.
    pub connect_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self { name: process_name(), connect_timeout: Duration::from_secs(10) }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Requests and replies flow.
    Connected,
    /// The broker has stopped reading from us (`connection.blocked`: it is short of memory or disk).
    Blocked {
        /// The broker's words.
        reason: String,
    },
    /// Closed by either side, or lost.
    Closed {
        /// Why, as far as is known.
        reason: String,
    },
}

/// An AMQP connection; clones share it.
///
/// One connection per role and process is enough: clients and pools open channels of their own on it.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    state: watch::Sender<State>,
    monitor: AbortHandle,
    /// Set before a close of our own, so that the monitor tells it from a loss.
    closing: Arc<AtomicBool>,
}

impl Connection {
    /// Opens a connection to `amqp://user:password@host:port/vhost`; every part but the scheme has a default
    /// (`guest`, `guest`, `localhost`, 5672, `/`).
    ///
    /// # Errors
    /// [`Error::InvalidUri`], [`Error::Unreachable`], [`Error::AuthenticationRefused`], [`Error::VhostRefused`], or
    /// [`Error::TimedOut`] after 10 s.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn open(uri: &str) -> Result<Self, Error> {
        Self::open_with(uri, ConnectionOptions::default()).await
    }

    /// Opens a connection with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_with(uri: &str, options: ConnectionOptions) -> Result<Self, Error> {
        let endpoint = lapin::parse_uri(uri)?;
        let limit = options.connect_timeout;
        let link = match timeout(limit, Link::open(&endpoint, &options.name)).await {
            Ok(link) => Arc::new(link?),
            Err(_) => return Err(Error::TimedOut { operation: format!("connect to {}", endpoint.address), limit }),
        };
        tracing::info!(broker = ?endpoint, name = options.name, "connected");
        let (state, _) = watch::channel(State::Connected);
        let closing = Arc::new(AtomicBool::new(false));
        let monitor = tokio::spawn(monitor(link.events(), state.clone(), Arc::clone(&closing))).abort_handle();
        Ok(Self { shared: Arc::new(Shared { link, state, monitor, closing }) })
    }

    /// What the connection is doing now.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Follows the state: the receiver holds the current one and wakes at every change.
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Closes the connection for everyone who shares it. Calls in flight end with
    /// [`CallError::Disconnected`](crate::CallError::Disconnected); closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when it was lost before the broker confirmed the close.
    pub async fn close(&self) -> Result<(), Error> {
        if self.shared.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = match timeout(CLOSE_TIMEOUT, self.shared.link.close()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::TimedOut { operation: "close the connection".to_owned(), limit: CLOSE_TIMEOUT }),
        };
        self.shared.state.send_replace(State::Closed { reason: CLOSED_BY_US.to_owned() });
        outcome
    }

    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        if !self.shared.link.is_connected() {
            let reason = match self.state() {
                State::Closed { reason } => reason,
                State::Connected | State::Blocked { .. } => "connection lost".to_owned(),
            };
            return Err(Error::Disconnected { reason });
        }
        self.shared.link.channel().await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.monitor.abort();
    }
}

/// Turns lapin's events into states until the connection ends.
async fn monitor(events: impl Stream<Item = Event>, state: watch::Sender<State>, closing: Arc<AtomicBool>) {
    let mut events = pin!(events);
    while let Some(event) = std::future::poll_fn(|cx| events.as_mut().poll_next(cx)).await {
        let next = match event {
            Event::Blocked(reason) => {
                tracing::warn!(reason, "connection blocked by the broker");
                State::Blocked { reason }
            }
            Event::Unblocked => {
                tracing::info!("connection unblocked");
                State::Connected
            }
            Event::Lost(_) if closing.load(Ordering::Acquire) => State::Closed { reason: CLOSED_BY_US.to_owned() },
            Event::Lost(reason) => {
                tracing::warn!(reason, "connection lost");
                State::Closed { reason }
            }
        };
        let is_end = matches!(next, State::Closed { .. });
        state.send_replace(next);
        if is_end {
            return;
        }
    }
}

fn process_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_stem()).map(|name| name.to_string_lossy());
    format!("{} [{}]", name.as_deref().unwrap_or("rpc-core"), std::process::id())
}

const CLOSED_BY_US: &str = "closed by the application";

/// A broker that does not answer `connection.close` is left behind after this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

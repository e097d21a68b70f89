//! Connections: opened by URI, named after the process, watched, and reopened when they are lost.
//!
//! ```text
//!  Connection ──channel()──► Channel ──► client::Session, worker lanes
//!      │ watch<State>                     │ ended
//!      └─ supervisor ◄── Link's events    └──► channel() again: waits for the next epoch
//! ```
//!
//! It does not know what travels on it. Dropping the last handle closes the socket.

mod cancellation;
mod carrier;
mod delivery;
mod lapin;
mod made;
mod native;
mod supervisor;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod transport;
mod uri;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle, time::timeout};

#[cfg(feature = "tls")]
pub use self::tls::ClientTlsOptions;
use self::{carrier::Link, supervisor::Supervisor, transport::Event, uri::Endpoint};
pub(crate) use self::{
    carrier::{Channel, Confirm, Consumer},
    delivery::{Delivery, WeakDelivery},
    made::NewDelivery,
    supervisor::Backoff,
};
use crate::error::Error;

/// How a connection is opened, and reopened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// What the broker's tools show as the connection's name. The default is the program's name and process id.
    pub name: String,
    /// How long one attempt to open may take, from name resolution to `connection.open-ok`. The default is 10 s.
    pub connect_timeout: Duration,
    /// The longest pause before the first attempt to reopen; it doubles with every failure, and each pause is drawn
    /// at random between nothing and that. The default is 100 ms.
    pub reconnect_delay_min: Duration,
    /// Where the doubling ends. The default is 30 s.
    pub reconnect_delay_max: Duration,
    /// How often to try before the connection counts as closed. The default, `None`, is for ever; 0 is never.
    pub reconnect_attempts: Option<u32>,
    /// Who speaks AMQP. The default is [`Transport::Native`]; `transport=native` or `transport=lapin` among the parameters
    /// of a URI goes before it.
    pub transport: Transport,
    /// Whom an `amqps` connection trusts, and the certificate it shows. The default is the system's CAs, and none.
    #[cfg(feature = "tls")]
    pub tls: ClientTlsOptions,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            name: process_name(),
            connect_timeout: Duration::from_secs(10),
            reconnect_delay_min: Duration::from_millis(100),
            reconnect_delay_max: Duration::from_secs(30),
            reconnect_attempts: None,
            transport: Transport::default(),
            #[cfg(feature = "tls")]
            tls: ClientTlsOptions::default(),
        }
    }
}

impl ConnectionOptions {
    /// Sets [`name`](Self#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets [`connect_timeout`](Self#structfield.connect_timeout).
    #[must_use]
    pub const fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Sets [`reconnect_delay_min`](Self#structfield.reconnect_delay_min).
    #[must_use]
    pub const fn reconnect_delay_min(mut self, reconnect_delay_min: Duration) -> Self {
        self.reconnect_delay_min = reconnect_delay_min;
        self
    }

    /// Sets [`reconnect_delay_max`](Self#structfield.reconnect_delay_max).
    #[must_use]
    pub const fn reconnect_delay_max(mut self, reconnect_delay_max: Duration) -> Self {
        self.reconnect_delay_max = reconnect_delay_max;
        self
    }

    /// Sets [`reconnect_attempts`](Self#structfield.reconnect_attempts).
    #[must_use]
    pub const fn reconnect_attempts(mut self, reconnect_attempts: Option<u32>) -> Self {
        self.reconnect_attempts = reconnect_attempts;
        self
    }

    /// Sets [`transport`](Self#structfield.transport).
    #[must_use]
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Sets [`tls`](Self#structfield.tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTlsOptions) -> Self {
        self.tls = tls;
        self
    }
}

/// Who speaks AMQP under a connection. Nothing else differs: both are tested with the same suite.
///
/// ```no_run
/// # async fn example() -> Result<(), rpc_core::Error> {
/// use rpc_core::{Connection, ConnectionOptions, Transport};
///
/// let connection = Connection::open("amqp://localhost?transport=lapin").await?;
/// // The same:
/// let options = ConnectionOptions::default().transport(Transport::Lapin);
/// let connection = Connection::open_with("amqp://localhost", options).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Our own, the default: a task for each connection in the runtime that opened it.
    ///
    /// A handler that computes for long on a single-threaded runtime keeps it from answering heartbeats: mark such methods
    /// `#[rpc(blocking)]`.
    #[default]
    Native,
    /// The crate lapin, with a thread of its own for each connection, at a fraction of the speed.
    Lapin,
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
    /// Lost, and being reopened. Calls wait, within their budget; pools serve again when it is there.
    Reconnecting {
        /// Why it was lost, or why the last attempt failed.
        reason: String,
    },
    /// Closed by the application, or given up after `reconnect_attempts`.
    Closed {
        /// Why.
        reason: String,
    },
}

/// An AMQP connection that reopens itself; clones share it.
///
/// One connection per role and process is enough: clients and pools open channels of their own on it.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The current epoch's link, and what it is doing.
    link: watch::Receiver<Arc<Link>>,
    state: watch::Sender<State>,
    supervisor: AbortHandle,
    /// Set before a close of our own, so that the supervisor tells it from a loss.
    closing: Arc<AtomicBool>,
}

impl Connection {
    /// Opens a connection to `amqp://user:password@host:port/vhost`; every part but the scheme has a default
    /// (`guest`, `guest`, `localhost`, 5672, `/`). `amqps` is TLS, with port 5671, and needs the feature `tls`.
    ///
    /// # Errors
    /// [`Error::InvalidUri`], [`Error::Unreachable`], [`Error::AuthenticationRefused`], [`Error::VhostRefused`], or
    /// [`Error::TimedOut`] after 10 s. The first attempt is the only one; a connection that was open once is
    /// reopened for ever.
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
        Self::open_any(&[uri], options).await
    }

    /// Opens a connection to the first of several nodes that answers, and reopens it to any of them.
    ///
    /// # Errors
    /// The last node's error, as [`open`](Self::open); [`Error::Configuration`] when there is no URI.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_any(uris: &[&str], options: ConnectionOptions) -> Result<Self, Error> {
        let endpoints = uris.iter().map(|uri| Endpoint::parse(uri)).collect::<Result<Vec<_>, _>>()?;
        let mut failed = Error::Configuration("no URI to connect to".to_owned());
        for (at, endpoint) in endpoints.iter().enumerate() {
            match open_link(endpoint, &options).await {
                Ok(link) => return Ok(Self::supervised(link, endpoints, at, options)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn supervised(link: Link, endpoints: Vec<Endpoint>, at: usize, options: ConnectionOptions) -> Self {
        let events = link.events();
        let (link_sender, link) = watch::channel(Arc::new(link));
        let (state, _) = watch::channel(State::Connected);
        let closing = Arc::new(AtomicBool::new(false));
        let supervisor = Supervisor {
            endpoints,
            at,
            options,
            link: link_sender,
            state: state.clone(),
            closing: Arc::clone(&closing),
        };
        let supervisor = tokio::spawn(supervisor.run(events)).abort_handle();
        Self { shared: Arc::new(Shared { link, state, supervisor, closing }) }
    }

    /// What the connection is doing now.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Whether the broker has stopped reading from us.
    pub(crate) fn is_blocked(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Blocked { .. })
    }

    /// Follows the state: the receiver holds the current one and wakes at every change.
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Resolves when [`is_blocked`](Self::is_blocked) is false.
    pub(crate) async fn unblocked(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender is ours: there is always a state.
        drop(state.wait_for(|state| !matches!(state, State::Blocked { .. })).await);
    }

    /// Closes the connection for everyone who shares it. Calls in flight end with
    /// [`CallError::Disconnected`](crate::CallError::Disconnected); closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when it was lost before the broker confirmed the close.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection all the same, without waiting for the broker.
    pub async fn close(&self) -> Result<(), Error> {
        if self.shared.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.supervisor.abort();
        self.shared.state.send_replace(State::Closed { reason: CLOSED_BY_US.to_owned() });
        let link = Arc::clone(&self.shared.link.borrow());
        if !link.is_connected() {
            return Ok(());
        }
        match timeout(CLOSE_TIMEOUT, link.close()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::TimedOut { operation: "close the connection".to_owned(), limit: CLOSE_TIMEOUT }),
        }
    }

    /// A channel of the current epoch, or of the next one when the connection is being reopened.
    ///
    /// Waits as long as that takes: every caller brings its own deadline. Ends with [`Error::Closed`] once the
    /// connection is closed for good.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let mut state = self.shared.state.subscribe();
        // The sender is ours, so there is always a state; the guard must not live across the next await.
        let reason = match state.wait_for(|state| !matches!(state, State::Reconnecting { .. })).await.as_deref() {
            Ok(State::Closed { reason }) => Some(reason.clone()),
            Ok(_) => None,
            Err(_) => Some(CLOSED_BY_US.to_owned()),
        };
        if let Some(reason) = reason {
            return Err(Error::Closed { reason });
        }
        let link = Arc::clone(&self.shared.link.borrow());
        link.channel().await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

async fn open_link(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Link, Error> {
    let limit = options.connect_timeout;
    match timeout(limit, Link::open(endpoint, options)).await {
        Ok(link) => {
            let link = link?;
            tracing::info!(broker = ?endpoint, name = options.name, "connected");
            Ok(link)
        }
        Err(_) => Err(Error::TimedOut { operation: format!("connect to {}", endpoint.address), limit }),
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

//! Connections: opened by URI, named after the process, watched, and reopened when they are lost.
//!
//! ```text
//!  Connection ──channel()──► link::Channel ──► client::Session, worker lanes
//!      │ watch<Current>: link and state       │ ended
//!      └─ supervisor ◄── Link's events        └──► channel() again: waits for the next epoch
//! ```
//!
//! Dropping the last handle closes the socket.

pub(crate) mod amqp;
mod backoff;
mod cancellation;
mod credentials;
mod delivery;
mod fields;
mod first;
mod header_value;
#[cfg(feature = "lapin")]
mod lapin;
mod limit;
mod link;
mod made;
mod native;
mod opening_reason;
mod options;
mod state;
mod stats;
mod supervisor;
#[cfg(feature = "tls")]
mod tls;
mod unconfirmed;
mod uri;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

#[cfg(feature = "tls")]
pub use self::tls::ClientTlsOptions;
pub(crate) use self::{
    backoff::{Backoff, open_again},
    delivery::{Delivery, WeakDelivery},
    limit::within,
    link::{Channel, Confirm, Consumer, Returns},
    made::NewDelivery,
    unconfirmed::{Unconfirmed, Verdict},
    uri::Address,
};
pub use self::{
    credentials::{Credentials, CredentialsProvider},
    header_value::HeaderValue,
    options::{ConnectionOptions, Transport},
    state::{ConnectionState, ConnectionStates},
    stats::ConnectionStats,
};
use self::{
    first::open_first,
    link::Link,
    state::Current,
    supervisor::{Opened, Supervisor},
    uri::Endpoint,
};
use crate::{error::Error, task::AbortOnDrop};

/// An AMQP connection that reopens itself; clones share it.
///
/// One connection per role and process is enough: clients and pools open channels of their own on it.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: watch::Sender<Current>,
    /// None of a connection that leads nowhere.
    supervisor: Option<AbortOnDrop>,
    user: Option<Arc<str>>,
}

impl Connection {
    /// Opens a connection to `amqp://user:password@host:port/vhost`; every part but the scheme has a default
    /// (`guest`, `guest`, `localhost`, 5672, `/`). `amqps` is TLS, with port 5671, and needs the feature `tls`.
    ///
    /// # Errors
    /// [`Error::InvalidUri`], [`Error::Unreachable`], [`Error::AuthenticationRefused`], [`Error::VhostRefused`],
    /// [`Error::Configuration`] when the broker does not offer the authentication mechanism of the URI (PLAIN by default), or
    /// [`Error::TimedOut`] after 10 s. The first attempt is the only one, unless
    /// [`wait_for_broker`](ConnectionOptions::wait_for_broker) allows more; a connection that was open once is reopened for ever.
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
    /// As [`open`](Self::open): the last node's error, or the first one that trying again would not cure;
    /// [`Error::Configuration`] when there is no URI.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_any(uris: &[&str], options: ConnectionOptions) -> Result<Self, Error> {
        let endpoints = uris.iter().map(|uri| Endpoint::parse(uri)).collect::<Result<Vec<_>, _>>()?;
        let (opened, at) = open_first(&endpoints, &options).await?;
        Ok(Self::supervised(opened, endpoints, at, options))
    }

    fn supervised(opened: Opened, endpoints: Vec<Endpoint>, at: usize, options: ConnectionOptions) -> Self {
        let Opened { link, login } = opened;
        let link = Arc::new(link);
        let current = watch::Sender::new(Current::new(Arc::clone(&link)));
        let user = uri::common_user(&endpoints).filter(|_| options.credentials.is_none()).map(Arc::from);
        let supervisor = Supervisor { endpoints, at, options, current: current.clone(), unreadable: 0 };
        Self::new(current, Some(AbortOnDrop::spawn(supervisor.run(link, login))), user)
    }

    /// A connection to no broker, closed from the beginning: of a client whose servers are in its process.
    pub(crate) fn to_nowhere() -> Self {
        Self::new(watch::Sender::new(Current::closed(NOWHERE)), None, None)
    }

    fn new(current: watch::Sender<Current>, supervisor: Option<AbortOnDrop>, user: Option<Arc<str>>) -> Self {
        Self { shared: Arc::new(Shared { current, supervisor, user }) }
    }

    /// The user of the connection's login, whichever node it is open to; `None` when the URIs name several, or the broker takes it
    /// from a certificate.
    pub(crate) fn user(&self) -> Option<&str> {
        self.shared.user.as_deref()
    }

    /// The state now.
    pub fn state(&self) -> ConnectionState {
        self.shared.current.borrow().state.clone()
    }

    /// How often it was lost and opened again, and how long the broker has blocked it.
    pub fn stats(&self) -> ConnectionStats {
        self.shared.current.borrow().stats()
    }

    /// The host and port of the broker that it is, or was last, open to.
    pub(crate) fn address(&self) -> Option<Arc<Address>> {
        self.shared.current.borrow().link.as_ref()?.address().cloned()
    }

    /// The largest frame that both ends take; without a link the least that AMQP allows.
    pub(crate) fn frame_max_bytes(&self) -> usize {
        self.shared.current.borrow().link.as_ref().map_or(amqp::FRAME_MIN_BYTES, |link| link.frame_max_bytes())
    }

    /// Whether the broker has stopped reading from this connection.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        matches!(self.shared.current.borrow().state, ConnectionState::Blocked { .. })
    }

    /// Follows the state.
    pub fn states(&self) -> ConnectionStates {
        ConnectionStates::new(self.shared.current.subscribe())
    }

    /// Resolves when [`is_blocked`](Self::is_blocked) is false.
    pub(crate) async fn unblocked(&self) {
        // An error would say that the connection is dropped, but `self` is a handle of it.
        drop(self.states().wait_for(|state| !matches!(state, ConnectionState::Blocked { .. })).await);
    }

    /// Closes the connection for all that share it. Calls in flight end with
    /// [`CallError::Disconnected`](crate::CallError::Disconnected); a second close has no effect.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when it was lost before the broker confirmed the close.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection all the same, without waiting for the broker.
    pub async fn close(&self) -> Result<(), Error> {
        let mut link = None;
        self.shared.current.send_if_modified(|current| {
            if current.state.is_closed() {
                return false;
            }
            link = current.close(CLOSED_BY_US);
            true
        });
        if let Some(supervisor) = &self.shared.supervisor {
            supervisor.abort();
        }
        let Some(link) = link.filter(|link| link.is_connected()) else { return Ok(()) };
        within(CLOSE_TIMEOUT, "close the connection", link.close()).await
    }

    /// A channel of the current epoch, or of the next one while the connection is being reopened; never one of a link that
    /// is known to have ended.
    ///
    /// Waits without a limit: every caller has its own deadline.
    ///
    /// # Errors
    /// [`Error::Closed`] once the connection is closed for good; [`Error::Disconnected`], [`Error::Refused`] or
    /// [`Error::NoChannelLeft`] when the open connection does not open a channel.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        self.channel_and_epoch().await.map(|(channel, _)| channel)
    }

    /// A channel as [`channel`](Self::channel) opens it, and the number of its epoch.
    pub(crate) async fn channel_and_epoch(&self) -> Result<(Channel, u64), Error> {
        let mut current = self.shared.current.subscribe();
        loop {
            let (link, epoch) = {
                let usable =
                    current.wait_for(|current| current.state.is_closed() || current.usable_link().is_some()).await;
                let Ok(current) = usable else { return Err(Error::Closed { reason: CLOSED_BY_US.to_owned() }) };
                match (&current.state, current.usable_link()) {
                    (ConnectionState::Closed { reason }, _) => return Err(Error::Closed { reason: reason.clone() }),
                    (_, Some(link)) => (Arc::clone(link), current.epoch),
                    // It has ended between the two looks.
                    (_, None) => continue,
                }
            };
            let opened = link.channel().await;
            if link.is_connected() || matches!(opened, Err(Error::Refused { .. })) {
                return opened.map(|channel| (channel, epoch));
            }
        }
    }

    /// A channel as [`channel`](Self::channel) opens it, on which an exchange has been declared, and the number of its epoch. An exchange
    /// that exists needs no permission.
    pub(crate) async fn channel_with(&self, exchange: &amqp::ExchangeDeclaration) -> Result<(Channel, u64), Error> {
        let declared = async |is_passive| {
            let (channel, epoch) = self.channel_and_epoch().await?;
            channel.declare_exchange(exchange, is_passive).await?;
            Ok((channel, epoch))
        };
        match declared(true).await {
            Err(Error::Refused { reply_code: amqp::NOT_FOUND, .. }) => declared(false).await,
            declared => declared,
        }
    }

    /// A channel of that epoch.
    ///
    /// # Errors
    /// [`Error::Disconnected`] once the epoch has ended; otherwise as [`channel`](Self::channel).
    pub(crate) async fn channel_of(&self, epoch: u64) -> Result<Channel, Error> {
        let link =
            self.link_of(epoch).ok_or_else(|| Error::Disconnected { reason: "it has been reopened".to_owned() })?;
        link.channel().await
    }

    /// Whether the link of that epoch still lives.
    pub(crate) fn is_in(&self, epoch: u64) -> bool {
        self.link_of(epoch).is_some()
    }

    fn link_of(&self, epoch: u64) -> Option<Arc<Link>> {
        let current = self.shared.current.borrow();
        current.usable_link().filter(|_| current.epoch == epoch).map(Arc::clone)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Followers of the state keep the last value alive: they must not keep the socket open with it.
        let mut link = None;
        self.current.send_modify(|current| link = current.close("the last handle of the connection was dropped"));
    }
}

const CLOSED_BY_US: &str = "closed by the application";
const NOWHERE: &str = "the client has servers in its own process, and no broker";

/// A broker that does not answer `connection.close` is left behind after this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

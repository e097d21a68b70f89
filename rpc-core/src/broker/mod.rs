//! The bundled broker: an AMQP 0-9-1 server on TCP that clients of any language take for RabbitMQ.
//!
//! It starts in milliseconds, in a test, an example or a program of its own. It keeps everything in memory.
//!
//! ```text
//!  listener ──accept──► connection (reader) ──frames──► core (one lock a batch)
//!                              │                           │ output of any connection
//!                              └── writer ◄──── outbox ◄───┘ one wake-up, one write
//! ```
//!
//! `listener` and `connection` own the sockets; `core` is pure. The broker uses no code of clients and worker pools: they
//! meet on the socket.

mod accounts;
#[cfg(feature = "tls")]
mod common_name;
mod config;
mod connection;
mod core;
mod error;
mod faults;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inspect;
mod limits;
mod listener;
mod machine;
mod seats;
mod shared;
#[cfg(feature = "tls")]
mod tls;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::timeout;

#[cfg(feature = "cli")]
pub(crate) use self::core::defaults;
#[cfg(feature = "tls")]
pub use self::tls::TlsOptions;
use self::{accounts::Accounts, shared::Shared};
pub use self::{
    config::BrokerBuilder,
    core::{DeprecatedFeature, Deprecation, Profile},
    error::BrokerError,
    faults::{Faults, Restart},
    inspect::{BindingInfo, ConnectionInfo, ExchangeInfo, QueueInfo, VhostView},
};
use crate::task::AbortOnDrop;

/// A running broker.
///
/// Dropping it ends all connections at once. [`shutdown`](Self::shutdown) lets clients answer `connection.close` before.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rpc_core::{Connection, broker::Broker};
///
/// let broker = Broker::start().await?;
/// let connection = Connection::open(broker.uri()).await?;
/// connection.close().await?;
/// broker.shutdown().await;
/// # Ok(()) }
/// ```
pub struct Broker {
    uri: String,
    address: SocketAddr,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "always `None`"))]
    tls_address: Option<SocketAddr>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "always `None`"))]
    tls_uri: Option<String>,
    /// The passwords that the builder was given: the core keeps hashes.
    accounts: Box<Accounts>,
    shared: Arc<Shared>,
    /// `None` while the broker shuts down.
    listener: Option<AbortOnDrop>,
}

/// Shows no passwords.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tls_address, accounts, .. } = self;
        let mut shown = f.debug_struct("Broker");
        shown.field("address", address).field("tls_address", tls_address).field("accounts", accounts);
        shown.finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a broker with the default settings: on 127.0.0.1 with a port that the system chooses, with the user `guest`
    /// and the vhost `/`. It listens when this returns.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when no port is free.
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready starts nothing.
    pub async fn start() -> Result<Self, BrokerError> {
        Self::builder().start().await
    }

    /// The default settings, to be changed before [`start`](BrokerBuilder::start).
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// The URI of the vhost `/`, with the user `guest` and its password.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The URI of a user and a vhost, with names and password percent-encoded.
    ///
    /// The broker itself keeps hashes of passwords. This handle keeps those that its builder was given.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`] when the builder added no such user, or the broker has no such vhost.
    pub fn uri_for(&self, user: &str, vhost: &str) -> Result<String, BrokerError> {
        let password = self.password(user, vhost)?;
        Ok(accounts::uri("amqp", (user, password), self.address, vhost))
    }

    /// As [`uri_for`](Self::uri_for), with TLS. A user without a password logs in with a certificate, so its URI contains
    /// `auth_mechanism=external`.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`] as in [`uri_for`](Self::uri_for), or when the broker does not listen for TLS.
    #[cfg(feature = "tls")]
    pub fn tls_uri_for(&self, user: &str, vhost: &str) -> Result<String, BrokerError> {
        let address = self.tls_address.ok_or_else(|| {
            BrokerError::Configuration("the broker does not listen for TLS: set `tls` before it starts".to_owned())
        })?;
        let password = self.password(user, vhost)?;
        let uri = accounts::uri("amqps", (user, password), address, vhost);
        Ok(if password.is_empty() { uri + "?auth_mechanism=external" } else { uri })
    }

    /// As [`uri`](Self::uri), with TLS; `None` when the broker does not listen for TLS.
    #[cfg(feature = "tls")]
    pub fn tls_uri(&self) -> Option<&str> {
        self.tls_uri.as_deref()
    }

    /// The address on which it listens for TLS; `None` when it does not.
    #[cfg(feature = "tls")]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    fn password(&self, user: &str, vhost: &str) -> Result<&str, BrokerError> {
        let missing = || {
            BrokerError::Configuration(format!(
                "the builder of this broker added no user '{user}' or no vhost '{vhost}'"
            ))
        };
        self.accounts.password(user).filter(|_| self.shared.look(|core| core.has_vhost(vhost))).ok_or_else(missing)
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether messages, outboxes and declarations take so many bytes less than at most since this was true.
    #[cfg(feature = "cli")]
    pub(crate) fn takes_fall(&self, fall_bytes: usize) -> bool {
        self.shared.takes_fall(fall_bytes)
    }

    /// Injects faults, for tests of how clients react to them.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.shared))
    }

    /// Closes every connection with `connection.close` 320, and stops. A connection whose client does not answer within
    /// 1 s is ended.
    ///
    /// # Cancel safety
    /// Dropping the future early stops the broker as dropping the [`Broker`] does: connections that are not closed yet
    /// are ended.
    pub async fn shutdown(mut self) {
        self.shared.stop();
        if let Some(listener) = self.listener.take()
            && timeout(SHUTDOWN_TIMEOUT, listener.join()).await.is_err()
        {
            tracing::warn!(timeout = ?SHUTDOWN_TIMEOUT, "some clients did not answer connection.close in time");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

//! The bundled broker: an AMQP 0-9-1 server on TCP that clients of any language take for RabbitMQ.
//!
//! It starts in milliseconds inside a test, an example or a program of its own, and holds everything in memory.
//!
//! ```text
//!  listener ──accept──► connection (reader) ──frames──► core (one lock a batch)
//!                              │                           │ output of any connection
//!                              └── writer ◄──── outbox ◄───┘ one wake-up, one write
//! ```
//!
//! Sockets live in `listener.rs` and `connection.rs`; `core` is pure. The broker knows nothing of clients and worker
//! pools: they meet on the socket.

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
mod shared;
#[cfg(feature = "tls")]
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

#[cfg(feature = "cli")]
pub(crate) use self::core::defaults;
use self::shared::Shared;
#[cfg(feature = "tls")]
pub use self::tls::TlsOptions;
pub use self::{
    config::BrokerBuilder,
    error::BrokerError,
    faults::{Faults, Restart},
    inspect::{BindingInfo, ConnectionInfo, ExchangeInfo, QueueInfo, VhostView},
};

/// A running broker. Dropping it stops it.
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
#[derive(Debug)]
pub struct Broker {
    uri: String,
    address: SocketAddr,
    #[cfg(feature = "tls")]
    tls_address: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    tls_uri: Option<String>,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker on 127.0.0.1, on a port the system chooses, with the user guest and the vhost `/`.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when no port is to be had.
    pub async fn start() -> Result<Self, BrokerError> {
        Self::builder().start().await
    }

    /// A broker with other settings.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Where it listens, as a URI with user and password.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// As [`uri`](Self::uri), for another user or vhost; names and password are percent-encoded.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`] when there is no such user or vhost.
    pub fn uri_for(&self, user: &str, vhost: &str) -> Result<String, BrokerError> {
        let password = self.password(user, vhost)?;
        Ok(accounts::uri("amqp", (user, &password), self.address, vhost))
    }

    /// As [`uri_for`](Self::uri_for), with TLS. A user without a password logs in with its certificate: its URI says
    /// `auth_mechanism=external`.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`] when there is no such user or vhost, or no TLS.
    #[cfg(feature = "tls")]
    pub fn tls_uri_for(&self, user: &str, vhost: &str) -> Result<String, BrokerError> {
        let address = self.tls_address.ok_or_else(|| BrokerError::Configuration("the broker has no TLS".to_owned()))?;
        let password = self.password(user, vhost)?;
        let uri = accounts::uri("amqps", (user, &password), address, vhost);
        Ok(if password.is_empty() { uri + "?auth_mechanism=external" } else { uri })
    }

    /// Where it listens for TLS, as [`uri`](Self::uri); `None` when it does not.
    #[cfg(feature = "tls")]
    pub fn tls_uri(&self) -> Option<&str> {
        self.tls_uri.as_deref()
    }

    /// Where it listens for TLS.
    #[cfg(feature = "tls")]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    fn password(&self, user: &str, vhost: &str) -> Result<String, BrokerError> {
        let password = self.shared.with(|core, _| core.login(vhost, user).map(str::to_owned));
        password.ok_or_else(|| BrokerError::Configuration(format!("there is no user '{user}' or no vhost '{vhost}'")))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes things go wrong, for tests of what clients do about it.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.shared))
    }

    /// Closes every connection with `connection.close` 320, and stops. Clients that do not answer are cut off after a
    /// second.
    pub async fn shutdown(mut self) {
        self.shared.stop();
        if let Some(listener) = self.listener.take()
            && tokio::time::timeout(SHUTDOWN_TIMEOUT, listener).await.is_err()
        {
            tracing::warn!("some connections did not close in time");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.shared.stop();
            listener.abort();
        }
    }
}

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

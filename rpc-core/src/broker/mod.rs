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
mod config;
mod connection;
mod core;
mod listener;
mod shared;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

pub use self::config::{BrokerBuilder, BrokerError};
use self::shared::Shared;

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
    pub fn uri_for(&self, vhost: &str, user: &str) -> Result<String, BrokerError> {
        let password = self.shared.with(|core, _| core.login(vhost, user).map(str::to_owned));
        match password {
            Some(password) => Ok(accounts::uri("amqp", (user, &password), self.address, vhost)),
            None => Err(BrokerError::Configuration(format!("there is no user '{user}' or no vhost '{vhost}'"))),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

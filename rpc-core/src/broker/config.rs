//! How a broker is set up.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;

use super::{Broker, core::Rules, listener, shared::Shared};
use crate::wire::FRAME_MIN_SIZE;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Configuration(String),
}

/// Settings of a broker that is not started yet.
#[derive(Debug, Clone)]
#[must_use = "a broker starts with `start`"]
pub struct BrokerBuilder {
    address: SocketAddr,
    users: BTreeMap<String, String>,
    vhosts: Vec<String>,
    channel_max: u16,
    frame_max: u32,
    heartbeat: Duration,
    handshake_timeout: Duration,
    message_max_bytes: u64,
    connections_max: usize,
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            users: BTreeMap::from([("guest".to_owned(), "guest".to_owned())]),
            vhosts: vec!["/".to_owned()],
            channel_max: 2_047,
            frame_max: 131_072,
            heartbeat: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            message_max_bytes: 16 << 20,
            connections_max: 65_536,
        }
    }
}

impl BrokerBuilder {
    /// Where to listen. The default is 127.0.0.1 with a port the system chooses.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The port on 127.0.0.1. The default, 0, lets the system choose.
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// Adds a user, or changes its password. `guest` with password `guest` is there from the start.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.insert(name.into(), password.into());
        self
    }

    /// Adds a vhost. `/` is there from the start.
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.vhosts.contains(&name) {
            self.vhosts.push(name);
        }
        self
    }

    /// Channels a connection may open. The default is 2 047.
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels;
        self
    }

    /// The largest frame, in bytes. The default is 131 072, the least 4 096.
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes;
        self
    }

    /// The heartbeat offered to clients; a connection that is silent for two of them is closed. The default is 60 s;
    /// zero is none.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How long a client may take from connecting to `connection.open`. The default is 10 s.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// The largest message, in bytes. The default is 16 MiB.
    pub fn message_max_bytes(mut self, bytes: u64) -> Self {
        self.message_max_bytes = bytes;
        self
    }

    /// Connections at once; further ones are closed at once. The default is 65 536.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Starts listening.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when the address is taken or not to be had, [`BrokerError::Configuration`] when a limit
    /// is out of range.
    pub async fn start(self) -> Result<Broker, BrokerError> {
        if self.frame_max < FRAME_MIN_SIZE {
            let message = format!("frame_max {} is below AMQP's minimum of {FRAME_MIN_SIZE}", self.frame_max);
            return Err(BrokerError::Configuration(message));
        }
        if self.channel_max == 0 {
            return Err(BrokerError::Configuration("channel_max 0 leaves no channel to work on".to_owned()));
        }
        let bind = |source| BrokerError::Bind { address: self.address, source };
        let socket = TcpListener::bind(self.address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        let (user, password) = self
            .users
            .first_key_value()
            .map_or(("guest", "guest"), |(user, password)| (user.as_str(), password.as_str()));
        let (user, password) = match self.users.get("guest") {
            Some(password) => ("guest", password.as_str()),
            None => (user, password),
        };
        let uri = match (user, password) {
            ("guest", "guest") => format!("amqp://{address}"),
            (user, password) => format!("amqp://{user}:{password}@{address}"),
        };
        let rules = Rules {
            users: self
                .users
                .iter()
                .map(|(user, password)| (user.clone(), password.clone()))
                .collect::<HashMap<_, _>>(),
            vhosts: self.vhosts.clone(),
            channel_max: self.channel_max,
            frame_max: self.frame_max,
            heartbeat_s: u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX),
            message_max_bytes: self.message_max_bytes,
            connections_max: self.connections_max,
        };
        let shared = Arc::new(Shared::new(rules, self.handshake_timeout));
        let listener = tokio::spawn(listener::run(socket, Arc::clone(&shared)));
        tracing::info!(%address, "broker listening");
        Ok(Broker { uri, address, shared, listener: Some(listener) })
    }
}

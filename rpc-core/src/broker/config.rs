//! How a broker is set up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

#[cfg(feature = "tls")]
use super::TlsOptions;
use super::{
    Broker,
    accounts::{self, Accounts, PermissionSetting, TopicPermissionSetting},
    connection::Transport,
    core::{Limits, Rules, defaults},
    error::BrokerError,
    listener::{self, Door},
    machine::percent_of_memory,
    shared::Shared,
};
use crate::wire::{FRAME_MIN_SIZE, table::DEPTH_MAX};

/// Settings of a broker that is not started yet.
#[derive(Debug, Clone)]
#[must_use = "a broker starts with `start`"]
pub struct BrokerBuilder {
    address: SocketAddr,
    accounts: Accounts,
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) message_max_bytes: u64,
    pub(super) connections_max: usize,
    /// The default depends on the machine.
    pub(super) memory_high_watermark: Option<u64>,
    pub(super) limits: Limits,
    #[cfg(feature = "tls")]
    tls: Option<TlsOptions>,
    #[cfg(feature = "tls")]
    tls_address: SocketAddr,
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            accounts: Accounts::default(),
            channel_max: defaults::CHANNEL_MAX,
            frame_max: defaults::FRAME_MAX,
            heartbeat: Duration::from_secs(defaults::HEARTBEAT_S.into()),
            handshake_timeout: Duration::from_secs(defaults::HANDSHAKE_TIMEOUT_S.into()),
            message_max_bytes: defaults::MESSAGE_MAX_BYTES,
            connections_max: defaults::CONNECTIONS_MAX,
            memory_high_watermark: None,
            limits: Limits::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            tls_address: SocketAddr::from(([127, 0, 0, 1], 0)),
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
    ///
    /// A user may do everything on every vhost until [`permissions`](Self::permissions) says otherwise. One with an
    /// empty password cannot log in with it, only with a client certificate.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.accounts.add_user(name.into(), password.into());
        self
    }

    /// Sets a user's tags. Only RabbitMQ's `impersonator` means something here: such a user may send messages with
    /// somebody else's `user_id`.
    pub fn user_tags<T: Into<String>>(mut self, user: impl Into<String>, tags: impl IntoIterator<Item = T>) -> Self {
        self.accounts.set_tags(user.into(), tags.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a vhost. `/` is there from the start.
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        self.accounts.add_vhost(name.into());
        self
    }

    /// Says what a user may do on a vhost, as `rabbitmqctl set_permissions` does: each right is a regular expression
    /// that is searched for in the names of exchanges and queues (`amq.default` for the default exchange), and an empty
    /// one allows nothing. From then on the user may use those vhosts only for which this was called.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use rpc_core::{Connection, broker::Broker};
    ///
    /// let broker = Broker::builder()
    ///     .user("shop", "secret")
    ///     .permissions("shop", "/", "^rpc", "^(rpc|amq\\.default$)", "^rpc")
    ///     .start()
    ///     .await?;
    /// let connection = Connection::open(&broker.uri_for("shop", "/")?).await?;
    /// # connection.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn permissions(
        mut self,
        user: impl Into<String>,
        vhost: impl Into<String>,
        configure: impl Into<String>,
        write: impl Into<String>,
        read: impl Into<String>,
    ) -> Self {
        self.accounts.set_permissions(PermissionSetting {
            user: user.into(),
            vhost: vhost.into(),
            configure: configure.into(),
            write: write.into(),
            read: read.into(),
        });
        self
    }

    /// Limits the routing keys a user may publish with to a topic exchange (`write`) and bind from it with (`read`), as
    /// `rabbitmqctl set_topic_permissions` does. `{username}` and `{vhost}` in the patterns stand for the user's and the
    /// vhost's name.
    pub fn topic_permissions(
        mut self,
        user: impl Into<String>,
        vhost: impl Into<String>,
        exchange: impl Into<String>,
        write: impl Into<String>,
        read: impl Into<String>,
    ) -> Self {
        self.accounts.set_topic_permissions(TopicPermissionSetting {
            user: user.into(),
            vhost: vhost.into(),
            exchange: exchange.into(),
            write: write.into(),
            read: read.into(),
        });
        self
    }

    /// The users who may connect from this machine only. The default is guest alone, as in RabbitMQ.
    pub fn loopback_users<T: Into<String>>(mut self, users: impl IntoIterator<Item = T>) -> Self {
        self.accounts.set_loopback_users(users.into_iter().map(Into::into).collect());
        self
    }

    /// Listens for TLS as well, on an address of its own. The default is not to.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// Where to listen for TLS. The default is 127.0.0.1 with a port the system chooses.
    #[cfg(feature = "tls")]
    pub fn tls_address(mut self, address: SocketAddr) -> Self {
        self.tls_address = address;
        self
    }

    /// Starts listening.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when the address is taken or not to be had, [`BrokerError::Configuration`] when a limit
    /// is out of range, a permission is no regular expression, or it names a user or a vhost that is not there, or
    /// a certificate or key cannot be read.
    pub async fn start(self) -> Result<Broker, BrokerError> {
        if self.frame_max < FRAME_MIN_SIZE {
            let message = format!("frame_max {} is below AMQP's minimum of {FRAME_MIN_SIZE}", self.frame_max);
            return Err(BrokerError::Configuration(message));
        }
        if self.channel_max == 0 {
            return Err(BrokerError::Configuration("channel_max 0 leaves no channel to work on".to_owned()));
        }
        if !(1..=DEPTH_MAX).contains(&self.limits.table_depth_max) {
            let message = format!("table_depth_max {} is not between 1 and {DEPTH_MAX}", self.limits.table_depth_max);
            return Err(BrokerError::Configuration(message));
        }
        let users = self.accounts.users()?;
        #[cfg(feature = "tls")]
        let tls = self.tls.as_ref().map(TlsOptions::acceptor).transpose()?;
        let (socket, address) = bind(self.address).await?;
        let doors = vec![Door { socket, transport: Transport::Plain }];
        #[cfg(feature = "tls")]
        let (doors, tls_address) = match tls {
            Some(acceptor) => {
                let (socket, address) = bind(self.tls_address).await?;
                tracing::info!(%address, "broker listening for TLS");
                let secure = Door { socket, transport: Transport::Tls(acceptor) };
                (doors.into_iter().chain([secure]).collect(), Some(address))
            }
            None => (doors, None),
        };
        let uri = accounts::uri("amqp", self.accounts.first_user(), address, "/");
        let default_watermark = || percent_of_memory(defaults::MEMORY_HIGH_WATERMARK_PERCENT);
        let memory_high_watermark = self.memory_high_watermark.unwrap_or_else(default_watermark);
        let rules = Rules {
            users,
            vhosts: self.accounts.vhosts.clone(),
            channel_max: self.channel_max,
            frame_max: self.frame_max,
            heartbeat_s: u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX),
            message_max_bytes: self.message_max_bytes,
            connections_max: self.connections_max,
            limits: Limits { memory_high_watermark, ..self.limits },
        };
        let shared = Arc::new(Shared::new(rules, self.handshake_timeout));
        let listener = tokio::spawn(listener::run(doors, Arc::clone(&shared)));
        tracing::info!(%address, "broker listening");
        Ok(Broker {
            uri,
            address,
            #[cfg(feature = "tls")]
            tls_address,
            #[cfg(feature = "tls")]
            tls_uri: tls_address.map(|address| accounts::uri("amqps", self.accounts.first_user(), address, "/")),
            shared,
            listener: Some(listener),
        })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let refused = |source| BrokerError::Bind { address, source };
    let socket = TcpListener::bind(address).await.map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    Ok((socket, address))
}

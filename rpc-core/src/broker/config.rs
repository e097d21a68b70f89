//! The settings of a broker, and its start.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

#[cfg(feature = "tls")]
use super::TlsOptions;
use super::{
    Broker,
    accounts::{self, Accounts, PermissionSetting, TopicPermissionSetting},
    connection::Transport,
    core::{Limits, Profile, Rules, User, defaults},
    error::BrokerError,
    listener::{self, Door},
    machine::percent_of_memory,
    shared::Shared,
};
use crate::{
    task::AbortOnDrop,
    wire::{FRAME_MIN_SIZE, table::DEPTH_MAX},
};

/// The settings of a broker that is not started yet.
#[derive(Debug, Clone)]
#[must_use = "a broker starts with `start`"]
pub struct BrokerBuilder {
    address: SocketAddr,
    accounts: Accounts,
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat: Duration,
    pub(super) handshake_timeout: Duration,
    profile: Profile,
    warn_as: Option<Profile>,
    /// `None` is the default of the profile.
    pub(super) message_max_bytes: Option<u64>,
    pub(super) connections_max: usize,
    /// `None` is a share of `connections_max`.
    pub(super) handshakes_max: Option<usize>,
    /// `None` is a share of the memory of the machine.
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
            profile: Profile::default(),
            warn_as: None,
            message_max_bytes: None,
            connections_max: defaults::CONNECTIONS_MAX,
            handshakes_max: None,
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
    /// The address to listen on. The default is 127.0.0.1 with a port that the system chooses.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The port on 127.0.0.1. The default, 0, lets the system choose.
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// The version of RabbitMQ that the broker passes for. The default is [`Profile::RabbitMq3_10`].
    ///
    /// It decides what the broker answers, refuses and writes into headers, and the version in its server properties.
    /// [The guide lists the differences](crate::guide::broker#profiles).
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Counts and logs what clients do that another version of RabbitMQ refuses or does otherwise. By default the broker
    /// does not.
    ///
    /// It changes no answer. [`Broker::deprecations`] has the counts; the first use by each client, user and queue is
    /// logged as a warning. At most 10 000 of these are kept.
    pub fn warn_as(mut self, profile: Profile) -> Self {
        self.warn_as = Some(profile);
        self
    }

    /// Adds a user, or changes its password. The user `guest` with the password `guest` is predefined.
    ///
    /// A user may do everything on every vhost until [`permissions`](Self::permissions) are set. A user with an empty
    /// password can log in with a client certificate only.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.accounts.add_user(name.into(), password.into());
        self
    }

    /// Sets a user's tags. By default a user has none.
    ///
    /// RabbitMQ's `impersonator` is the only tag with an effect: such a user may publish messages with the `user_id` of
    /// another user.
    pub fn user_tags<T: Into<String>>(mut self, user: impl Into<String>, tags: impl IntoIterator<Item = T>) -> Self {
        self.accounts.set_tags(user.into(), tags.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a vhost. The vhost `/` is predefined.
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        self.accounts.add_vhost(name.into());
        self
    }

    /// Sets a user's permissions on a vhost, as `rabbitmqctl set_permissions` does. By default a user may do everything
    /// on every vhost.
    ///
    /// Each right is a regular expression that is searched for in the names of exchanges and queues (`amq.default` for
    /// the default exchange). An empty one allows nothing. A user with permissions can use only the vhosts that they
    /// name.
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

    /// Limits the routing keys with which a user may publish to a topic exchange (`write`) and bind from it (`read`), as
    /// `rabbitmqctl set_topic_permissions` does. By default all routing keys are allowed.
    ///
    /// `{username}` and `{vhost}` in the patterns stand for the names of the user and the vhost.
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

    /// The users that may connect from this machine only. The default is `guest` alone, as in RabbitMQ.
    pub fn loopback_users<T: Into<String>>(mut self, users: impl IntoIterator<Item = T>) -> Self {
        self.accounts.set_loopback_users(users.into_iter().map(Into::into).collect());
        self
    }

    /// Listens for TLS as well, on an address of its own. By default the broker does not.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// The address to listen on for TLS. The default is 127.0.0.1 with a port that the system chooses.
    #[cfg(feature = "tls")]
    pub fn tls_address(mut self, address: SocketAddr) -> Self {
        self.tls_address = address;
        self
    }

    /// Starts a broker with these settings. It listens when this returns.
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when the broker cannot listen on an address. [`BrokerError::Configuration`] when a limit is
    /// out of range, when permissions contain an invalid regular expression or name an unknown user or vhost, or when a
    /// certificate or key cannot be read.
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready starts nothing: it closes the sockets that it has opened.
    pub async fn start(self) -> Result<Broker, BrokerError> {
        self.check_limits()?;
        let users = self.accounts.users()?;
        let Listening { doors, address, tls_address } = self.listen().await?;
        let user = self.accounts.first_user();
        let uri = accounts::uri("amqp", user, address, "/");
        let tls_uri = tls_address.map(|address| accounts::uri("amqps", user, address, "/"));
        let handshakes_max = self.handshakes_max.unwrap_or_else(|| defaults::handshakes_max(self.connections_max));
        let shared = Arc::new(Shared::new(self.rules(users), self.handshake_timeout, handshakes_max));
        // No `.await` from here on: a task of a future that is dropped would have no owner.
        let listener = Some(AbortOnDrop::spawn(listener::run(doors, Arc::clone(&shared))));
        tracing::info!(%address, "broker listening");
        if let Some(address) = tls_address {
            tracing::info!(%address, "broker listening for TLS");
        }
        Ok(Broker { uri, address, tls_address, tls_uri, accounts: Box::new(self.accounts), shared, listener })
    }

    fn check_limits(&self) -> Result<(), BrokerError> {
        let Self { frame_max, channel_max, limits: Limits { table_depth_max, .. }, .. } = *self;
        let refuse = |message: String| Err(BrokerError::Configuration(message));
        let frame_min = self.profile.facts().frame_min;
        if frame_max < FRAME_MIN_SIZE {
            return refuse(format!("frame_max {frame_max} is below AMQP's minimum of {FRAME_MIN_SIZE}"));
        }
        if frame_max < frame_min {
            return refuse(format!("frame_max {frame_max} is below {frame_min}, the minimum of the profile"));
        }
        if channel_max == 0 {
            return refuse("channel_max 0 leaves no channel to work on".to_owned());
        }
        if !(1..=DEPTH_MAX).contains(&table_depth_max) {
            return refuse(format!("table_depth_max {table_depth_max} is not between 1 and {DEPTH_MAX}"));
        }
        Ok(())
    }

    async fn listen(&self) -> Result<Listening, BrokerError> {
        #[cfg(feature = "tls")]
        let acceptor = self.tls.as_ref().map(TlsOptions::acceptor).transpose()?;
        let (socket, address) = bind(self.address).await?;
        let listening =
            Listening { doors: vec![Door { socket, transport: Transport::Plain }], address, tls_address: None };
        #[cfg(feature = "tls")]
        if let Some(acceptor) = acceptor {
            let (socket, address) = bind(self.tls_address).await?;
            let mut listening = listening;
            listening.doors.push(Door { socket, transport: Transport::Tls(acceptor) });
            listening.tls_address = Some(address);
            return Ok(listening);
        }
        Ok(listening)
    }

    fn rules(&self, users: HashMap<String, User>) -> Rules {
        let default_watermark = || percent_of_memory(defaults::MEMORY_HIGH_WATERMARK_PERCENT);
        let memory_high_watermark = self.memory_high_watermark.unwrap_or_else(default_watermark);
        let facts = self.profile.facts();
        Rules {
            facts,
            warn_as: self.warn_as.filter(|profile| *profile != Profile::default()).map(Profile::facts),
            users,
            vhosts: self.accounts.vhosts.clone(),
            channel_max: self.channel_max,
            frame_max: self.frame_max,
            heartbeat_s: u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX),
            message_max_bytes: self.message_max_bytes.unwrap_or(facts.message_max_bytes),
            connections_max: self.connections_max,
            limits: Limits { memory_high_watermark, ..self.limits },
        }
    }
}

/// The open sockets of a broker.
struct Listening {
    doors: Vec<Door>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let refused = |source| BrokerError::Bind { address, source };
    let socket = TcpListener::bind(address).await.map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    Ok((socket, address))
}

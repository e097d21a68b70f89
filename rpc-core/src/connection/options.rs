//! The options of a connection.

use std::time::Duration;

#[cfg(feature = "tls")]
use super::tls::ClientTlsOptions;
use super::{
    backoff::Backoff,
    credentials::{CredentialsProvider, Provider},
};

/// How a connection is opened, and reopened. Made by [`default`](Self::default), changed by its setters:
///
/// ```
/// # use std::time::Duration;
/// use rpc_core::ConnectionOptions;
///
/// let options = ConnectionOptions::default().name("billing").reconnect_delay_max(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionOptions {
    pub(crate) name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) wait_for_broker: Duration,
    pub(super) wait_for_access: bool,
    pub(crate) reconnect_delay_initial: Duration,
    pub(crate) reconnect_delay_max: Duration,
    pub(crate) reconnect_attempts: Option<u32>,
    pub(crate) transport: Transport,
    pub(super) credentials: Option<Provider>,
    pub(crate) outbox_max_bytes: usize,
    #[cfg(feature = "tls")]
    pub(crate) tls: ClientTlsOptions,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            name: process_name(),
            connect_timeout: Duration::from_secs(10),
            wait_for_broker: Duration::ZERO,
            wait_for_access: false,
            reconnect_delay_initial: Duration::from_millis(100),
            reconnect_delay_max: Duration::from_secs(30),
            reconnect_attempts: None,
            transport: Transport::default(),
            credentials: None,
            outbox_max_bytes: 8 * 1_024 * 1_024,
            #[cfg(feature = "tls")]
            tls: ClientTlsOptions::default(),
        }
    }
}

impl ConnectionOptions {
    /// The delays of attempts to open, from the first one.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.reconnect_delay_initial, self.reconnect_delay_max)
    }

    /// The name that the broker's tools show for the connection. The default is the program's name and process id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long one attempt to open may take, from name resolution to `connection.open-ok`. The default is 10 s; the parameter
    /// `connection_timeout` of a URI, in milliseconds, can only shorten it, and 0 there is no limit of its own.
    #[must_use]
    pub const fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// How long [`Connection::open`](crate::Connection::open) and its siblings try again while no broker is there, so that a process may start before
    /// it. The default is zero: one attempt at each node.
    ///
    /// A node that cannot be reached, does not answer in time, or closes the connection before it is open is tried again, with the
    /// delays of a reconnect. A refused login or vhost ends the wait at once, unless [`wait_for_access`](Self::wait_for_access) says otherwise,
    /// and so does whatever else trying again does not cure.
    #[must_use]
    pub const fn wait_for_broker(mut self, limit: Duration) -> Self {
        self.wait_for_broker = limit;
        self
    }

    /// Whether the [wait for a broker](Self::wait_for_broker) goes on over a refused login or vhost, and over a limit of connections: where a user,
    /// a vhost or a permission is made while the program starts. The default is false. A wrong password then costs the whole wait, and
    /// one line in the broker's log for each attempt.
    #[must_use]
    pub const fn wait_for_access(mut self, waits: bool) -> Self {
        self.wait_for_access = waits;
        self
    }

    /// Upper bound of the first reconnect delay, which is random. The bound doubles after each failure, up to
    /// [`reconnect_delay_max`](Self::reconnect_delay_max), and begins anew after a connection that was of use: one that is opened
    /// and lost before a channel works counts as a failure. The default is 100 ms; less than 10 ms counts as 10 ms.
    #[must_use]
    pub const fn reconnect_delay_initial(mut self, reconnect_delay_initial: Duration) -> Self {
        self.reconnect_delay_initial = reconnect_delay_initial;
        self
    }

    /// Upper bound of every reconnect delay. The default is 30 s; less than 10 ms counts as 10 ms.
    #[must_use]
    pub const fn reconnect_delay_max(mut self, reconnect_delay_max: Duration) -> Self {
        self.reconnect_delay_max = reconnect_delay_max;
        self
    }

    /// How many attempts to reopen may fail before the connection counts as closed. The default, `None`, is no limit;
    /// with 0 a lost connection is closed at once.
    #[must_use]
    pub const fn reconnect_attempts(mut self, reconnect_attempts: Option<u32>) -> Self {
        self.reconnect_attempts = reconnect_attempts;
        self
    }

    /// Bytes that may be queued on the connection before further requests wait in their callers, for a broker that reads more slowly
    /// than calls are made, or not at all. A call that waits until its deadline ends as a timeout of the stage
    /// [`Blocked`](crate::TimeoutStage::Blocked): its request was not sent. As many bytes may be on their way to the socket. Requests
    /// whose calls have ended leave the queue unsent (not over lapin, nor where the broker confirms them).
    ///
    /// The default is 8 MiB; less than 64 KiB counts as 64 KiB, more than 1 GiB as 1 GiB.
    #[must_use]
    pub fn outbox_max_bytes(mut self, outbox_max_bytes: usize) -> Self {
        self.outbox_max_bytes = outbox_max_bytes.clamp(64 * 1_024, 1_024 * 1_024 * 1_024);
        self
    }

    /// Asks for the user and the password of each login, in place of those of the URI. The default is to take the URI's.
    ///
    /// Names of queues do not contain the user then, and no `user_id` is sent: it may be another one tomorrow.
    #[must_use]
    pub fn credentials(mut self, provider: impl CredentialsProvider) -> Self {
        self.credentials = Some(Provider::new(provider));
        self
    }

    /// The AMQP client under the connection. The default is [`Transport::Native`]; the parameter `transport=native` or
    /// `transport=lapin` of a URI overrides it.
    #[must_use]
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The certificates an `amqps` connection trusts, and the one it presents. The default is the system's CAs, and none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTlsOptions) -> Self {
        self.tls = tls;
        self
    }
}

/// The AMQP client under a connection. Nothing else differs: both are tested with the same suite.
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
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Transport {
    /// The client of this crate, the default: one task for each connection, in the runtime that opened it.
    ///
    /// On a single-threaded runtime a handler that computes for long keeps the task from answering heartbeats: mark such
    /// methods `#[rpc(blocking)]`.
    #[default]
    Native,
    /// The crate lapin, with a thread of its own for each connection, at a fraction of the speed. Needs the feature
    /// `lapin`, which is on by default.
    ///
    /// lapin decodes the headers of a message recursively, before this crate can check them: headers that nest some 8 000
    /// levels deep exhaust the stack and end the process. Do not use it where you do not trust every publisher.
    Lapin,
}

/// The heartbeat that a connection asks for when its URI names none. A broker that says nothing for two heartbeats counts as
/// lost: RabbitMQ's own 60 s would let calls wait for two minutes on a node that hangs.
pub(super) const HEARTBEAT_S: u16 = 10;

fn process_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_stem()).map(|name| name.to_string_lossy());
    format!("{} [{}]", name.as_deref().unwrap_or("rpc-core"), std::process::id())
}

//! The state of a running broker, for assertions in tests.

use std::{
    pin::pin,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use tokio::time::timeout;

pub use super::core::{BindingInfo, ConnectionInfo, ExchangeInfo, QueueInfo};
use super::{
    Broker,
    core::{Core, Deprecation},
    shared::Shared,
};

/// The queues, exchanges and bindings of one vhost of a [`Broker`].
#[derive(Debug, Clone, Copy)]
pub struct VhostView<'a> {
    broker: &'a Broker,
    name: &'a str,
}

impl Broker {
    /// A queue of the vhost `/` at this moment; `None` when it does not exist.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "inspected")]
    /// # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// assert!(broker.queue("rpc.inspected").is_none());
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// AdderClient::new(&connection).add(1, 2).await?;
    /// let queue = broker.queue("rpc.inspected").ok_or("no queue")?;
    /// assert!(queue.durable && queue.ready == 0 && queue.consumers == 1);
    /// # Ok(()) }
    /// ```
    pub fn queue(&self, name: &str) -> Option<QueueInfo> {
        self.vhost("/").queue(name)
    }

    /// The queues of the vhost `/`, sorted by name.
    pub fn queues(&self) -> Vec<QueueInfo> {
        self.vhost("/").queues()
    }

    /// The exchanges of the vhost `/`, the predeclared ones included, sorted by name.
    pub fn exchanges(&self) -> Vec<ExchangeInfo> {
        self.vhost("/").exchanges()
    }

    /// The bindings of the vhost `/` in the order of their declaration, without those of the default exchange.
    pub fn bindings(&self) -> Vec<BindingInfo> {
        self.vhost("/").bindings()
    }

    /// The uses, so far, of what the version in [`BrokerBuilder::warn_as`](super::BrokerBuilder::warn_as) refuses or does
    /// otherwise; empty without that. Sorted by feature, client, user and queue.
    pub fn deprecations(&self) -> Vec<Deprecation> {
        self.shared.look(Core::deprecations)
    }

    /// The open connections of all vhosts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, ConnectionOptions, broker::Broker};
    /// let broker = Broker::start().await?;
    /// let options = ConnectionOptions::default().name("billing");
    /// let connection = Connection::open_with(broker.uri(), options).await?;
    /// let open = broker.connections();
    /// assert_eq!((open[0].name.as_str(), open[0].user.as_str()), ("billing", "guest"));
    /// # Ok(()) }
    /// ```
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.with(|core, _| core.connections())
    }

    /// A view of one vhost. A vhost that does not exist is empty.
    pub fn vhost<'a>(&'a self, name: &'a str) -> VhostView<'a> {
        VhostView { broker: self, name }
    }

    /// Waits until no queue of any vhost has a ready or unacknowledged message, and all output is written to the sockets.
    /// Returns `false` when that is not so within `limit`.
    ///
    /// # Cancel safety
    /// Dropping the future early changes nothing.
    ///
    /// # Example
    /// Messages expire by tokio's clock, so a test can advance it instead of waiting:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use lapin::{BasicProperties, Connection, ConnectionProperties, options::*, types::FieldTable};
    /// use rpc_core::broker::Broker;
    ///
    /// let broker = Broker::builder().heartbeat(Duration::ZERO).start().await?;
    /// let connection = Connection::connect(broker.uri(), ConnectionProperties::default()).await?;
    /// let channel = connection.create_channel().await?;
    /// channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    /// let minute = BasicProperties::default().with_expiration("60000".into());
    /// channel.basic_publish("".into(), "q".into(), BasicPublishOptions::default(), b"late", minute).await?;
    /// // The broker answers after it has handled the publish.
    /// channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    ///
    /// tokio::time::pause();
    /// tokio::time::advance(Duration::from_secs(59)).await;
    /// assert_eq!(broker.queue("q").map(|queue| queue.ready), Some(1));
    /// tokio::time::advance(Duration::from_secs(2)).await;
    /// assert!(broker.wait_until_idle(Duration::from_secs(1)).await);
    /// # Ok(()) }
    /// ```
    pub async fn wait_until_idle(&self, limit: Duration) -> bool {
        timeout(limit, idle(&self.shared)).await.is_ok()
    }
}

impl VhostView<'_> {
    /// As [`Broker::queue`].
    pub fn queue(&self, name: &str) -> Option<QueueInfo> {
        self.queues().into_iter().find(|queue| queue.name == name)
    }

    /// As [`Broker::queues`].
    pub fn queues(&self) -> Vec<QueueInfo> {
        self.broker.shared.with(|core, _| core.queues(self.name))
    }

    /// As [`Broker::exchanges`].
    pub fn exchanges(&self) -> Vec<ExchangeInfo> {
        self.broker.shared.with(|core, _| core.exchanges(self.name))
    }

    /// As [`Broker::bindings`].
    pub fn bindings(&self) -> Vec<BindingInfo> {
        self.broker.shared.with(|core, _| core.bindings(self.name))
    }
}

async fn idle(shared: &Shared) {
    // Counts down even if the future is dropped.
    struct Watching<'a>(&'a Shared);
    impl Drop for Watching<'_> {
        fn drop(&mut self) {
            self.0.watchers.fetch_sub(1, Ordering::AcqRel);
        }
    }
    shared.watchers.fetch_add(1, Ordering::AcqRel);
    let _watching = Watching(shared);
    loop {
        let mut changed = pin!(shared.changed.notified());
        // Enabled before the check, so that no change between the check and the await is missed.
        changed.as_mut().enable();
        fence(Ordering::SeqCst);
        if shared.look(|core| core.is_idle()) {
            return;
        }
        changed.await;
    }
}

//! Faults on request, for tests of how programs react to failures.

use std::{sync::Arc, time::Duration};

use super::{core::ConfirmTiming, shared::Shared};

/// Injects faults into a [`Broker`](super::Broker). Clones act on the same broker. They may outlive it, and then have no
/// effect.
///
/// Every fault takes effect before its method returns. "The next" publish or delivery is the next one on any
/// connection; two calls are for the next two.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

/// The state that a broker keeps in [`Faults::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// Durable exchanges and queues, the bindings between them, and the persistent messages in those queues.
    KeepDurable,
    /// Nothing.
    LoseEverything,
}

impl Faults {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Ends all connections as if their sockets had failed, without `connection.close`. Returns how many.
    ///
    /// When this returns, the broker has requeued the messages that the clients had not acknowledged, and deleted their
    /// exclusive queues. The clients may reconnect at once; call [`refuse_connections`](Self::refuse_connections) before
    /// to prevent that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, ConnectionState, broker::Broker};
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let mut states = connection.states();
    /// assert_eq!(broker.faults().drop_connections(), 1);
    /// states.wait_for(|state| matches!(state, ConnectionState::Reconnecting { .. })).await?;
    /// states.wait_for(|state| *state == ConnectionState::Connected).await?;
    /// # Ok(()) }
    /// ```
    pub fn drop_connections(&self) -> usize {
        self.drop_those(None)
    }

    /// As [`drop_connections`](Self::drop_connections), for the connections with this name
    /// ([`ConnectionOptions::name`](crate::ConnectionOptions::name)) or this peer address (`host:port`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, ConnectionOptions, broker::Broker};
    /// let broker = Broker::start().await?;
    /// let options = ConnectionOptions::default().name("worker-1");
    /// let worker = Connection::open_with(broker.uri(), options).await?;
    /// assert_eq!(broker.faults().drop_connection("worker-1"), 1);
    /// assert_eq!(broker.faults().drop_connection("worker-2"), 0);
    /// # Ok(()) }
    /// ```
    pub fn drop_connection(&self, name: &str) -> usize {
        self.drop_those(Some(name))
    }

    fn drop_those(&self, name: Option<&str>) -> usize {
        self.shared.cut(|core, now| {
            let ids = core.find_connections(name);
            core.cut(&ids, now);
            ids
        })
    }

    /// Closes every new connection at once, until [`allow_connections`](Self::allow_connections).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, broker::Broker};
    /// let broker = Broker::start().await?;
    /// broker.faults().refuse_connections();
    /// assert!(Connection::open(broker.uri()).await.is_err());
    /// broker.faults().allow_connections();
    /// Connection::open(broker.uri()).await?;
    /// # Ok(()) }
    /// ```
    pub fn refuse_connections(&self) {
        self.shared.refuse(true);
    }

    /// Accepts new connections again.
    pub fn allow_connections(&self) {
        self.shared.refuse(false);
    }

    /// Delivers no messages from queues, until [`resume_deliveries`](Self::resume_deliveries). `basic.get` and direct
    /// replies still work.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "pausing")]
    /// # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// let client = AdderClient::new(&connection);
    /// broker.faults().pause_deliveries();
    /// let late = client.add(1, 2).timeout(Duration::from_millis(100)).await;
    /// assert_eq!(late.unwrap_err().code(), "timeout");
    /// broker.faults().resume_deliveries();
    /// assert_eq!(client.add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn pause_deliveries(&self) {
        self.shared.with(|core, _| core.pause_deliveries());
    }

    /// Delivers messages from queues again.
    pub fn resume_deliveries(&self) {
        self.shared.with(|core, now| core.resume_deliveries(now));
    }

    /// Delivers the next message twice: a copy of it, without the `redelivered` flag, follows it in its queue.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, broker::Broker};
    /// let broker = Broker::start().await?;
    /// broker.faults().duplicate_next_delivery();
    /// // A worker executes the next request twice. The caller receives two replies and drops the second one.
    /// # Ok(()) }
    /// ```
    pub fn duplicate_next_delivery(&self) {
        self.shared.with(|core, _| core.duplicate_delivery());
    }

    /// Delays publisher confirms, until [`release_confirms`](Self::release_confirms). Messages are queued and delivered
    /// without a delay.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::{Duration, Instant};
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "delaying")]
    /// # trait Log { #[rpc(oneway)] async fn note(&self, text: String); }
    /// # struct Nowhere;
    /// # impl Log for Nowhere { async fn note(&self, text: String) {} }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(LogServer::new(Nowhere)).start().await?;
    /// broker.faults().delay_confirms(Duration::from_millis(200));
    /// let started = Instant::now();
    /// LogClient::new(&connection).note("a one-way call ends with its confirm".to_owned()).await?;
    /// assert!(started.elapsed() >= Duration::from_millis(200));
    /// # Ok(()) }
    /// ```
    pub fn delay_confirms(&self, delay: Duration) {
        self.shared.with(|core, now| core.time_confirms(ConfirmTiming::After(delay), now));
    }

    /// Withholds publisher confirms, until [`release_confirms`](Self::release_confirms). Messages are still queued and
    /// delivered.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use rpc_core::{CallError, Connection, TimeoutStage, WorkerPool, broker::Broker, service};
    /// # #[service(name = "withholding")]
    /// # trait Log { #[rpc(oneway)] async fn note(&self, text: String); }
    /// # struct Nowhere;
    /// # impl Log for Nowhere { async fn note(&self, text: String) {} }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(LogServer::new(Nowhere)).start().await?;
    /// broker.faults().withhold_confirms();
    /// let client = LogClient::new(&connection);
    /// let unconfirmed = client.note("lost?".to_owned()).timeout(Duration::from_millis(200)).await;
    /// assert!(matches!(unconfirmed, Err(CallError::Timeout { stage: TimeoutStage::Unconfirmed, .. })));
    /// broker.faults().release_confirms();
    /// client.note("kept".to_owned()).await?;
    /// # Ok(()) }
    /// ```
    pub fn withhold_confirms(&self) {
        self.shared.with(|core, now| core.time_confirms(ConfirmTiming::Never, now));
    }

    /// Sends the withheld and delayed confirms, and later ones without a delay.
    pub fn release_confirms(&self) {
        self.shared.with(|core, now| core.time_confirms(ConfirmTiming::AtOnce, now));
    }

    /// Returns the next mandatory publish (312 `NO_ROUTE`) as if no queue were bound.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "returning")]
    /// # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// let client = AdderClient::new(&connection);
    /// broker.faults().return_next_publish();
    /// assert_eq!(client.add(1, 2).await.unwrap_err().code(), "no_such_service");
    /// assert_eq!(client.add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn return_next_publish(&self) {
        self.shared.with(|core, _| core.return_publish());
    }

    /// Refuses the next publish on a channel in confirm mode (`basic.nack`). The broker drops the message.
    ///
    /// A client takes that for a full queue if its channel has reached the queue before. Otherwise it sends the request again, once, on
    /// another channel.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "nacking")]
    /// # trait Log { #[rpc(oneway)] async fn note(&self, text: String); }
    /// # struct Nowhere;
    /// # impl Log for Nowhere { async fn note(&self, text: String) {} }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(LogServer::new(Nowhere)).start().await?;
    /// let client = LogClient::new(&connection);
    /// client.note("one".to_owned()).await?;
    /// broker.faults().nack_next_publish();
    /// assert_eq!(client.note("two".to_owned()).await.unwrap_err().code(), "overloaded");
    /// # Ok(()) }
    /// ```
    pub fn nack_next_publish(&self) {
        self.shared.with(|core, _| core.nack_publish());
    }

    /// Blocks publishers, as RabbitMQ does when it is low on memory, until
    /// [`unblock_connections`](Self::unblock_connections).
    ///
    /// A connection that has published, or publishes later, receives `connection.blocked` if it supports it. The broker
    /// handles none of its further frames.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use rpc_core::{CallError, Connection, ConnectionState, TimeoutStage, WorkerPool, broker::Broker, service};
    /// # #[service(name = "blocking")]
    /// # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// let client = AdderClient::new(&connection);
    /// assert_eq!(client.add(1, 2).await?, 3);
    /// let mut states = connection.states();
    /// broker.faults().block_connections("low on memory");
    /// states.wait_for(|state| matches!(state, ConnectionState::Blocked { .. })).await?;
    /// let unsent = client.add(1, 2).timeout(Duration::from_millis(100)).await;
    /// assert!(matches!(unsent, Err(CallError::Timeout { stage: TimeoutStage::Blocked, .. })));
    /// broker.faults().unblock_connections();
    /// assert_eq!(client.add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn block_connections(&self, reason: &str) {
        self.shared.with(|core, _| core.block(reason));
    }

    /// Handles the frames of blocked connections again, and sends them `connection.unblocked`.
    pub fn unblock_connections(&self) {
        self.shared.with(|core, _| core.unblock());
        self.shared.wake_readers();
    }

    /// Cancels the consumers of a queue, as RabbitMQ does when the queue's node fails, and notifies their clients
    /// (`basic.cancel`). Returns how many. An auto-delete queue is deleted; other queues remain.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, WorkerPool, broker::Broker, service};
    /// # #[service(name = "cancelling")]
    /// # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// assert_eq!(broker.faults().cancel_consumers("rpc.cancelling"), 1);
    /// // The pool consumes again by itself.
    /// assert_eq!(AdderClient::new(&connection).add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn cancel_consumers(&self, queue: &str) -> usize {
        self.shared.with(|core, now| core.cancel_consumers(|name, _| name == queue, now))
    }

    /// As [`cancel_consumers`](Self::cancel_consumers), for the consumers with this tag on any queue.
    pub fn cancel_consumer(&self, consumer_tag: &str) -> usize {
        self.shared.with(|core, now| core.cancel_consumers(|_, tag| tag == consumer_tag.as_bytes(), now))
    }

    /// Simulates a restart of the broker: ends all connections without `connection.close`, and deletes transient queues,
    /// exchanges and messages, or all of them. Returns how many connections it ended.
    ///
    /// The broker listens all the time. To simulate an outage, call
    /// [`refuse_connections`](Self::refuse_connections) before.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, WorkerPool, broker::{Broker, Restart}, service};
    /// # #[service(name = "restarting")]
    /// # trait Adder { #[rpc(idempotent)] async fn add(&self, a: u64, b: u64) -> u64; }
    /// # struct Cpu;
    /// # impl Adder for Cpu { async fn add(&self, a: u64, b: u64) -> u64 { a + b } }
    /// let broker = Broker::start().await?;
    /// let connection = Connection::open(broker.uri()).await?;
    /// let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
    /// let client = AdderClient::new(&connection);
    /// assert_eq!(broker.faults().restart(Restart::KeepDurable), 1);
    /// // The request waits in its durable queue until the pool has reconnected.
    /// assert_eq!(client.add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn restart(&self, restart: Restart) -> usize {
        self.shared.cut(|core, now| {
            let ids = core.find_connections(None);
            core.restart(restart == Restart::KeepDurable, now);
            ids
        })
    }
}

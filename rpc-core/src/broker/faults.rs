//! Faults on request, for tests of what programs do when things go wrong.

use std::{sync::Arc, time::Duration};

use super::{core::ConfirmTiming, shared::Shared};

/// Makes a [`Broker`](super::Broker) misbehave. Clones act on the same broker, and outlive it harmlessly.
///
/// Every fault takes effect before its method returns. "The next" publish or delivery is whichever comes next on any
/// connection; asking twice is for the next two.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

/// What a broker still has after [`Faults::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// Durable exchanges and queues, the bindings between them, and the persistent messages in those queues.
    KeepDurable,
    /// Nothing: it is as new.
    LoseEverything,
}

impl Faults {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Ends all connections as if their sockets had failed: without a word. Returns how many.
    ///
    /// When this returns, what the clients had not acknowledged is in the queues again, and their exclusive queues are
    /// gone. They may connect again at once; [`refuse_connections`](Self::refuse_connections) before keeps them out.
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

    /// As [`drop_connections`](Self::drop_connections), for those with this name
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

    /// Closes every new connection as it comes, until [`allow_connections`](Self::allow_connections).
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

    /// Takes new connections again.
    pub fn allow_connections(&self) {
        self.shared.refuse(false);
    }

    /// Leaves messages in their queues, until [`resume_deliveries`](Self::resume_deliveries). `basic.get` and direct
    /// replies go on.
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

    /// Delivers again.
    pub fn resume_deliveries(&self) {
        self.shared.with(|core, now| core.resume_deliveries(now));
    }

    /// Delivers the next message twice: another copy of it stands behind it in its queue, without the `redelivered` flag.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rpc_core::{Connection, broker::Broker};
    /// let broker = Broker::start().await?;
    /// broker.faults().duplicate_next_delivery();
    /// // The next request is executed twice, and its caller gets two replies: one is dropped.
    /// # Ok(()) }
    /// ```
    pub fn duplicate_next_delivery(&self) {
        self.shared.with(|core, _| core.duplicate_delivery());
    }

    /// Sends publisher confirms so much later. Messages are queued and delivered as ever.
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

    /// Keeps publisher confirms back, until [`release_confirms`](Self::release_confirms). Messages are queued and
    /// delivered as ever.
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

    /// Sends the confirms that were kept back, and from now on all of them at once.
    pub fn release_confirms(&self) {
        self.shared.with(|core, now| core.time_confirms(ConfirmTiming::AtOnce, now));
    }

    /// Returns the next mandatory publish (312 `NO_ROUTE`) as if nothing were bound there.
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

    /// Refuses the next publish on a channel in confirm mode (`basic.nack`): it goes nowhere.
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
    /// broker.faults().nack_next_publish();
    /// assert_eq!(client.note("one".to_owned()).await.unwrap_err().code(), "overloaded");
    /// client.note("two".to_owned()).await?;
    /// # Ok(()) }
    /// ```
    pub fn nack_next_publish(&self) {
        self.shared.with(|core, _| core.nack_publish());
    }

    /// Blocks those who publish, as RabbitMQ does when it is short of memory: connections that have published, and others
    /// as soon as they do, are sent `connection.blocked` if they can be, and nothing more they send is handled.
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

    /// Handles again what everybody sends, and says so (`connection.unblocked`).
    pub fn unblock_connections(&self) {
        self.shared.with(|core, _| core.unblock());
        self.shared.wake_readers();
    }

    /// Takes the consumers of a queue away, as when the queue's node fails over, and tells their clients
    /// (`basic.cancel`). Returns how many. The queue stays, unless it is an auto-delete queue.
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
    /// // The pool consumes anew by itself.
    /// assert_eq!(AdderClient::new(&connection).add(1, 2).await?, 3);
    /// # Ok(()) }
    /// ```
    pub fn cancel_consumers(&self, queue: &str) -> usize {
        self.shared.with(|core, now| core.cancel_consumers(|name, _| name == queue, now))
    }

    /// As [`cancel_consumers`](Self::cancel_consumers), for those with this consumer tag.
    pub fn cancel_consumer(&self, consumer_tag: &str) -> usize {
        self.shared.with(|core, now| core.cancel_consumers(|_, tag| tag == consumer_tag.as_bytes(), now))
    }

    /// Does to clients what a restart of the broker does: ends all connections without a word, and loses what is
    /// transient, or everything. It listens all the while: for a broker that is away for some time,
    /// [`refuse_connections`](Self::refuse_connections) before. Returns how many connections were ended.
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
    /// // The request waits in its durable queue for the pool to come back.
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

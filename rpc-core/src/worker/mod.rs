//! Worker pools: queues are declared, consumed with a prefetch bound, and every request is answered before its ack.
//!
//! ```text
//!  WorkerPool ──start──► PoolHandle
//!                          ├─ lane: rpc.fibonacci        channel, consumer, replier
//!                          └─ lane: rpc.fibonacci.slow
//! ```
//!
//! It knows services only as [`Dispatch`]; who calls, and how, is not its business.

mod cancel;
mod consume;
mod dead_callers;
mod dedupe;
mod dispatch;
mod handlers;
mod pace;
mod poison;
mod reply;
mod returns;
mod shutdown;
mod slots;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tracing::Instrument;
use uuid::Uuid;

pub(crate) use self::dispatch::inherited_deadline;
use self::{
    cancel::{Control, ControlTask},
    consume::{Intake, Lane, Phase},
    dead_callers::TellTask,
    dedupe::Dedupe,
    slots::Slots,
};
pub use self::{
    dedupe::DedupeOptions,
    dispatch::{Dispatch, Handler, Request, Response, blocking},
    poison::Redelivered,
    shutdown::{PoolHandle, ShutdownReport},
};
use crate::{
    connection::{
        Channel, Connection,
        transport::{HeaderValue, QueueDeclaration},
    },
    error::Error,
    service::ServiceDescriptor,
    topology,
};

/// When a request is acknowledged to the broker.
///
/// The costs are those of an empty handler, 64 calls in flight, beside `AfterReply` on the same machine in the same run. Runs
/// differ by a tenth and more: `cargo bench -p rpc-tests --bench calls -- acks`. A handler that does something hides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AckPolicy {
    /// After its reply, on the same channel: a worker that dies at any point loses nothing, and the request runs
    /// again elsewhere. The default.
    #[default]
    AfterReply,
    /// After the broker has confirmed the reply: even a broker that dies between taking the reply and routing it
    /// loses nothing. Each batch of replies costs one more round trip before its requests are acknowledged: 0.75 to
    /// 0.85 × the calls a second on the bundled broker and 1.25 × the median latency; on RabbitMQ 0.9 to 1.1 × the calls.
    AfterConfirmedReply,
    /// Before the handler runs: at most once. A worker that dies loses what it was doing, and its callers time out. As many
    /// calls a second and the same latency as `AfterReply`: it is no way to more speed.
    BeforeHandler,
}

/// The kind of queue that holds a service's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum QueueKind {
    /// A durable classic queue. The default.
    #[default]
    Classic,
    /// A quorum queue, replicated over a RabbitMQ cluster. It counts deliveries, see
    /// [`delivery_limit`](WorkerPool::delivery_limit).
    Quorum,
}

/// Counts of what a pool has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Requests delivered by the broker.
    pub received: u64,
    /// Replies sent.
    pub answered: u64,
    /// Requests dropped unexecuted because their caller had given up.
    pub expired: u64,
    /// Handlers stopped because their caller gave up.
    pub cancelled: u64,
    /// Requests given back to their queue unexecuted.
    pub requeued: u64,
    /// Requests moved to `rpc.<service>.dead`.
    pub dead_lettered: u64,
    /// Requests refused because they would have waited here longer than their caller.
    pub shed: u64,
    /// Replies that came back, because the caller had gone and its reply queue with it. Counted with a delay of a
    /// second. The client library logs each as a warning: `lapin::returned_messages=error` in a filter silences it.
    pub unheard: u64,
    /// Requests answered from memory ([`WorkerPool::dedupe`]).
    pub deduplicated: u64,
}

/// A pool of handlers for one or more services: a builder, until [`start`](Self::start).
#[must_use = "a pool serves after `start`"]
pub struct WorkerPool {
    connection: Connection,
    services: Vec<Arc<dyn Dispatch>>,
    concurrency: usize,
    prefetch_count: Option<u16>,
    ack_policy: AckPolicy,
    queue_kind: QueueKind,
    max_priority: Option<u8>,
    delivery_limit: Option<u32>,
    redelivered: Redelivered,
    dedupe: Option<DedupeOptions>,
}

impl WorkerPool {
    /// A pool that takes its requests over `connection`.
    pub fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            services: Vec::new(),
            concurrency: DEFAULT_CONCURRENCY,
            prefetch_count: None,
            ack_policy: AckPolicy::default(),
            queue_kind: QueueKind::default(),
            max_priority: None,
            delivery_limit: None,
            redelivered: Redelivered::default(),
            dedupe: None,
        }
    }

    /// Adds a service. Several share the pool's handlers.
    pub fn serve(mut self, service: impl Dispatch) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// How many handlers run at once, over all services. The default is 16.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// How many requests each queue's consumer holds unacknowledged: running, and waiting here. The default is the
    /// concurrency, so that nothing waits here that another worker could run. A larger one hides the round trip
    /// for very short handlers.
    pub fn prefetch(mut self, prefetch_count: u16) -> Self {
        self.prefetch_count = Some(prefetch_count);
        self
    }

    /// When requests are acknowledged. The default is [`AckPolicy::AfterReply`].
    pub fn ack_policy(mut self, ack_policy: AckPolicy) -> Self {
        self.ack_policy = ack_policy;
        self
    }

    /// The kind of the service queues. The default is [`QueueKind::Classic`].
    pub fn queue_kind(mut self, queue_kind: QueueKind) -> Self {
        self.queue_kind = queue_kind;
        self
    }

    /// Declares the service queues with `x-max-priority`, so that calls with a higher
    /// [`priority`](crate::Call::priority) overtake. Off by default; classic queues only.
    pub fn max_priority(mut self, max_priority: u8) -> Self {
        self.max_priority = Some(max_priority);
        self
    }

    /// How often a request may lose its worker before it is not executed any more: it goes to the queue
    /// `rpc.<service>.dead`, and its caller gets [`CallError::Abandoned`](crate::CallError::Abandoned). Quorum queues
    /// only: classic ones do not count. The default is 20, as in RabbitMQ 4.
    ///
    /// The queue is declared with that `x-delivery-limit`, so every worker of a service has to say the same.
    pub fn delivery_limit(mut self, deliveries: u32) -> Self {
        self.delivery_limit = Some(deliveries);
        self
    }

    /// What becomes of requests that an earlier worker may have executed, when their method is not
    /// `#[rpc(idempotent)]`. The default is [`Redelivered::Execute`].
    pub fn redelivered(mut self, policy: Redelivered) -> Self {
        self.redelivered = policy;
        self
    }

    /// Remembers answers, and gives them again to requests that come again. The default is to remember nothing: it
    /// costs every request two allocations and a copy of its answer.
    pub fn dedupe(mut self, options: DedupeOptions) -> Self {
        self.dedupe = Some(options);
        self
    }

    /// Declares the exchange, the queues and their bindings, and starts serving.
    ///
    /// # Errors
    /// [`Error::Configuration`] when nothing is served, a service is served twice or a number is zero;
    /// [`Error::Refused`] when the broker refuses a declaration, for example because the queue exists with other
    /// arguments (its words name both sides); [`Error::Disconnected`]; [`Error::TimedOut`] when a queue is not ready
    /// within 30 s. Later losses are repaired by the pool itself, for ever.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started; queues that were declared stay.
    pub async fn start(self) -> Result<PoolHandle, Error> {
        let prefetch_count = self.check()?;
        let counters = Arc::new(Counters::default());
        let lanes: usize = self.services.iter().map(|service| service.descriptor().method_queues().len()).sum();
        // Where the prefetch counts allow no more handlers than that anyway, nobody need count them.
        let slots =
            (lanes * usize::from(prefetch_count) > self.concurrency).then(|| Arc::new(Slots::new(self.concurrency)));
        let (phase, _) = watch::channel(Phase::Serving);
        let mut handle = PoolHandle::new(phase, Arc::clone(&counters));
        let names = self.services.iter().map(|service| service.descriptor().name).collect();
        let mut control = Control::new(self.connection.clone(), names);
        // Before the first request is taken, so that no cancel of one is missed.
        let heard = within_start_limit("hear cancels", control.open()).await?;
        for service in &self.services {
            let descriptor = service.descriptor();
            for method_queue in descriptor.method_queues() {
                let source = self.source(service, method_queue, prefetch_count);
                let operation = format!("start serving '{}'", descriptor.name);
                let intake = within_start_limit(&operation, source.open()).await?;
                if let Some(letters) = within_start_limit(&operation, source.open_letters()).await? {
                    handle.tell(TellTask::spawn(source.clone(), letters, Arc::clone(&counters)));
                }
                let lane = Lane {
                    source,
                    service: Arc::clone(service),
                    slots: slots.clone(),
                    dedupe: self.dedupe.map(|options| Arc::new(Dedupe::new(options))),
                    counters: Arc::clone(&counters),
                };
                let span = tracing::info_span!("worker", queue = intake.queue);
                handle.spawn(consume::run(lane, intake, control.lane(), handle.phase()).instrument(span));
            }
            tracing::info!(service = descriptor.name, prefetch_count, concurrency = self.concurrency, "serving");
        }
        handle.hear(ControlTask::spawn(control, heard));
        Ok(handle)
    }

    fn check(&self) -> Result<u16, Error> {
        let refuse = |message: String| Err(Error::Configuration(message));
        if self.services.is_empty() {
            return refuse("the pool serves nothing: add a service with `.serve(FibonacciServer::new(…))`".to_owned());
        }
        if self.concurrency == 0 {
            return refuse("concurrency 0 runs no handler: use at least 1".to_owned());
        }
        if self.queue_kind == QueueKind::Quorum && self.max_priority.is_some() {
            return refuse("quorum queues have no x-max-priority: use classic ones, or leave it out".to_owned());
        }
        if self.queue_kind == QueueKind::Classic && self.delivery_limit.is_some() {
            return refuse(
                "classic queues count no deliveries: use `.queue_kind(QueueKind::Quorum)`, or leave delivery_limit out"
                    .to_owned(),
            );
        }
        let mut names: Vec<_> = self.services.iter().map(|service| service.descriptor().name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("service '{}' is served twice by one pool", twice[0]));
        }
        match self.prefetch_count {
            Some(0) => refuse("prefetch 0 means no bound at all: use at least 1".to_owned()),
            Some(prefetch_count) => Ok(prefetch_count),
            None => Ok(u16::try_from(self.concurrency).unwrap_or(u16::MAX)),
        }
    }

    fn source(&self, service: &Arc<dyn Dispatch>, method_queue: Option<&'static str>, prefetch_count: u16) -> Source {
        let is_quorum = self.queue_kind == QueueKind::Quorum;
        let delivery_limit = is_quorum.then(|| self.delivery_limit.unwrap_or(poison::DEFAULT_DELIVERY_LIMIT));
        let mut arguments = kind_arguments(is_quorum);
        if let Some(max_length) = service.descriptor().max_length {
            arguments.push(("x-max-length", HeaderValue::from(max_length)));
            // The default would drop the oldest request without a word.
            arguments.push(("x-overflow", HeaderValue::from("reject-publish")));
        }
        if let Some(limit) = delivery_limit {
            arguments.push(("x-delivery-limit", HeaderValue::from(limit)));
            arguments.push(("x-dead-letter-exchange", HeaderValue::from(topology::DEAD_EXCHANGE)));
        }
        if let Some(max_priority) = self.max_priority {
            arguments.push(("x-max-priority", HeaderValue::from(u32::from(max_priority))));
        }
        Source {
            connection: self.connection.clone(),
            descriptor: service.descriptor(),
            method_queue,
            prefetch_count,
            ack_policy: self.ack_policy,
            is_quorum,
            delivery_limit,
            redelivered: self.redelivered,
            arguments,
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|service| service.descriptor().name).collect();
        f.debug_struct("WorkerPool")
            .field("services", &services)
            .field("concurrency", &self.concurrency)
            .field("prefetch_count", &self.prefetch_count)
            .field("ack_policy", &self.ack_policy)
            .field("queue_kind", &self.queue_kind)
            .finish_non_exhaustive()
    }
}

async fn within_start_limit<T>(operation: &str, opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(START_TIMEOUT, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::TimedOut { operation: operation.to_owned(), limit: START_TIMEOUT }),
    }
}

/// Where a lane's requests come from, and how to open it, again and again.
#[derive(Clone)]
struct Source {
    connection: Connection,
    descriptor: &'static ServiceDescriptor,
    method_queue: Option<&'static str>,
    prefetch_count: u16,
    ack_policy: AckPolicy,
    is_quorum: bool,
    /// Of quorum queues.
    delivery_limit: Option<u32>,
    redelivered: Redelivered,
    arguments: Vec<(&'static str, HeaderValue)>,
}

impl Source {
    /// Declares the queue and starts its consumer, on a channel of its own.
    async fn open(&self) -> Result<Intake, Error> {
        let channel = self.connection.channel().await?;
        let queue = match self.descriptor.queue {
            Some(queue) => self.declare_bare(&channel, queue).await?,
            None => self.declare(&channel).await?,
        };
        self.prepare_dead_letters(&channel, &queue).await?;
        if self.ack_policy == AckPolicy::AfterConfirmedReply {
            channel.confirm_select().await?;
        }
        // Before consuming: the only bound on what the client library buffers.
        channel.qos(self.prefetch_count).await?;
        let consumer_tag = format!("{queue}.{}", Uuid::new_v4());
        let consumer = channel.consume(&queue, &consumer_tag, false).await?;
        Ok(Intake { queue, consumer_tag, channel, consumer })
    }

    fn queue_name(&self) -> String {
        match self.descriptor.queue {
            Some(queue) => queue.to_owned(),
            None => topology::service_queue(self.descriptor.name, self.method_queue),
        }
    }

    /// Declares a service queue and binds it.
    async fn declare(&self, channel: &Channel) -> Result<String, Error> {
        let service = self.descriptor.name;
        channel.declare_request_exchanges().await?;
        let queue = self.queue_name();
        self.declare_durable(channel, &queue, &self.arguments).await?;
        for method in self.descriptor.methods.iter().filter(|method| method.queue == self.method_queue) {
            for name in std::iter::once(&method.name).chain(method.aliases) {
                let key = topology::binding_key(service, self.method_queue, name);
                channel.bind_queue(&queue, topology::EXCHANGE, &key).await?;
            }
        }
        let other = topology::other_binding_key(service, self.method_queue);
        channel.bind_queue(&queue, topology::OTHER_EXCHANGE, &other).await?;
        Ok(queue)
    }

    /// The queue of the bare profile belongs to whoever declared it first, often a program in another language: it
    /// is used as it is. The default exchange binds it already.
    async fn declare_bare(&self, channel: &Channel, queue: &str) -> Result<String, Error> {
        if !self.connection.channel().await?.queue_exists(queue).await? {
            self.declare_durable(channel, queue, &self.arguments).await?;
        }
        Ok(queue.to_owned())
    }

    async fn declare_durable(
        &self,
        channel: &Channel,
        name: &str,
        arguments: &[(&'static str, HeaderValue)],
    ) -> Result<(), Error> {
        let queue = QueueDeclaration { name, durable: true, exclusive: false, auto_delete: false, arguments };
        channel.declare_queue(queue).await
    }
}

fn kind_arguments(is_quorum: bool) -> Vec<(&'static str, HeaderValue)> {
    if is_quorum { vec![("x-queue-type", HeaderValue::from("quorum"))] } else { Vec::new() }
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    answered: AtomicU64,
    expired: AtomicU64,
    cancelled: AtomicU64,
    requeued: AtomicU64,
    dead_lettered: AtomicU64,
    deduplicated: AtomicU64,
    shed: AtomicU64,
    unheard: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn take_back(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    fn stats(&self) -> PoolStats {
        PoolStats {
            received: self.received.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            requeued: self.requeued.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            unheard: self.unheard.load(Ordering::Relaxed),
            deduplicated: self.deduplicated.load(Ordering::Relaxed),
        }
    }
}

const DEFAULT_CONCURRENCY: usize = 16;

/// For declaring one queue and consuming from it.
const START_TIMEOUT: Duration = Duration::from_secs(30);

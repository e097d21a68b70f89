//! The builder of a pool: what it serves and how, until `start`.

mod check;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tracing::Instrument;

use super::{
    cancel::Control,
    caution::Caution,
    consume, dead_callers,
    dedupe::{DedupeOptions, Remembering, StoreOptions},
    discovery::Discovery,
    dispatch::Dispatch,
    handle::PoolHandle,
    lane::{Lane, Phase},
    layers::{Layered, Parts},
    poison,
    policy::{AckPolicy, DeadLetterOptions, QueueKind, RedeliveryPolicy, RedeliveryRules},
    source::{Source, kind_arguments},
    stats::Counters,
};
use crate::{
    connection::{Connection, amqp::HeaderValue, within},
    error::Error,
    forward::Forwarding,
    layer::{Layers, RpcLayer},
    nesting::Room,
    service::ServiceDescriptor,
    slots::Slots,
    stats::ServiceCounts,
    task::AbortOnDrop,
    topology,
    users::Users,
};

/// A pool of handlers for one or more services: a builder, until [`start`](Self::start).
///
/// # Where handlers run
/// A handler begins in a task of its own. When a method has answered many times in a row (32) at the first poll of its future,
/// within some microseconds, the pool calls it *quick*: from then on its handlers are polled once in the task that receives the
/// queue's requests, and get a task only if that poll does not end them. A handler that computes for about a millisecond there
/// ends the privilege of its method at once, a few slower ones end it soon. With [`dedupe`](Self::dedupe), or where the
/// [`prefetch`](Self::prefetch) counts of all the pool's queues together exceed its [`concurrency`](Self::concurrency), every
/// handler has a task.
///
/// A handler notices this in three ways: `tokio::task::id()` and task-locals of the program may be those of the receiving
/// task; a call that blocks its thread also delays the requests behind it on that queue, once, as it delays other tasks of
/// that thread; and `tokio::task::yield_now` or any other wait moves it into a task. Deadlines, cancels, panics, the order of
/// reply and ack, and the budget that nested calls inherit are the same in both places. [`inline(false)`](Self::inline) gives
/// every handler a task.
#[must_use = "a pool serves after `start`"]
pub struct WorkerPool {
    connection: Connection,
    services: Vec<Served>,
    /// Of all services, the outermost first.
    layers: Option<Arc<Layers>>,
    concurrency: usize,
    prefetch_count: Option<u16>,
    ack_policy: AckPolicy,
    queue_kind: QueueKind,
    max_priority: Option<u8>,
    delivery_limit: Option<u32>,
    redelivery: RedeliveryPolicy,
    dead_letters: DeadLetterOptions,
    dedupe: Option<Remembering>,
    /// The methods whose answers are not remembered, as `service.method`.
    dedupe_exempt: Vec<String>,
    is_inline: bool,
    users: Option<Arc<[String]>>,
    sends_user_id: bool,
    forwarded_headers: Vec<Cow<'static, str>>,
    has_times: bool,
}

/// The parts that all lanes share.
#[derive(Clone, Copy)]
struct Pool<'a> {
    slots: &'a Arc<Slots>,
    counters: &'a Arc<Counters>,
}

/// A service of a pool.
struct Served {
    service: Arc<dyn Dispatch>,
    /// Of this service alone.
    layers: Option<Arc<Layers>>,
}

impl Served {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        self.service.descriptor()
    }
}

impl WorkerPool {
    /// A pool that takes its requests over `connection`.
    pub fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            services: Vec::new(),
            layers: None,
            concurrency: DEFAULT_CONCURRENCY,
            prefetch_count: None,
            ack_policy: AckPolicy::default(),
            queue_kind: QueueKind::default(),
            max_priority: None,
            delivery_limit: None,
            redelivery: RedeliveryPolicy::default(),
            dead_letters: DeadLetterOptions::default(),
            dedupe: None,
            dedupe_exempt: Vec::new(),
            is_inline: true,
            users: None,
            sends_user_id: false,
            forwarded_headers: Forwarding::default_names(),
            has_times: false,
        }
    }

    /// Adds a service. Several share the pool's handlers.
    pub fn serve(mut self, service: impl Dispatch) -> Self {
        self.services.push(Served { service: Arc::new(service), layers: None });
        self
    }

    /// Adds a service whose requests also pass through `layer`, inside of the [pool's layers](Self::layer). A
    /// `tower::ServiceBuilder` makes one layer of several.
    pub fn serve_with(mut self, service: impl Dispatch, layer: impl RpcLayer) -> Self {
        let layers = Some(Arc::new(Layers::with(None, layer)));
        self.services.push(Served { service: Arc::new(service), layers });
        self
    }

    /// Passes the requests of all services through `layer`; the first one that is added is the outermost.
    ///
    /// A layer sees a request when its handler would begin: it has not expired, no cancel has come, and it has a slot, which it holds
    /// while a layer is not ready. With [`dedupe`](Self::dedupe) a request that is answered from memory passes through the layers,
    /// too. See the guide's chapter on [layers](crate::guide::layers).
    pub fn layer(mut self, layer: impl RpcLayer) -> Self {
        self.layers = Some(Arc::new(Layers::with(self.layers.as_deref(), layer)));
        self
    }

    /// How many handlers run at once, over all services. The default is 16.
    ///
    /// A handler that waits for a call of its own, of any service, does not count: it leaves its slot, and needs a free one to go on.
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

    /// How often a request may lose its worker before it is not executed any more: it is moved to the queue
    /// `rpc.<service>.dead`, and its caller gets [`CallError::Abandoned`](crate::CallError::Abandoned). Quorum queues
    /// only: classic ones do not count. The default is 20, as in RabbitMQ 4.
    ///
    /// The queue is declared with that `x-delivery-limit`, so all workers of a service must set the same limit.
    pub fn delivery_limit(mut self, deliveries: u32) -> Self {
        self.delivery_limit = Some(deliveries);
        self
    }

    /// How the pool treats requests that an earlier worker may have executed, when their method is not
    /// `#[rpc(idempotent)]`. The default is [`RedeliveryPolicy::Execute`].
    pub fn redelivery_policy(mut self, policy: RedeliveryPolicy) -> Self {
        self.redelivery = policy;
        self
    }

    /// The bounds of the queue `rpc.<service>.dead`. All pools of a service must use the same ones. The default is
    /// 10 000 letters, 256 MiB and 14 days.
    pub fn dead_letters(mut self, options: DeadLetterOptions) -> Self {
        self.dead_letters = options;
        self
    }

    /// Remembers answers, and repeats them when a request arrives again. The default is to remember nothing: it
    /// costs every request two allocations and a copy of its answer.
    pub fn dedupe(mut self, options: DedupeOptions) -> Self {
        self.dedupe = Some(Remembering::Locally(options));
        self
    }

    /// Remembers answers in a store that several pools share, in several processes: a request that is sent to two of them is executed
    /// once. It takes the place of [`dedupe`](Self::dedupe). See the guide's chapter on [once-only execution](crate::guide::once).
    pub fn dedupe_store(mut self, options: StoreOptions) -> Self {
        self.dedupe = Some(Remembering::In(options));
        self
    }

    /// Does not remember the answers of these methods, each named `service.method`: each of their requests is executed. Needed for those
    /// that are marked `#[rpc(hedge)]`.
    pub fn dedupe_except(mut self, methods: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.dedupe_exempt.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Whether handlers of quick methods may run where requests are received, instead of in a task each. The default is
    /// true; [where handlers run](Self#where-handlers-run) says what a handler notices. With `false` every handler has a task
    /// of its own, which costs a call about as much as the rest of the worker does.
    pub fn inline(mut self, is_inline: bool) -> Self {
        self.is_inline = is_inline;
        self
    }

    /// Whether [`PoolHandle::stats`] has the median and the 99th percentile of the time that the handlers of each method take
    /// ([`LatencyStats`](crate::LatencyStats)). The default is false: two looks at the clock for each request, and 4 KiB for each method.
    pub fn stats(mut self, has_times: bool) -> Self {
        self.has_times = has_times;
        self
    }

    /// Serves these users alone: callers that send their name
    /// ([`ClientOptions::send_user_id`](crate::ClientOptions::send_user_id)), which the broker has checked. A request of another
    /// user, or of none, is not executed: it is counted ([`PoolStats::forbidden`](crate::PoolStats::forbidden)), logged, and answered
    /// with the code `forbidden`; a one-way request has no answer, and is not dead-lettered.
    ///
    /// The default is to serve all whose permissions let them send a request. A handler's own calls come from the user of that
    /// worker's connection.
    pub fn users(mut self, users: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.users = Some(users.into_iter().map(Into::into).collect());
        self
    }

    /// Sends the user of the connection's login as the `user_id` of replies, for callers that take those of certain users alone
    /// ([`ClientOptions::reply_users`](crate::ClientOptions::reply_users)). The default is false. The connection's URIs must
    /// name one user, and the broker must not take another one from a certificate.
    pub fn send_user_id(mut self, sends_user_id: bool) -> Self {
        self.sends_user_id = sends_user_id;
        self
    }

    /// The headers of a request that its handler's calls carry on, in this order: those made in the handler, in a task of
    /// [`rpc_core::spawn`](crate::spawn), and in layers. The default is `traceparent`, `tracestate` and `baggage`, so that calls
    /// behind a handler belong to its caller's trace; an empty list forwards none.
    ///
    /// A header that such a call sets itself wins, and then `tracestate` is not added to another `traceparent`. Headers that would
    /// make the request's properties exceed one frame are dropped, the last ones first, and counted
    /// ([`PoolStats::headers_dropped`](crate::PoolStats::headers_dropped)). See the guide's chapter on
    /// [traces](crate::guide::traces).
    pub fn forward_headers(mut self, names: impl IntoIterator<Item = impl Into<Cow<'static, str>>>) -> Self {
        self.forwarded_headers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Declares the exchange, the queues and their bindings, and starts serving.
    ///
    /// # Errors
    /// [`Error::Configuration`] when nothing is served, a service is served twice, a number is zero, a header that is to be
    /// [forwarded](Self::forward_headers) is one of the framework's (`rpc-…`) or of the broker's, or
    /// [`send_user_id`](Self::send_user_id) has no user to send;
    /// [`Error::Refused`] when the broker refuses a declaration, for example because the queue exists with other
    /// arguments (its words name both sides); [`Error::Disconnected`]; [`Error::TimedOut`] when a queue is not ready
    /// within 30 s. A method that the broker does not answer within 10 s is tried again on another channel. For its control queue, in
    /// which cancels arrive, the pool waits 2 s, and then serves without it until it is there. The pool repairs later losses by
    /// itself, for ever.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started; queues that were declared stay.
    pub async fn start(self) -> Result<PoolHandle, Error> {
        let prefetch_count = self.check()?;
        let forwarding = Arc::new(Forwarding::new(self.forwarded_headers.iter().cloned()));
        let counts = self.services.iter().map(|service| ServiceCounts::new(service.descriptor(), self.has_times));
        let counts: Vec<_> = counts.map(Arc::new).collect();
        let counters = Arc::new(Counters::new(counts.clone(), self.connection.states(), forwarding));
        let (phase, _) = watch::channel(Phase::Serving);
        let mut handle = PoolHandle::new(phase, Arc::clone(&counters));
        let services = self.services.iter().map(Served::descriptor).collect();
        let discovery = Discovery::new(services, self.known_users(), Arc::clone(&counters), handle.phase());
        let mut control = Control::new(self.connection.clone(), discovery);
        let slots = Arc::new(Slots::new(self.concurrency));
        let mut lanes = Vec::new();
        for (service, counts) in self.services.iter().zip(&counts) {
            for source in self.sources(service, prefetch_count) {
                let pool = Pool { slots: &slots, counters: &counters };
                lanes.push((self.lane(service, source, pool, counts), control.lane()));
            }
        }
        let (control, opened) = control.spawn();
        handle.own_control(control);
        wait_for_control(opened).await?;
        for (lane, cancels) in lanes {
            let operation = format!("start serving '{}'", lane.source.descriptor.name);
            let intake = within_start_limit(&operation, || lane.source.open()).await?;
            if let Some(letters) = within_start_limit(&operation, || lane.source.open_dead_letters()).await? {
                handle.own_dead_callers(AbortOnDrop::spawn(dead_callers::run(
                    lane.source.clone(),
                    letters,
                    Arc::clone(&counters),
                )));
            }
            let span = tracing::info_span!("worker", queue = intake.queue);
            handle.spawn(consume::run(lane, intake, cancels, handle.phase()).instrument(span));
        }
        for service in &self.services {
            let service = service.descriptor().name;
            tracing::info!(service, prefetch_count, concurrency = self.concurrency, "serving");
        }
        Ok(handle)
    }

    /// Declares the exchanges, and the queues of the services with their bindings, and serves nothing. Workers whose user may
    /// not declare them then use them as they are; the guide's chapter [who may do what](crate::guide::permissions) has the
    /// permissions.
    ///
    /// # Errors
    /// As those of [`start`](Self::start).
    ///
    /// # Cancel safety
    /// Dropping the future leaves a part declared; declaring again completes it.
    pub async fn declare(self) -> Result<(), Error> {
        let prefetch_count = self.check()?;
        let control = [topology::CANCELS, topology::DISCOVERY];
        let declare = || async { self.connection.channel().await?.declare_exchanges(&control).await };
        within_start_limit("declare exchanges", declare).await?;
        for service in &self.services {
            for source in self.sources(service, prefetch_count) {
                let operation = format!("declare '{}'", service.descriptor().name);
                within_start_limit(&operation, || source.declare_all()).await?;
            }
        }
        Ok(())
    }

    /// The queues of a service: its own, those of its methods, and the one for nested requests.
    fn sources(&self, service: &Served, prefetch_count: u16) -> Vec<Source> {
        let descriptor = service.descriptor();
        let own = descriptor.method_queues();
        let mut sources: Vec<_> = own.iter().map(|queue| self.source(service, *queue, prefetch_count)).collect();
        // In the bare profile there is one queue, which another program may have declared.
        if descriptor.queue.is_none() {
            let prefetch_count = prefetch_count.saturating_mul(NESTED_PREFETCH_TIMES).max(NESTED_PREFETCH_MIN);
            sources.push(Source { is_nested: true, ..self.source(service, None, prefetch_count) });
        }
        sources
    }

    fn lane(&self, service: &Served, source: Source, pool: Pool<'_>, counts: &Arc<ServiceCounts>) -> Lane {
        let Pool { slots, counters } = pool;
        let lanes: usize = self.services.iter().map(|service| service.descriptor().method_queues().len()).sum();
        // Otherwise handlers wait for slots, for which each needs a task.
        let has_slots = lanes * usize::from(source.prefetch_count) <= self.concurrency;
        let descriptor = service.descriptor();
        let dedupe = self.dedupe.as_ref().map(|how| how.of_lane(descriptor, &self.dedupe_exempt, counters));
        let parts = Parts {
            service: Arc::clone(&service.service),
            of_pool: self.layers.clone(),
            of_service: service.layers.clone(),
            dedupe: dedupe.clone(),
            counters: Arc::clone(counters),
        };
        let waiting_max = source.is_nested.then(|| usize::from(source.prefetch_count) / 2);
        Lane {
            is_inline: self.is_inline && has_slots && !source.is_nested,
            source,
            has_layers: self.layers.is_some() || service.layers.is_some(),
            service: Layered::wrap(parts),
            room: Room::new(Arc::clone(slots), waiting_max),
            dedupe,
            counters: Arc::clone(counters),
            counts: Arc::clone(counts),
            caution: Caution::new(),
        }
    }

    fn source(&self, service: &Served, method_queue: Option<&'static str>, prefetch_count: u16) -> Source {
        let is_quorum = self.queue_kind == QueueKind::Quorum;
        let delivery_limit = is_quorum.then(|| self.delivery_limit.unwrap_or(poison::DEFAULT_DELIVERY_LIMIT));
        let mut arguments = kind_arguments(is_quorum);
        if let Some(max_length) = service.descriptor().max_length {
            arguments.push(("x-max-length", HeaderValue::from(max_length)));
            // The default would drop the oldest request silently.
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
            is_nested: false,
            prefetch_count,
            ack_policy: self.ack_policy,
            is_quorum,
            redelivery: RedeliveryRules { policy: self.redelivery, delivery_limit },
            dead_letters: self.dead_letters,
            users: self.known_users(),
            arguments,
        }
    }
}

impl WorkerPool {
    /// The users it serves, and its own.
    fn known_users(&self) -> Users {
        Users::new(&self.connection, self.sends_user_id, self.users.clone())
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

/// Waits until the control queue is open, so that no cancel is missed, but not for long: cancels save work, nothing else. While a
/// node of a RabbitMQ cluster is frozen, declaring an exclusive queue takes 55 s on the others.
async fn wait_for_control(opened: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    match timeout(CONTROL_LIMIT, opened).await {
        Ok(Ok(outcome)) => outcome,
        // Its task ends only with the runtime.
        Ok(Err(_)) => Ok(()),
        Err(_) => {
            tracing::warn!("no control queue after {CONTROL_LIMIT:?}: cancels arrive once it is declared");
            Ok(())
        }
    }
}

/// Opens a part of a pool within the limit of a start. An attempt in which the broker has not answered a method is followed by
/// another one, on another channel.
async fn within_start_limit<T, F>(operation: &str, open: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let attempts = async {
        loop {
            match open().await {
                Err(error @ Error::TimedOut { .. }) => tracing::warn!(%error, "trying again on another channel"),
                opened => return opened,
            }
        }
    };
    within(START_TIMEOUT, operation, attempts).await
}

const DEFAULT_CONCURRENCY: usize = 16;

/// For declaring one queue and consuming from it.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a start waits for the control queue.
const CONTROL_LIMIT: Duration = Duration::from_secs(2);

/// Nested requests that a worker holds, for each ordinary one: half of them may wait for further ones.
const NESTED_PREFETCH_TIMES: u16 = 4;
const NESTED_PREFETCH_MIN: u16 = 32;

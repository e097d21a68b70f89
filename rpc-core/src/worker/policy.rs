//! The choices a pool's user makes: when to acknowledge, which kind of queue, what to do with redelivered requests.

/// When the pool acknowledges a request to the broker.
///
/// The costs are those of an empty handler with 64 calls in flight, compared with `AfterReply` on the same machine in the same
/// run. They differ by a tenth and more between runs (`cargo bench -p rpc-tests --bench calls -- acks`), and are hidden by
/// a handler that does real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AckPolicy {
    /// After its reply, on the same channel. A worker that dies at any point loses no request: the broker redelivers it to
    /// another worker. The default.
    #[default]
    AfterReply,
    /// After the broker has confirmed the reply, so that a broker that dies between accepting the reply and routing it
    /// loses no request either. Each batch of replies costs one more round trip before its requests are acknowledged: 0.75 to
    /// 0.85 × the calls per second on the bundled broker and 1.25 × the median latency; on RabbitMQ 0.9 to 1.1 × the calls.
    AfterConfirmedReply,
    /// Before the handler runs: at most once. A worker that dies loses the requests it was executing, and their callers time
    /// out. Throughput and latency are those of `AfterReply`: this policy does not make a pool faster.
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
    /// [`WorkerPool::delivery_limit`](crate::WorkerPool::delivery_limit).
    Quorum,
}

/// How a pool treats a request that an earlier worker may have executed, when its method is not idempotent.
///
/// The broker redelivers a request when the worker that held it died before it acknowledged, or when a pool shut down
/// before it had begun the request. The pool always executes `#[rpc(idempotent)]` methods again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RedeliveryPolicy {
    /// The handler runs again; [`Context::redelivered`](crate::Context::redelivered) is true. The default.
    #[default]
    Execute,
    /// The handler does not run; the caller gets [`CallError::Abandoned`](crate::CallError::Abandoned).
    ReplyMaybeExecuted,
    /// The handler does not run; the caller gets [`CallError::Abandoned`](crate::CallError::Abandoned), and the request
    /// moves to the queue `rpc.<service>.dead`, for a person to look at.
    DeadLetter,
}

/// When a redelivered request is not executed again.
#[derive(Debug, Clone, Copy)]
pub(super) struct RedeliveryRules {
    pub(super) policy: RedeliveryPolicy,
    /// Deliveries after which a request is dead-lettered; `None` on classic queues, which do not count them.
    pub(super) delivery_limit: Option<u32>,
}

//! The choices a pool's user makes: when to acknowledge, which kind of queue, what to do with redelivered requests, how
//! many dead letters are kept.

use std::time::Duration;

use crate::connection::HeaderValue;

/// When the pool acknowledges a request to the broker.
///
/// The costs are those of an empty handler with 64 calls in flight, compared with `AfterReply` on the same machine in the same
/// run. They differ by a tenth and more between runs (`cargo bench -p rpc-tests --bench calls -- acks`), and are hidden by
/// a handler that does real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
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
    /// When the handler begins: at most once. A worker that dies loses the requests it was executing, and their callers time
    /// out; those that waited are redelivered. As many as the prefetch count are executed at once. If the connection ends before the
    /// broker has read an acknowledgement, that request is redelivered and [`RedeliveryPolicy`] decides about it.
    /// Throughput and latency are those of `AfterReply`: this policy does not make a pool faster.
    BeforeHandler,
}

/// The kind of queue that holds a service's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
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
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
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

/// Bounds of a service's dead-letter queue `rpc.<service>.dead`, beyond which the broker drops the oldest letters.
///
/// They are arguments of the queue's declaration, so all pools of a service must use the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterOptions {
    length: u32,
    bytes: u32,
    age: Duration,
}

impl Default for DeadLetterOptions {
    fn default() -> Self {
        Self { length: 10_000, bytes: 256 << 20, age: Duration::from_secs(14 * 24 * 60 * 60) }
    }
}

impl DeadLetterOptions {
    /// Letters kept. The default is 10 000.
    #[must_use]
    pub const fn length(mut self, letters: u32) -> Self {
        self.length = letters;
        self
    }

    /// The size of their bodies together, in bytes. The default is 256 MiB.
    #[must_use]
    pub const fn bytes(mut self, bytes: u32) -> Self {
        self.bytes = bytes;
        self
    }

    /// How long a letter is kept. The default is 14 days, the most that can be set are 49 days (RabbitMQ: `x-message-ttl` has 32 bits).
    #[must_use]
    pub const fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// The arguments of the queue's declaration.
    pub(super) fn arguments(self) -> [(&'static str, HeaderValue); 3] {
        let age_ms = u32::try_from(self.age.as_millis()).unwrap_or(u32::MAX);
        [
            ("x-max-length", self.length.into()),
            ("x-max-length-bytes", self.bytes.into()),
            ("x-message-ttl", age_ms.into()),
        ]
    }
}

/// When a redelivered request is not executed again.
#[derive(Debug, Clone, Copy)]
pub(super) struct RedeliveryRules {
    pub(super) policy: RedeliveryPolicy,
    /// Deliveries after which a request is dead-lettered; `None` on classic queues, which do not count them.
    pub(super) delivery_limit: Option<u32>,
}

//! [`DedupeOptions`]: the bounds of a memory of answers.

/// How many answers a pool remembers, to repeat them instead of executing a request again.
///
/// A request is known by its `message_id`, by its method and by its [caller](crate::dedupe::Key): a caller who sets
/// [`idempotency_key`](crate::Call::idempotency_key) must use a new key for each logical call. The same key with other arguments is
/// refused as `bad_request`. A request without a `message_id` is known when the broker redelivers it.
///
/// Results and the service's own errors are remembered; a handler that panicked or was stopped, or whose error says that another
/// attempt may help ([`ServiceError`](crate::ServiceError)), runs again. A request that arrives while an earlier one of the same name
/// still runs waits for the answer of the earlier one.
///
/// The memory belongs to one queue of one pool. For one that several processes share, see
/// [`WorkerPool::dedupe_store`](crate::WorkerPool::dedupe_store).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DedupeOptions {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Default for DedupeOptions {
    fn default() -> Self {
        Self { entries: 1_024, bytes: 16 << 20 }
    }
}

impl DedupeOptions {
    /// Answers remembered for each queue. The default is 1 024.
    #[must_use]
    pub const fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// Their encoded size in bytes, with their names, for each queue. The default is 16 MiB. An answer larger than that
    /// is not remembered.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

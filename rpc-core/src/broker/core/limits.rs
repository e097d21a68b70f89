//! How much of everything there may be. Pure.

use std::time::Duration;

use crate::wire::table::DEPTH_MAX;

/// The bounds that no protocol negotiates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of messages and outboxes from which publishers are blocked.
    pub(crate) memory_high_watermark: u64,
    /// Bytes that wait for one client before it gets no more deliveries.
    pub(crate) outbox_max_bytes: usize,
    /// Messages ready in a queue that says nothing of it, or too much.
    pub(crate) queue_max_length: Option<u64>,
    pub(crate) queues_max: usize,
    pub(crate) exchanges_max: usize,
    pub(crate) bindings_per_exchange_max: usize,
    pub(crate) consumers_per_channel_max: usize,
    /// Messages that a transaction puts into queues.
    pub(crate) transaction_max: usize,
    /// Tables and arrays inside one another, in methods and in messages.
    pub(crate) table_depth_max: usize,
    /// How long a delivery may wait for its acknowledgement.
    pub(crate) consumer_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_high_watermark: u64::MAX,
            outbox_max_bytes: 4 << 20,
            queue_max_length: None,
            queues_max: 1_000_000,
            exchanges_max: 100_000,
            bindings_per_exchange_max: 1_000_000,
            consumers_per_channel_max: 10_000,
            transaction_max: 1_000_000,
            table_depth_max: DEPTH_MAX,
            consumer_timeout: Some(Duration::from_secs(30 * 60)),
        }
    }
}

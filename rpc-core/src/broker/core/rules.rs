//! The configuration that the core enforces. Pure.

use std::{collections::HashMap, time::Duration};

use crate::broker::core::{limits::defaults, profile::Facts, session::access::User};

/// The configuration that the core enforces.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The version of RabbitMQ that the broker passes for.
    pub(crate) facts: &'static Facts,
    /// The version whose differences are noted.
    pub(crate) warn_as: Option<&'static Facts>,
    pub(crate) users: HashMap<String, User>,
    pub(crate) vhosts: Vec<String>,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) message_max_bytes: u64,
    pub(crate) connections_max: usize,
    pub(crate) limits: Limits,
}

/// The limits that AMQP does not negotiate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Publishers are blocked while messages and outboxes take this many bytes.
    pub(crate) memory_high_watermark: u64,
    /// A client with this many unwritten bytes gets no more deliveries.
    pub(crate) outbox_max_bytes: usize,
    /// The most ready messages in a queue whose `x-max-length` is missing or greater.
    pub(crate) queue_max_length: Option<u64>,
    pub(crate) queues_max: usize,
    pub(crate) exchanges_max: usize,
    pub(crate) bindings_per_exchange_max: usize,
    pub(crate) consumers_per_channel_max: usize,
    /// The most copies of messages that one transaction puts into queues.
    pub(crate) transaction_max: usize,
    /// How deep tables and arrays may nest, in methods and in messages.
    pub(crate) table_depth_max: usize,
    /// How long a delivery may wait for its acknowledgement.
    pub(crate) consumer_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_high_watermark: u64::MAX,
            outbox_max_bytes: defaults::OUTBOX_MAX_BYTES,
            queue_max_length: None,
            queues_max: defaults::QUEUES_MAX,
            exchanges_max: defaults::EXCHANGES_MAX,
            bindings_per_exchange_max: defaults::BINDINGS_PER_EXCHANGE_MAX,
            consumers_per_channel_max: defaults::CONSUMERS_PER_CHANNEL_MAX,
            transaction_max: defaults::TRANSACTION_MAX,
            table_depth_max: defaults::TABLE_DEPTH_MAX,
            consumer_timeout: Some(Duration::from_secs(defaults::CONSUMER_TIMEOUT_S.into())),
        }
    }
}

/// Messages queued, delivered and settled, and bindings and consumers removed, before other connections get the lock: one or
/// two milliseconds. A publish to a thousand queues counts as a thousand.
pub(crate) const WORK_MAX: usize = 1_024;

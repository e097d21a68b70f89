//! The configuration that the core enforces. Pure.

use std::{collections::HashMap, time::Duration};

use crate::{broker::core::session::access::User, wire::table::DEPTH_MAX};

/// The configuration that the core enforces.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
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

/// Messages queued, delivered and settled before other connections get the lock: about ten milliseconds. A publish to a
/// thousand queues counts as a thousand.
pub(crate) const WORK_MAX: usize = 10_000;

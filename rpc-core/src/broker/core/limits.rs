//! How much of everything there may be. Pure.

/// The bounds that no protocol negotiates.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of messages and outboxes from which publishers are blocked.
    pub(crate) memory_high_watermark: u64,
    /// Bytes that wait for one client before it gets no more deliveries.
    pub(crate) outbox_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_high_watermark: u64::MAX, outbox_max_bytes: 4 << 20 }
    }
}

//! The limits of a broker that is not started yet.

use std::time::Duration;

use super::{BrokerBuilder, machine};
use crate::wire::FRAME_MIN_SIZE;

/// # Limits
///
/// Every one has a default, a method here and a flag of `rpc broker`.
///
/// | limit | default | method | flag |
/// |---|---|---|---|
/// | connections, from the moment they are accepted | 65 536 | `connections_max` | `--connections-max` |
/// | channels of a connection | 2 047 | `channel_max` | `--channel-max` |
/// | bytes of a frame | 131 072 | `frame_max` | `--frame-max` |
/// | bytes of a message | 128 MiB | `message_max_bytes` | `--message-max` |
/// | time for the handshake | 10 s | `handshake_timeout` | `--handshake-timeout` |
/// | silence of a client | two heartbeats of 60 s | `heartbeat` | `--heartbeat` |
/// | bytes of all messages, before publishers are blocked | 40 % of the memory | `memory_high_watermark` | `--memory-high-watermark` |
/// | bytes that wait for a client that does not read | 4 MiB | `outbox_max_bytes` | `--outbox-max` |
impl BrokerBuilder {
    /// Channels a connection may open. The default is 2 047.
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels;
        self
    }

    /// The largest frame, in bytes. The default is 131 072, the least 4 096.
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes;
        self
    }

    /// The heartbeat offered to clients; a connection that is silent for two of them is closed. The default is 60 s;
    /// zero is none.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How long a client may take from connecting to `connection.open`. The default is 10 s.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// The largest message, in bytes. The default is 128 MiB, as of RabbitMQ 3.10.
    pub fn message_max_bytes(mut self, bytes: u64) -> Self {
        self.message_max_bytes = bytes;
        self
    }

    /// Connections at once, counted from the moment they are accepted, whether they have said anything or not; further
    /// ones are closed at once. The default is 65 536.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// The bytes that may wait for a client that does not read: then it gets no more deliveries, which stay in their
    /// queues, until half of it is written. When twice as much waits, of answers to the client itself, it is not read
    /// either. The default is 4 MiB, the least 4 096 bytes. A message on its way is never cut short by it, and direct
    /// replies, which have no queue to wait in, are lost only at 16 times as much.
    pub fn outbox_max_bytes(mut self, bytes: usize) -> Self {
        self.limits.outbox_max_bytes = bytes.max(FRAME_MIN_SIZE as usize);
        self
    }

    /// The bytes that messages, wherever they are, may take before publishers are blocked: who publishes then is sent
    /// `connection.blocked` ("low on memory") if it can be, and is not read until an eighth of it is free again. Others,
    /// consumers among them, go on. It is also what bounds queues without a length of their own.
    ///
    /// The default is 40 % of the memory of the machine or of its control group, as in RabbitMQ; 0 blocks all who
    /// publish. A message that is in several queues counts once, with a few hundred bytes for what comes with it; one
    /// that is larger than all of it is refused.
    pub fn memory_high_watermark(mut self, bytes: u64) -> Self {
        self.memory_high_watermark = Some(bytes);
        self
    }

    /// As [`memory_high_watermark`](Self::memory_high_watermark), in hundredths of the memory there is.
    pub fn memory_high_watermark_percent(mut self, percent: u8) -> Self {
        self.memory_high_watermark = Some(percent_of_memory(percent));
        self
    }
}

pub(super) fn percent_of_memory(percent: u8) -> u64 {
    machine::memory_bytes() / 100 * u64::from(percent)
}

/// RabbitMQ's `vm_memory_high_watermark`.
pub(super) const MEMORY_HIGH_WATERMARK_PERCENT: u8 = 40;

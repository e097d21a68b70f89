//! The limits of a broker that is not started yet.

use std::time::Duration;

use super::{config::BrokerBuilder, machine::percent_of_memory};
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
/// | time until a delivery is acknowledged | 30 min | `consumer_timeout` | `--consumer-timeout` |
/// | bytes of all messages and declarations, before publishers are blocked | 40 % of the memory | `memory_high_watermark` | `--memory-high-watermark` |
/// | bytes that wait for a client that does not read | 4 MiB | `outbox_max_bytes` | `--outbox-max` |
/// | messages ready in a queue | that is all: the memory | `queue_max_length` | `--queue-max-length` |
/// | queues of a vhost | 1 000 000 | `queues_max` | `--queues-max` |
/// | exchanges of a vhost | 100 000 | `exchanges_max` | `--exchanges-max` |
/// | bindings from an exchange | 1 000 000 | `bindings_per_exchange_max` | `--bindings-per-exchange-max` |
/// | consumers of a channel | 10 000 | `consumers_per_channel_max` | `--consumers-per-channel-max` |
/// | messages of a transaction | 1 000 000 | `transaction_max` | `--transaction-max` |
/// | tables and arrays inside one another | 128 | `table_depth_max` | `--table-depth-max` |
///
/// Names have 255 bytes at most. A batch of frames that moves more than 10 000 messages, as publishes
/// to thousands of queues do, lets others go on in between. Confirms are sent at the end of each batch: nothing piles up.
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

    /// How long a delivery, or what `basic.get` got, may wait for its acknowledgement: then its channel is closed with
    /// 406 and RabbitMQ's text, and what it held goes back to its queues. The default is 30 minutes, as in RabbitMQ from
    /// 3.8.17 on; zero is no limit.
    ///
    /// Looked for now and then: it may take a thirtieth longer, and two seconds at the least.
    pub fn consumer_timeout(mut self, limit: Duration) -> Self {
        self.limits.consumer_timeout = (!limit.is_zero()).then_some(limit);
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

    /// Messages ready in any queue. A queue whose own `x-max-length` is lower keeps to that; from this one on publishes
    /// are refused (`basic.nack` to those who asked for confirms) unless the queue has an `x-overflow` of its own. The
    /// default is none: [`memory_high_watermark`](Self::memory_high_watermark) bounds all queues together.
    pub fn queue_max_length(mut self, messages: u64) -> Self {
        self.limits.queue_max_length = Some(messages);
        self
    }

    /// Queues of a vhost; declaring more is a 406 with RabbitMQ's text. The default is 1 000 000.
    pub fn queues_max(mut self, queues: usize) -> Self {
        self.limits.queues_max = queues;
        self
    }

    /// Exchanges of a vhost, with the seven that are there from the start; declaring more is a 406. The default is
    /// 100 000.
    pub fn exchanges_max(mut self, exchanges: usize) -> Self {
        self.limits.exchanges_max = exchanges;
        self
    }

    /// Bindings from one exchange; more are refused with 406. The default is 1 000 000.
    pub fn bindings_per_exchange_max(mut self, bindings: usize) -> Self {
        self.limits.bindings_per_exchange_max = bindings;
        self
    }

    /// Consumers of a channel; one more is a 530 with RabbitMQ's text. The default is 10 000.
    pub fn consumers_per_channel_max(mut self, consumers: usize) -> Self {
        self.limits.consumers_per_channel_max = consumers;
        self
    }

    /// Messages that a transaction publishes before its commit, each counted for every queue it goes to; one more is a
    /// 406, and the transaction is forgotten. The default is 1 000 000.
    pub fn transaction_max(mut self, messages: usize) -> Self {
        self.limits.transaction_max = messages;
        self
    }

    /// Tables and arrays inside one another, in the arguments of methods and the headers of messages; one level more is
    /// a 501 in a method and a 502 in a message, as other tables that cannot be read. From 1, which is what a client's
    /// `capabilities` take, to 128, which is the default: reading a table takes stack for each level. RabbitMQ's `x-death`
    /// header has three.
    pub fn table_depth_max(mut self, levels: usize) -> Self {
        self.limits.table_depth_max = levels;
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
    /// that is larger than all of it is refused. Queues, exchanges and bindings count with their arguments; at one and a
    /// half times this limit new ones are refused with 406, and even messages that have begun must wait.
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

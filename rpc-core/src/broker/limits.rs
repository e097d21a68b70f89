//! The limits of a broker that is not started yet.

use std::time::Duration;

use super::{config::BrokerBuilder, machine::percent_of_memory};
use crate::wire::FRAME_MIN_SIZE;

/// # Limits
///
/// Every limit has a default, a method here and a flag of `rpc broker`.
/// [The guide lists them](crate::guide::broker#limits).
impl BrokerBuilder {
    /// The most channels of a connection. The default is 2 047.
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels;
        self
    }

    /// The largest frame, in bytes. The default is 131 072, the least 4 096.
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes;
        self
    }

    /// The heartbeat offered to clients. The default is 60 s; zero turns heartbeats off.
    ///
    /// The broker closes a connection whose client is silent for two heartbeats.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// The longest time from connecting to `connection.open`. The default is 10 s.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// The longest time until a client acknowledges a message that it received as a delivery or by `basic.get`. The
    /// default is 30 min, as in RabbitMQ from 3.8.17 on; zero turns the limit off.
    ///
    /// After that the broker closes the channel with 406 and RabbitMQ's text, and requeues its messages. It checks from
    /// time to time: a channel may last longer by a thirtieth of the limit, and by 2 s at least.
    ///
    /// With [`Profile::RabbitMq4_3`](crate::broker::Profile::RabbitMq4_3) it is the limit of quorum queues that declare none, and
    /// their messages are taken back from one consumer, at once.
    pub fn consumer_timeout(mut self, limit: Duration) -> Self {
        self.limits.consumer_timeout = (!limit.is_zero()).then_some(limit);
        self
    }

    /// The largest message, in bytes. The default is 128 MiB as in RabbitMQ 3.10, or 16 MiB with the profile of 4.3.
    pub fn message_max_bytes(mut self, bytes: u64) -> Self {
        self.message_max_bytes = Some(bytes);
        self
    }

    /// The most connections at once. The default is 65 536.
    ///
    /// A connection counts from the moment it is accepted, even if its client never sends anything. For a further one the
    /// client that has waited for its login longest is disconnected; if all are logged in, it is closed at once.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// The most connections that are not open yet. The default is a quarter of all, at least 64: see
    /// [`connections_max`](Self::connections_max).
    ///
    /// For each further one, too, the broker disconnects the client that has waited for its login longest, stalled TLS
    /// handshakes included. So clients that connect and stay silent keep no others out.
    pub fn handshakes_max(mut self, connections: usize) -> Self {
        self.handshakes_max = Some(connections);
        self
    }

    /// The most ready messages in any queue. The default is none:
    /// [`memory_high_watermark`](Self::memory_high_watermark) bounds all queues together.
    ///
    /// A full queue refuses publishes (`basic.nack` on channels in confirm mode) unless it has an `x-overflow` of its own.
    /// A queue's `x-max-length` applies where it is lower.
    pub fn queue_max_length(mut self, messages: u64) -> Self {
        self.limits.queue_max_length = Some(messages);
        self
    }

    /// The most queues of a vhost. The default is 1 000 000.
    ///
    /// The broker answers further declarations with 406 and RabbitMQ's text.
    pub fn queues_max(mut self, queues: usize) -> Self {
        self.limits.queues_max = queues;
        self
    }

    /// The most exchanges of a vhost, the seven predeclared ones included. The default is 100 000.
    ///
    /// The broker answers further declarations with 406.
    pub fn exchanges_max(mut self, exchanges: usize) -> Self {
        self.limits.exchanges_max = exchanges;
        self
    }

    /// The most bindings from one exchange. The default is 1 000 000.
    ///
    /// The broker answers further binds with 406.
    pub fn bindings_per_exchange_max(mut self, bindings: usize) -> Self {
        self.limits.bindings_per_exchange_max = bindings;
        self
    }

    /// The most consumers of a channel. The default is 10 000.
    ///
    /// The broker answers a further `basic.consume` with 530 and RabbitMQ's text.
    pub fn consumers_per_channel_max(mut self, consumers: usize) -> Self {
        self.limits.consumers_per_channel_max = consumers;
        self
    }

    /// The most messages that a transaction publishes, counted once for every queue they are routed to. The default is
    /// 1 000 000.
    ///
    /// The broker answers a further publish with 406, and discards the transaction.
    pub fn transaction_max(mut self, messages: usize) -> Self {
        self.limits.transaction_max = messages;
        self
    }

    /// How deep tables and arrays may nest, in the arguments of methods and in the headers of messages. The default is
    /// 128, which is also the most, because reading a table takes stack for each level. The least is 1, the depth of a
    /// client's `capabilities`.
    ///
    /// The broker answers deeper tables as it answers malformed ones: with 501 in a method and 541 in a message.
    /// RabbitMQ's `x-death` header has three levels.
    pub fn table_depth_max(mut self, levels: usize) -> Self {
        self.limits.table_depth_max = levels;
        self
    }

    /// The most bytes that wait for a client that does not read. The default is 4 MiB, the least 4 096 bytes.
    ///
    /// Beyond it the client gets no more deliveries, and messages stay in their queues, until half of it is written.
    /// Beyond twice as much, which only answers to its own requests cause, the broker does not read from the client
    /// either. A message that is being sent is never truncated. Direct replies have no queue to stay in: the broker
    /// drops them beyond 16 times as much.
    pub fn outbox_max_bytes(mut self, bytes: usize) -> Self {
        self.limits.outbox_max_bytes = bytes.max(FRAME_MIN_SIZE as usize);
        self
    }

    /// The bytes that all messages may take before publishers are blocked. The default is 40 % of the memory of the
    /// machine or of its control group, as in RabbitMQ; 0 blocks all publishers.
    ///
    /// From then on, a connection that publishes receives `connection.blocked` ("low on memory") if it supports it, and
    /// is not read until usage falls one eighth below the watermark. Other connections are unaffected.
    ///
    /// A message in several queues counts once, with a few hundred bytes of overhead. A message larger than the watermark
    /// is refused. Queues, exchanges and bindings count with their arguments. At one and a half times the watermark the
    /// broker refuses new ones with 406, and partially received messages have to wait, too.
    pub fn memory_high_watermark(mut self, bytes: u64) -> Self {
        self.memory_high_watermark = Some(bytes);
        self
    }

    /// Sets [`memory_high_watermark`](Self::memory_high_watermark) as a percentage of the memory of the machine or of its
    /// control group.
    pub fn memory_high_watermark_percent(mut self, percent: u8) -> Self {
        self.memory_high_watermark = Some(percent_of_memory(percent));
        self
    }
}

//! The default of each limit, once: the builder, and the program `rpc` take it from here.

use crate::wire::table;

/// Connections at once, from the moment they are accepted.
pub(crate) const CONNECTIONS_MAX: usize = 65_536;
/// Connections that are not open yet: a quarter of all, but not so few that clients which reconnect together cut each
/// other off.
pub(crate) const fn handshakes_max(connections_max: usize) -> usize {
    let quarter = connections_max / 4;
    if quarter < 64 { 64 } else { quarter }
}
/// Channels that a connection may open; RabbitMQ's default.
pub(crate) const CHANNEL_MAX: u16 = 2_047;
/// Bytes of a frame; RabbitMQ's default.
pub(crate) const FRAME_MAX: u32 = 131_072;
/// Seconds between the heartbeats offered to clients; RabbitMQ's default.
pub(crate) const HEARTBEAT_S: u16 = 60;
/// Seconds from connecting to `connection.open`; RabbitMQ's default.
pub(crate) const HANDSHAKE_TIMEOUT_S: u16 = 10;
/// Seconds until a delivery is acknowledged: RabbitMQ's default from 3.8.17 on.
pub(crate) const CONSUMER_TIMEOUT_S: u32 = 30 * 60;
/// The part of the memory, in percent, from which on publishers are blocked: RabbitMQ's `vm_memory_high_watermark`.
pub(crate) const MEMORY_HIGH_WATERMARK_PERCENT: u8 = 40;
/// Bytes that may wait for a client that does not read: 4 MiB.
pub(crate) const OUTBOX_MAX_BYTES: usize = 4 << 20;
/// Queues of a vhost.
pub(crate) const QUEUES_MAX: usize = 1_000_000;
/// Exchanges of a vhost.
pub(crate) const EXCHANGES_MAX: usize = 100_000;
/// Bindings from an exchange.
pub(crate) const BINDINGS_PER_EXCHANGE_MAX: usize = 1_000_000;
/// Consumers of a channel.
pub(crate) const CONSUMERS_PER_CHANNEL_MAX: usize = 10_000;
/// Copies of messages that a transaction puts into queues.
pub(crate) const TRANSACTION_MAX: usize = 1_000_000;
/// Levels of tables and arrays inside one another: as many as can be read without exhausting the stack.
pub(crate) const TABLE_DEPTH_MAX: usize = table::DEPTH_MAX;

//! The options of `rpc broker` for limits.

use std::{fmt, str::FromStr, time::Duration};

use super::open_files;
use crate::broker::{BrokerBuilder, defaults};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArguments {
    /// The heartbeat offered to clients, in seconds; 0 turns heartbeats off. Connections of clients that are silent for
    /// two heartbeats are closed.
    #[arg(long, value_name = "SECONDS", default_value_t = defaults::HEARTBEAT_S)]
    heartbeat: u16,
    /// The longest time until a connection is open, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = defaults::HANDSHAKE_TIMEOUT_S)]
    handshake_timeout: u16,
    /// The longest time until a client acknowledges a delivery before its channel is closed, in seconds; 0 turns the limit
    /// off.
    #[arg(long, value_name = "SECONDS", default_value_t = defaults::CONSUMER_TIMEOUT_S)]
    consumer_timeout: u32,
    /// The largest frame, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = defaults::FRAME_MAX)]
    frame_max: u32,
    /// The most channels of a connection.
    #[arg(long, value_name = "CHANNELS", default_value_t = defaults::CHANNEL_MAX)]
    channel_max: u16,
    /// The largest message. By default 128 MiB, or 16 MiB as RabbitMQ 4.3.
    #[arg(long, value_name = "SIZE")]
    message_max: Option<Size>,
    /// The most connections at once, from the moment they are accepted.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = defaults::CONNECTIONS_MAX)]
    connections_max: usize,
    /// The most connections that are not open yet; for each further one, the client that has waited for its login longest
    /// is disconnected. By default a quarter of --connections-max, at least 64.
    #[arg(long, value_name = "CONNECTIONS")]
    handshakes_max: Option<usize>,
    /// The memory that messages may take before publishers are blocked: a size such as 512MiB, or a part of the machine's
    /// memory such as 25%.
    #[arg(long, value_name = "SIZE", default_value_t = Share::Percent(defaults::MEMORY_HIGH_WATERMARK_PERCENT))]
    memory_high_watermark: Share,
    /// The output that may wait for a client that does not read, before it gets no more deliveries.
    #[arg(long, value_name = "SIZE", default_value_t = Size(defaults::OUTBOX_MAX_BYTES as u64))]
    outbox_max: Size,
    /// The most ready messages in any queue; further publishes are refused. By default there is no such limit.
    #[arg(long, value_name = "MESSAGES")]
    queue_max_length: Option<u64>,
    /// The most queues of a vhost.
    #[arg(long, value_name = "QUEUES", default_value_t = defaults::QUEUES_MAX)]
    queues_max: usize,
    /// The most exchanges of a vhost.
    #[arg(long, value_name = "EXCHANGES", default_value_t = defaults::EXCHANGES_MAX)]
    exchanges_max: usize,
    /// The most bindings from one exchange.
    #[arg(long, value_name = "BINDINGS", default_value_t = defaults::BINDINGS_PER_EXCHANGE_MAX)]
    bindings_per_exchange_max: usize,
    /// The most consumers of a channel.
    #[arg(long, value_name = "CONSUMERS", default_value_t = defaults::CONSUMERS_PER_CHANNEL_MAX)]
    consumers_per_channel_max: usize,
    /// The most messages that a transaction publishes, counted once for every queue they are routed to.
    #[arg(long, value_name = "MESSAGES", default_value_t = defaults::TRANSACTION_MAX)]
    transaction_max: usize,
    /// How deep tables and arrays may nest, in methods and in messages; from 1 to 128.
    #[arg(long, value_name = "LEVELS", default_value_t = defaults::TABLE_DEPTH_MAX)]
    table_depth_max: usize,
}

impl LimitArguments {
    /// The same limits, with no more connections than there can be open files.
    pub(super) fn within(&self, builder: BrokerBuilder, open_files_max: Option<u64>) -> BrokerBuilder {
        self.apply(builder).connections_max(open_files::connections_max(self.connections_max, open_files_max))
    }

    fn apply(&self, builder: BrokerBuilder) -> BrokerBuilder {
        let builder = builder
            .heartbeat(Duration::from_secs(self.heartbeat.into()))
            .handshake_timeout(Duration::from_secs(self.handshake_timeout.into()))
            .consumer_timeout(Duration::from_secs(self.consumer_timeout.into()))
            .frame_max(self.frame_max)
            .channel_max(self.channel_max)
            .connections_max(self.connections_max)
            .outbox_max_bytes(usize::try_from(self.outbox_max.0).unwrap_or(usize::MAX))
            .queues_max(self.queues_max)
            .exchanges_max(self.exchanges_max)
            .bindings_per_exchange_max(self.bindings_per_exchange_max)
            .consumers_per_channel_max(self.consumers_per_channel_max)
            .transaction_max(self.transaction_max)
            .table_depth_max(self.table_depth_max);
        let builder = match self.handshakes_max {
            None => builder,
            Some(connections) => builder.handshakes_max(connections),
        };
        let builder = match self.message_max {
            None => builder,
            Some(Size(bytes)) => builder.message_max_bytes(bytes),
        };
        let builder = match self.queue_max_length {
            None => builder,
            Some(messages) => builder.queue_max_length(messages),
        };
        match self.memory_high_watermark {
            Share::Bytes(Size(bytes)) => builder.memory_high_watermark(bytes),
            Share::Percent(percent) => builder.memory_high_watermark_percent(percent),
        }
    }
}

/// A number of bytes, written as `4096`, `64kB`, `512MiB` or `2GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_bytes = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).map(|(_, bytes)| *bytes);
        let bytes = number.parse::<u64>().ok().zip(unit_bytes).and_then(|(number, unit)| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| format!("'{text}' is no size: write a number and B, kB, KiB, MB, MiB, GB or GiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, bytes): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS.iter().filter(divides).max_by_key(|(_, bytes)| *bytes).unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// A number of bytes, or a percentage of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Bytes(Size),
    Percent(u8),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            None => text.parse().map(Self::Bytes),
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("'{text}' is not between 0% and 100%")),
            },
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::broker::Broker;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        limits: LimitArguments,
    }

    fn builder(words: &str) -> Result<BrokerBuilder, String> {
        let program = Program::try_parse_from(["rpc"].into_iter().chain(words.split_whitespace()));
        program.map(|program| program.limits.apply(Broker::builder())).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_that_are_not_given_change_nothing() {
        let default = Broker::builder().memory_high_watermark_percent(defaults::MEMORY_HIGH_WATERMARK_PERCENT);
        assert_eq!(format!("{:?}", builder("").unwrap()), format!("{default:?}"));
    }

    #[test]
    fn every_limit_has_a_flag() {
        let given = builder(
            "--heartbeat 1 --handshake-timeout 2 --frame-max 8192 --channel-max 3 --message-max 4kB \
             --connections-max 5 --memory-high-watermark 6MiB --outbox-max 7MiB \
             --queue-max-length 8 --queues-max 9 --exchanges-max 10 --bindings-per-exchange-max 11 \
             --consumers-per-channel-max 12 --transaction-max 13 --table-depth-max 14 --consumer-timeout 15 --handshakes-max 16",
        );
        let expected = Broker::builder()
            .heartbeat(Duration::from_secs(1))
            .handshake_timeout(Duration::from_secs(2))
            .frame_max(8_192)
            .channel_max(3)
            .message_max_bytes(4_000)
            .connections_max(5)
            .memory_high_watermark(6 << 20)
            .outbox_max_bytes(7 << 20)
            .queue_max_length(8)
            .queues_max(9)
            .exchanges_max(10)
            .bindings_per_exchange_max(11)
            .consumers_per_channel_max(12)
            .transaction_max(13)
            .table_depth_max(14)
            .consumer_timeout(Duration::from_secs(15))
            .handshakes_max(16);
        assert_eq!(format!("{:?}", given.unwrap()), format!("{expected:?}"));
    }

    #[test]
    fn sizes_have_units() {
        let sizes = ["0", "17", "2KiB", "3 mb", "1GiB"].map(|text| text.parse::<Size>().unwrap().0);
        assert_eq!(sizes, [0, 17, 2_048, 3_000_000, 1 << 30]);
        for text in ["", "MiB", "1.5GB", "-1", "7 apples", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(("25%".parse(), "1kB".parse()), (Ok(Share::Percent(25)), Ok(Share::Bytes(Size(1_000)))));
        assert!("101%".parse::<Share>().is_err());
        for text in ["0", "1001B", "64kB", "128MiB", "1GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    /// As the documentation writes numbers: groups of three digits, with spaces between them.
    fn grouped(number: usize) -> String {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        groups.join(" ")
    }

    #[test]
    fn the_documentation_of_every_limit_names_its_default() {
        let guide = include_str!("../../docs/broker.md");
        let builder = include_str!("../broker/limits.rs").replace("\n    ///", "");
        let size = |bytes: u64| Size(bytes).to_string().replace("MiB", " MiB");
        let limits = [
            ("connections_max", grouped(defaults::CONNECTIONS_MAX)),
            ("handshakes_max", format!("a quarter of all, at least {}", defaults::handshakes_max(0))),
            ("channel_max", grouped(defaults::CHANNEL_MAX.into())),
            ("frame_max", grouped(defaults::FRAME_MAX as usize)),
            ("message_max_bytes", "128 MiB".to_owned()),
            ("handshake_timeout", format!("{} s", defaults::HANDSHAKE_TIMEOUT_S)),
            ("heartbeat", format!("{} s", defaults::HEARTBEAT_S)),
            ("consumer_timeout", format!("{} min", defaults::CONSUMER_TIMEOUT_S / 60)),
            ("memory_high_watermark", format!("{} % of the memory", defaults::MEMORY_HIGH_WATERMARK_PERCENT)),
            ("outbox_max_bytes", size(defaults::OUTBOX_MAX_BYTES as u64)),
            ("queue_max_length", "none".to_owned()),
            ("queues_max", grouped(defaults::QUEUES_MAX)),
            ("exchanges_max", grouped(defaults::EXCHANGES_MAX)),
            ("bindings_per_exchange_max", grouped(defaults::BINDINGS_PER_EXCHANGE_MAX)),
            ("consumers_per_channel_max", grouped(defaults::CONSUMERS_PER_CHANNEL_MAX)),
            ("transaction_max", grouped(defaults::TRANSACTION_MAX)),
            ("table_depth_max", grouped(defaults::TABLE_DEPTH_MAX)),
        ];
        let rows = guide.lines().filter(|line| line.contains("` | `--")).count();
        assert_eq!(rows, limits.len(), "a row of the guide for each limit");
        for (method, default) in limits {
            let flag = method.trim_end_matches("_bytes").replace('_', "-");
            let row = format!("| {default} | `{method}` | `--{flag}` |");
            assert!(guide.contains(&row), "the guide lacks {row}");
            let (before, _) = builder.split_once(&format!("    pub fn {method}(")).unwrap();
            let (_, doc) = before.rsplit_once("    }\n\n").unwrap_or(("", before));
            assert!(doc.contains(&format!("default is {default}")), "{method} says another default: {doc}");
        }
    }
}

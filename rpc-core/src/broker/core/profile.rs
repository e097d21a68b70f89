//! The versions of RabbitMQ that the broker passes for, and the facts in which they differ, as data.
//!
//! The code that a fact concerns reads it where it acts. No code asks for the version itself.

/// The version of RabbitMQ whose behaviour a broker reproduces.
///
/// The version shows in the server properties that clients receive. `tests/parity` compares each profile with a node of its
/// version, frame by frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profile {
    /// RabbitMQ 3.10, as Debian 12 packages it. The default.
    #[default]
    RabbitMq3_10,
    /// RabbitMQ 4.3.
    RabbitMq4_3,
}

impl Profile {
    pub(crate) const fn facts(self) -> &'static Facts {
        match self {
            Self::RabbitMq3_10 => &RABBITMQ_3_10,
            Self::RabbitMq4_3 => &RABBITMQ_4_3,
        }
    }
}

/// The facts in which the versions differ.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: &'static str,
    /// The Erlang that Debian packages with it; some clients parse this.
    pub(crate) platform: &'static str,
    /// The mechanisms of `connection.start`, apart from `EXTERNAL`.
    pub(crate) mechanisms: &'static str,
    /// Whether a client of AMQP 0-8 is served.
    pub(crate) speaks_0_8: bool,
    /// The answer to a protocol header of another protocol or version.
    pub(crate) protocol_header: [u8; 8],
    /// The least `frame_max` that a client may ask for.
    pub(crate) frame_min: u32,
    /// The default of the largest message.
    pub(crate) message_max_bytes: u64,
    /// The largest body that a content header may announce, whatever the largest message is.
    pub(crate) announced_max_bytes: u64,
    /// Whether a refusal names the right that is missing.
    pub(crate) names_right: bool,
    /// Whether a passive declaration needs a right, whichever it is.
    pub(crate) passive_needs_right: bool,
    /// Whether a user needs the topic permission for the routing keys in CC and BCC, too.
    pub(crate) checks_topics_of_copies: bool,
    /// Whether an unknown exchange type closes only the channel.
    pub(crate) unknown_exchange_type_is_soft: bool,
    /// Whether `basic.qos` with `global` sets a window that all consumers of the channel share.
    pub(crate) has_shared_window: bool,
    /// Whether a message whose `delivery_mode` is neither 1 nor 2 is refused.
    pub(crate) checks_delivery_mode: bool,
    /// Whether a mandatory direct reply is returned if its consumer has gone.
    pub(crate) returns_direct_replies: bool,
    /// Whether a made-up address of a direct reply is an internal error for its publisher.
    pub(crate) fails_on_made_up_addresses: bool,
    /// Whether a queue cannot be bound whose name is an address of direct replies.
    pub(crate) knows_volatile_queues: bool,
    /// Whether direct replies count in the delivery tags of their channel.
    pub(crate) counts_direct_replies: bool,
    /// Whether direct replies wait for the commit of their transaction.
    pub(crate) commits_direct_replies: bool,
    /// Whether a transaction whose queue was deleted closes the connection at its commit.
    pub(crate) commit_needs_queues: bool,
    /// Whether a `cancel-ok` from a client is an internal error.
    pub(crate) cancel_ok_is_internal_error: bool,
    /// Whether integers and floating-point numbers of equal value are equal in header matches.
    pub(crate) integers_match_floats: bool,
    /// The most `#` in the binding key of a topic exchange.
    pub(crate) binding_hashes_max: usize,
    pub(crate) queues: QueueFacts,
    pub(crate) letters: LetterFacts,
}

/// The facts about queues and their arguments.
#[derive(Debug)]
pub(crate) struct QueueFacts {
    /// The arguments that the version knows, and the types of queues that accept them: classic, quorum, stream. A repeated
    /// declaration must give equal ones; they are compared in this order.
    pub(crate) arguments: &'static [(&'static str, [bool; 3])],
    /// The values of `x-queue-version` that are supported.
    pub(crate) versions: &'static [u64],
    /// Whether `x-consumer-timeout` is an argument, of quorum queues and of their consumers.
    pub(crate) has_consumer_timeout: bool,
    /// Whether quorum queues delay requeued messages, if their declaration says so.
    pub(crate) has_delayed_retry: bool,
    /// Whether the value of `x-queue-mode` is checked.
    pub(crate) checks_mode: bool,
    /// Whether a missing `x-queue-type` is `classic` in the text of a refusal.
    pub(crate) type_is_never_missing: bool,
    /// How quorum queues count and order.
    pub(crate) quorum: QuorumFacts,
    pub(crate) streams: StreamFacts,
}

/// How quorum queues count deliveries and order messages.
#[derive(Debug)]
pub(crate) struct QuorumFacts {
    /// How a refusal names the type.
    pub(crate) noun: &'static str,
    /// Whether a requeue by `basic.nack` leaves `x-delivery-count` as it is, beside `x-acquired-count`, which counts all.
    pub(crate) counts_failures_apart: bool,
    /// Whether the bytes of properties count for `x-max-length-bytes`.
    pub(crate) counts_properties: bool,
    /// The delivery limit of a queue that declares none.
    pub(crate) delivery_limit: Option<i64>,
    /// The highest priority of a message.
    pub(crate) priority_max: u8,
    /// The priority of a message without one.
    pub(crate) priority_default: u8,
}

/// Deliveries and refusals of streams.
#[derive(Debug)]
pub(crate) struct StreamFacts {
    /// Whether every delivery has a `delivery_mode`: transient, unless the publisher set one.
    pub(crate) sends_delivery_mode: bool,
    /// How the refusal of a consumer without acknowledgements names a stream.
    pub(crate) noun: &'static str,
    /// The text around its name where a prefetch count is missing.
    pub(crate) no_prefetch: [&'static str; 2],
    /// Whether mistakes that the version cannot read close the connection as internal errors.
    pub(crate) has_internal_errors: bool,
    /// Whether deliveries cannot be rejected or requeued.
    pub(crate) refuses_requeue: bool,
}

/// The headers of a dead letter.
#[derive(Debug)]
pub(crate) struct LetterFacts {
    /// Whether it has `x-last-death-*`.
    pub(crate) has_last_death: bool,
    /// Whether each death reverses the order of those before.
    pub(crate) reverses_deaths: bool,
    /// Whether CC stays when the queue sets a routing key.
    pub(crate) keeps_copies: bool,
    /// Whether an `x-death` that a client wrote is continued.
    pub(crate) believes_clients: bool,
    /// Whether it knows how often its deliveries failed before: it is a redelivery then.
    pub(crate) counts_failures: bool,
}

static RABBITMQ_3_10: Facts = Facts {
    version: "3.10.8",
    platform: "Erlang/OTP 25.2.3",
    mechanisms: "AMQPLAIN PLAIN",
    speaks_0_8: true,
    protocol_header: *b"AMQP\0\0\x09\x01",
    frame_min: 4_096,
    message_max_bytes: 128 << 20,
    announced_max_bytes: u64::MAX,
    names_right: false,
    passive_needs_right: false,
    checks_topics_of_copies: false,
    unknown_exchange_type_is_soft: false,
    has_shared_window: true,
    checks_delivery_mode: true,
    returns_direct_replies: true,
    fails_on_made_up_addresses: true,
    knows_volatile_queues: false,
    counts_direct_replies: false,
    commits_direct_replies: false,
    commit_needs_queues: false,
    cancel_ok_is_internal_error: false,
    integers_match_floats: true,
    binding_hashes_max: usize::MAX,
    queues: QueueFacts {
        arguments: &ARGUMENTS_3_10,
        versions: &[1, 2],
        has_consumer_timeout: false,
        has_delayed_retry: false,
        checks_mode: true,
        type_is_never_missing: false,
        quorum: QuorumFacts {
            noun: "quorum",
            counts_failures_apart: false,
            counts_properties: false,
            delivery_limit: None,
            priority_max: 0,
            priority_default: 0,
        },
        streams: StreamFacts {
            sends_delivery_mode: false,
            noun: "stream queues queue",
            no_prefetch: ["'queue", "'"],
            has_internal_errors: true,
            refuses_requeue: true,
        },
    },
    letters: LetterFacts {
        has_last_death: false,
        reverses_deaths: true,
        keeps_copies: false,
        believes_clients: true,
        counts_failures: false,
    },
};

static RABBITMQ_4_3: Facts = Facts {
    version: "4.3.6",
    platform: "Erlang/OTP 27.3.4",
    mechanisms: "ANONYMOUS AMQPLAIN PLAIN",
    speaks_0_8: false,
    protocol_header: *b"AMQP\x03\x01\0\0",
    frame_min: 8_192,
    message_max_bytes: 16 << 20,
    announced_max_bytes: 512 << 20,
    names_right: true,
    passive_needs_right: true,
    checks_topics_of_copies: true,
    unknown_exchange_type_is_soft: true,
    has_shared_window: false,
    checks_delivery_mode: false,
    returns_direct_replies: false,
    fails_on_made_up_addresses: false,
    knows_volatile_queues: true,
    counts_direct_replies: true,
    commits_direct_replies: true,
    commit_needs_queues: true,
    cancel_ok_is_internal_error: true,
    integers_match_floats: false,
    binding_hashes_max: 2,
    queues: QueueFacts {
        arguments: &ARGUMENTS_4_3,
        versions: &[2],
        has_consumer_timeout: true,
        has_delayed_retry: true,
        checks_mode: false,
        type_is_never_missing: true,
        quorum: QuorumFacts {
            noun: "<<\"quorum\">>",
            counts_failures_apart: true,
            counts_properties: true,
            delivery_limit: Some(20),
            priority_max: 31,
            priority_default: 4,
        },
        streams: StreamFacts {
            sends_delivery_mode: true,
            noun: "stream queue",
            no_prefetch: ["stream queue", ""],
            has_internal_errors: false,
            refuses_requeue: false,
        },
    },
    letters: LetterFacts {
        has_last_death: true,
        reverses_deaths: false,
        keeps_copies: true,
        believes_clients: false,
        counts_failures: true,
    },
};

/// The first ones of 4.3, of which classic queues refuse one more.
static ARGUMENTS_3_10: [(&str, [bool; 3]); 23] = {
    let (known, _) = ARGUMENTS_4_3.split_at(23);
    let mut arguments = [("", [false; 3]); 23];
    arguments.copy_from_slice(known);
    arguments[LEADER_LOCATOR].1 = [false, true, true];
    arguments
};

/// The place of `x-queue-leader-locator`.
const LEADER_LOCATOR: usize = 16;

const ARGUMENTS_4_3: [(&str, [bool; 3]); 28] = [
    // name, classic, quorum, stream
    ("x-expires", [true, true, false]),
    ("x-message-ttl", [true, true, false]),
    ("x-dead-letter-exchange", [true, true, false]),
    ("x-dead-letter-routing-key", [true, true, false]),
    ("x-dead-letter-strategy", [false, true, false]),
    ("x-max-length", [true, true, false]),
    ("x-max-length-bytes", [true, true, true]),
    ("x-max-in-memory-length", [false, true, false]),
    ("x-max-in-memory-bytes", [false, true, false]),
    ("x-single-active-consumer", [true, true, false]),
    ("x-max-priority", [true, false, false]),
    ("x-overflow", [true, true, false]),
    ("x-queue-mode", [true, false, false]),
    ("x-queue-version", [true, false, false]),
    ("x-queue-type", [true, true, true]),
    ("x-queue-master-locator", [true, false, false]),
    ("x-queue-leader-locator", [true, true, true]),
    ("x-quorum-initial-group-size", [false, true, false]),
    ("x-delivery-limit", [false, true, false]),
    ("x-max-age", [false, false, true]),
    ("x-stream-max-segment-size-bytes", [false, false, true]),
    ("x-initial-cluster-size", [false, false, true]),
    ("x-stream-filter-size-bytes", [true, true, true]),
    ("x-consumer-timeout", [false, true, false]),
    ("x-consumer-disconnected-timeout", [false, true, false]),
    ("x-delayed-retry-min", [false, true, false]),
    ("x-delayed-retry-max", [false, true, false]),
    ("x-delayed-retry-type", [false, true, false]),
];

//! Queue arguments, such as `x-message-ttl`: checked and compared as RabbitMQ does.

use std::time::Duration;

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::broker::core::{
    fault::Fault,
    profile::QueueFacts,
    vhost::{
        field_values::{integer_of, shown, type_name},
        message::Message,
        stream::{self, Retention, SEGMENT_MAX_BYTES},
    },
};

/// How a full queue treats a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Overflow {
    /// Drop messages from the head.
    #[default]
    DropHead,
    /// Refuse the new message.
    RejectPublish,
    /// Refuse it, and dead-letter it.
    RejectPublishDeadLetter,
}

/// The arguments the broker acts on.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct QueueArguments {
    pub(crate) message_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) max_length: Option<u64>,
    pub(crate) max_length_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter_exchange: Option<String>,
    pub(crate) dead_letter_routing_key: Option<String>,
    pub(crate) max_priority: Option<u8>,
    pub(crate) single_active_consumer: bool,
    /// Whether deliveries are counted, and the count is sent in `x-delivery-count`.
    pub(crate) is_quorum: bool,
    /// The retention of a stream; `None` for another type of queue.
    pub(crate) stream: Option<Box<Retention>>,
    /// Whether `x-delivery-count` counts failures alone.
    pub(crate) counts_failures_apart: bool,
    /// Whether the bytes of properties count for `max_length_bytes`.
    pub(crate) counts_properties: bool,
    /// The highest priority in a quorum queue, and the one of a message without any.
    pub(crate) quorum_priorities: (u8, u8),
    /// How often a message may be requeued before it is dead-lettered.
    pub(crate) delivery_limit: Option<i64>,
    /// Whether requeued messages wait before they are ready.
    pub(crate) delayed_retry: Option<Box<DelayedRetry>>,
    /// How long a consumer may keep a message.
    pub(crate) consumer_timeout: Option<Duration>,
    /// Whether `x-delivery-limit` was given at all, even with a value that is not usable.
    pub(crate) has_delivery_limit: bool,
}

/// How long the requeued messages of a quorum queue wait before they are ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DelayedRetry {
    /// Whether a message waits whose delivery has failed.
    failed: bool,
    /// Whether one waits that a client has returned by `basic.nack`.
    returned: bool,
    min_ms: u64,
    max_ms: u64,
}

impl DelayedRetry {
    /// Whether a requeued message waits.
    pub(crate) const fn delays(self, has_failed: bool) -> bool {
        if has_failed { self.failed } else { self.returned }
    }

    /// How long it waits after so many failures: longer after each.
    pub(crate) fn delay(self, failed_count: u16) -> Duration {
        let delay_ms = self.min_ms.saturating_mul(failed_count.max(1).into());
        Duration::from_millis(delay_ms.min(self.max_ms))
    }
}

/// RabbitMQ's names of the types of queues, for faults.
const CLASSIC: &str = "rabbit_classic_queue";
const QUORUM: &str = "rabbit_quorum_queue";
const STREAM: &str = "rabbit_stream_queue";

impl QueueArguments {
    /// Reads and checks a declaration's arguments. Unknown ones are ignored.
    pub(crate) fn read(table: &FieldTable, queue: &str, vhost: &str, facts: &QueueFacts) -> Result<Self, Fault> {
        let read = Reader { table, queue, vhost, facts };
        let module = read.module()?;
        for &(argument, [classic, quorum, stream]) in facts.arguments {
            let is_taken = match module {
                QUORUM => quorum,
                STREAM => stream,
                _ => classic,
            };
            if !is_taken && table.contains_key(argument) {
                return Err(Fault::argument_of_other_type(argument, queue, vhost, module));
            }
        }
        // In RabbitMQ's order, because the fault names the first of several wrong ones.
        let mut arguments = Self {
            is_quorum: module == QUORUM,
            counts_failures_apart: module == QUORUM && facts.quorum.counts_failures_apart,
            counts_properties: module == QUORUM && facts.quorum.counts_properties,
            quorum_priorities: (facts.quorum.priority_max, facts.quorum.priority_default),
            stream: None,
            expires: read.milliseconds("x-expires", 1)?,
            message_ttl: read.milliseconds("x-message-ttl", 0)?,
            dead_letter_exchange: read.dead_letter_exchange()?,
            dead_letter_routing_key: read.name("x-dead-letter-routing-key")?,
            max_length: read.integer("x-max-length", 0)?,
            max_length_bytes: read.integer("x-max-length-bytes", 0)?,
            single_active_consumer: read.boolean("x-single-active-consumer")?,
            // RabbitMQ accepts any value, and applies it if it is an integer.
            delivery_limit: table.inner().get("x-delivery-limit").and_then(integer_of).or(facts.quorum.delivery_limit),
            has_delivery_limit: table.contains_key("x-delivery-limit") || facts.quorum.delivery_limit.is_some(),
            delayed_retry: read.delayed_retry().filter(|_| facts.has_delayed_retry && module == QUORUM).map(Box::new),
            consumer_timeout: None,
            overflow: Overflow::DropHead,
            max_priority: None,
        };
        if arguments.dead_letter_routing_key.is_some() && arguments.dead_letter_exchange.is_none() {
            return Err(read.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        if let Some(max_priority) = read.integer("x-max-priority", 0)? {
            let too_high = |_| read.invalid("x-max-priority", &format!("{{max_value_exceeded,{max_priority}}}"));
            arguments.max_priority = Some(u8::try_from(max_priority).map_err(too_high)?);
        }
        arguments.overflow = match read.text("x-overflow")? {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            Some(_) => return Err(read.invalid("x-overflow", "invalid_overflow")),
        };
        if facts.has_consumer_timeout {
            arguments.consumer_timeout = read.integer("x-consumer-timeout", 0)?.map(Duration::from_millis);
            read.integer("x-consumer-disconnected-timeout", 0)?;
        }
        read.check_ignored()?;
        if module == STREAM {
            arguments.stream = Some(Box::new(read.retention(arguments.max_length_bytes.take())?));
        }
        Ok(arguments)
    }
}

impl QueueArguments {
    /// RabbitMQ's name of the type of queue they are for.
    pub(crate) const fn module(&self) -> &'static str {
        match self {
            Self { is_quorum: true, .. } => QUORUM,
            Self { stream: Some(_), .. } => STREAM,
            _ => CLASSIC,
        }
    }

    /// The bytes of a message, as `max_length_bytes` counts them.
    pub(crate) fn bytes_of(&self, message: &Message) -> u64 {
        let properties = if self.counts_properties { message.properties().len() } else { 0 };
        (message.body_bytes() + properties) as u64
    }

    /// Applies a limit of the whole broker, which no declaration can raise. Where it is the lower one, the queue refuses
    /// publishes instead of dropping messages, because its declaration did not agree to losing any.
    pub(crate) fn limit_length(&mut self, max_length: u64, has_overflow: bool) {
        if self.max_length.is_none_or(|own| own > max_length) {
            self.max_length = Some(max_length);
            if !has_overflow {
                self.overflow = Overflow::RejectPublish;
            }
        }
    }
}

/// The requested type of queue, if it is one that the broker generates no names for.
pub(crate) fn type_with_name(table: &FieldTable) -> Option<&'static str> {
    match table.inner().get("x-queue-type")? {
        AMQPValue::LongString(kind) if kind.as_bytes() == b"quorum" => Some(QUORUM),
        AMQPValue::LongString(kind) if kind.as_bytes() == b"stream" => Some(STREAM),
        _ => None,
    }
}

/// Compares a declaration's arguments with those of the queue that exists.
pub(crate) fn check_equivalent(
    received: &FieldTable,
    current: &FieldTable,
    queue: &str,
    vhost: &str,
    facts: &QueueFacts,
) -> Result<(), Fault> {
    let classic = AMQPValue::LongString("classic".into());
    for &(argument, _) in facts.arguments {
        let value = |table: &'_ FieldTable| table.inner().get(argument).cloned();
        let default = || (argument == "x-queue-type" && facts.type_is_never_missing).then(|| classic.clone());
        let [new, old] = [received, current].map(|table| value(table).or_else(default));
        let (new, old) = (new.as_ref(), old.as_ref());
        let is_same = match (new, old) {
            (None, None) => true,
            (Some(new), Some(old)) => same_value(new, old),
            // Classic is the default type.
            (None, Some(AMQPValue::LongString(kind))) | (Some(AMQPValue::LongString(kind)), None)
                if argument == "x-queue-type" && kind.as_bytes() == b"classic" =>
            {
                true
            }
            _ => false,
        };
        if !is_same {
            let (new, old) = (describe(new, old.is_none()), describe(old, new.is_none()));
            return Err(Fault::inequivalent("queue", queue, vhost, argument, &new, &old));
        }
    }
    Ok(())
}

/// Compares integers by value, whatever their types, and other values with their types.
fn same_value(left: &AMQPValue, right: &AMQPValue) -> bool {
    match (integer_of(left), integer_of(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// A value as RabbitMQ's fault shows it: with its type only where the other side is missing.
fn describe(value: Option<&AMQPValue>, is_other_missing: bool) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) if is_other_missing => format!("the value '{}' of type '{}'", shown(value), type_name(value)),
        Some(value) => format!("'{}'", shown(value)),
    }
}

struct Reader<'a> {
    table: &'a FieldTable,
    queue: &'a str,
    vhost: &'a str,
    facts: &'a QueueFacts,
}

impl<'a> Reader<'a> {
    fn integer(&self, argument: &str, least: i64) -> Result<Option<u64>, Fault> {
        let Some(value) = self.table.inner().get(argument) else {
            return Ok(None);
        };
        let Some(integer) = integer_of(value) else {
            let why = format!("\"expected integer, got {}\"", type_name(value));
            return Err(self.invalid(argument, &why));
        };
        match u64::try_from(integer) {
            Ok(0) if least > 0 => Err(self.invalid(argument, "{value_zero,0}")),
            Ok(integer) => Ok(Some(integer)),
            Err(_) => Err(self.invalid(argument, &format!("{{value_negative,{integer}}}"))),
        }
    }

    fn milliseconds(&self, argument: &str, least: i64) -> Result<Option<Duration>, Fault> {
        match self.integer(argument, least)? {
            Some(value) if value > TTL_MAX_MS => Err(self.invalid(argument, &format!("{{value_too_large,{value}}}"))),
            value => Ok(value.map(Duration::from_millis)),
        }
    }

    fn text(&self, argument: &str) -> Result<Option<&'a str>, Fault> {
        match self.table.inner().get(argument) {
            None => Ok(None),
            Some(AMQPValue::LongString(text)) => Ok(std::str::from_utf8(text.as_bytes()).ok()),
            Some(AMQPValue::ShortString(text)) => Ok(Some(text.as_str())),
            Some(value) => Err(self.unacceptable(argument, value)),
        }
    }

    /// A name that messages carry later, so it has to fit a short string.
    fn name(&self, argument: &str) -> Result<Option<String>, Fault> {
        match self.text(argument)? {
            Some(text) if text.len() > 255 => Err(self.invalid(argument, "longer than 255 bytes")),
            text => Ok(text.map(str::to_owned)),
        }
    }

    fn boolean(&self, argument: &str) -> Result<bool, Fault> {
        match self.table.inner().get(argument) {
            None => Ok(false),
            Some(AMQPValue::Boolean(value)) => Ok(*value),
            Some(value) => Err(self.unacceptable(argument, value)),
        }
    }

    fn module(&self) -> Result<&'static str, Fault> {
        match self.text("x-queue-type")? {
            None | Some("classic") => Ok(CLASSIC),
            Some("quorum") => Ok(QUORUM),
            Some("stream") => Ok(STREAM),
            Some(other) => Err(self.invalid("x-queue-type", &format!("\"unsupported queue type '{other}'\""))),
        }
    }

    fn retention(&self, max_bytes: Option<u64>) -> Result<Retention, Fault> {
        let no_age = || match self.facts.streams.has_internal_errors {
            true => Fault::internal_error(),
            false => self.invalid("x-max-age", "invalid_max_age"),
        };
        let max_age = self.text("x-max-age")?.map(|text| stream::age(text).ok_or_else(no_age)).transpose()?;
        let segment_max_bytes = self.integer("x-stream-max-segment-size-bytes", 0)?.unwrap_or(SEGMENT_MAX_BYTES);
        self.integer("x-initial-cluster-size", 1)?;
        Ok(Retention { max_bytes, max_age, segment_max_bytes })
    }

    /// RabbitMQ accepts any values, and applies usable ones.
    fn delayed_retry(&self) -> Option<DelayedRetry> {
        let AMQPValue::LongString(kind) = self.table.inner().get("x-delayed-retry-type")? else { return None };
        let (failed, returned) = match kind.as_bytes() {
            b"all" => (true, true),
            b"failed" => (true, false),
            b"returned" => (false, true),
            _ => return None,
        };
        let positive = |argument| {
            let value = integer_of(self.table.inner().get(argument)?)?;
            u64::try_from(value).ok().filter(|value| *value > 0)
        };
        let min_ms = positive("x-delayed-retry-min")?;
        let max_ms = positive("x-delayed-retry-max").unwrap_or(min_ms);
        Some(DelayedRetry { failed, returned, min_ms, max_ms })
    }

    fn dead_letter_exchange(&self) -> Result<Option<String>, Fault> {
        let argument = "x-dead-letter-exchange";
        match self.table.inner().get(argument) {
            Some(AMQPValue::LongString(_) | AMQPValue::ShortString(_)) | None => self.name(argument),
            Some(value) => {
                Err(Fault::invalid_argument_type(type_name(value), argument, "queue", self.queue, self.vhost))
            }
        }
    }

    /// Checks arguments that have no effect on this broker.
    fn check_ignored(&self) -> Result<(), Fault> {
        for argument in ["x-max-in-memory-length", "x-max-in-memory-bytes"] {
            self.integer(argument, 0)?;
        }
        self.integer("x-quorum-initial-group-size", 1)?;
        match self.text("x-dead-letter-strategy")? {
            None | Some("at-most-once" | "at-least-once") => {}
            Some(_) => return Err(self.invalid("x-dead-letter-strategy", "invalid_dlx_strategy")),
        }
        match self.text("x-queue-leader-locator")? {
            None | Some("client-local" | "balanced" | "random" | "least-leaders") => {}
            Some(_) => return Err(self.invalid("x-queue-leader-locator", "invalid_queue_locator_arg")),
        }
        if self.facts.checks_mode {
            match self.text("x-queue-mode")? {
                None | Some("default" | "lazy") => {}
                Some(mode) => {
                    return Err(self.invalid("x-queue-mode", &format!("\"unsupported queue mode '{mode}'\"")));
                }
            }
        }
        match self.integer("x-queue-version", 0)? {
            None => Ok(()),
            Some(version) if self.facts.versions.contains(&version) => Ok(()),
            Some(version) => {
                Err(self.invalid("x-queue-version", &format!("\"unsupported queue version '{version}'\"")))
            }
        }
    }

    fn unacceptable(&self, argument: &str, value: &AMQPValue) -> Fault {
        self.invalid(argument, &format!("{{unacceptable_type,{}}}", type_name(value)))
    }

    fn invalid(&self, argument: &str, why: &str) -> Fault {
        Fault::invalid_argument(argument, self.queue, self.vhost, why)
    }
}

/// RabbitMQ's limit of every time to live: ten years.
pub(crate) const TTL_MAX_MS: u64 = 315_360_000_000;

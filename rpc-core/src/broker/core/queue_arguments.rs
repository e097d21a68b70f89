//! Queue arguments: `x-message-ttl` and its kin, checked and compared as RabbitMQ does.

use std::time::Duration;

use amq_protocol::types::{AMQPValue, FieldTable};

use super::fault::Fault;

/// What to do with a publish to a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Overflow {
    /// Make room at the head.
    #[default]
    DropHead,
    /// Refuse the new message.
    RejectPublish,
    /// Refuse it, and dead-letter it.
    RejectPublishDeadLetter,
}

/// The arguments the broker acts on.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct QueueArguments {
    pub(super) message_ttl: Option<Duration>,
    pub(super) expires: Option<Duration>,
    pub(super) max_length: Option<u64>,
    pub(super) max_length_bytes: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) dead_letter_exchange: Option<String>,
    pub(super) dead_letter_routing_key: Option<String>,
    pub(super) max_priority: Option<u8>,
    pub(super) single_active_consumer: bool,
}

/// The arguments that must be equal when a queue is declared again, in the order they are compared.
pub(super) const COMPARED: [&str; 12] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-single-active-consumer",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-type",
];

impl QueueArguments {
    /// Reads and checks a declaration's arguments; arguments nobody knows are ignored.
    pub(super) fn read(table: &FieldTable, queue: &str, vhost: &str) -> Result<Self, Fault> {
        let read = Reader { table, queue, vhost };
        read.check_supported()?;
        // In RabbitMQ's order: of several wrong ones the first is named.
        let mut arguments = Self {
            expires: read.integer("x-expires", 1)?.map(Duration::from_millis),
            message_ttl: read.integer("x-message-ttl", 0)?.map(Duration::from_millis),
            dead_letter_exchange: read.dead_letter_exchange()?.map(str::to_owned),
            dead_letter_routing_key: read.text("x-dead-letter-routing-key")?.map(str::to_owned),
            max_length: read.integer("x-max-length", 0)?,
            max_length_bytes: read.integer("x-max-length-bytes", 0)?,
            single_active_consumer: read.boolean("x-single-active-consumer")?,
            ..Self::default()
        };
        if arguments.dead_letter_routing_key.is_some() && arguments.dead_letter_exchange.is_none() {
            return Err(read.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        if let Some(max_priority) = read.integer("x-max-priority", 0)? {
            arguments.max_priority = Some(
                u8::try_from(max_priority)
                    .map_err(|_| read.invalid("x-max-priority", &format!("{{max_value_exceeded,{max_priority}}}")))?,
            );
        }
        arguments.overflow = match read.text("x-overflow")? {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            Some(_) => return Err(read.invalid("x-overflow", "invalid_overflow")),
        };
        match read.text("x-queue-mode")? {
            None | Some("default" | "lazy") => {}
            Some(other) => {
                return Err(read.invalid("x-queue-mode", &format!("\"unsupported queue mode '{other}'\"")));
            }
        }
        match read.integer("x-queue-version", 0)? {
            None | Some(1 | 2) => {}
            Some(other) => {
                return Err(read.invalid("x-queue-version", &format!("\"unsupported queue version '{other}'\"")));
            }
        }
        match read.text("x-queue-type")? {
            None | Some("classic" | "quorum") => {}
            Some(other) => {
                return Err(read.invalid("x-queue-type", &format!("\"unsupported queue type '{other}'\"")));
            }
        }
        Ok(arguments)
    }
}

/// Whether the declaration asks for a quorum queue.
pub(super) fn is_quorum(table: &FieldTable) -> bool {
    matches!(table.inner().get("x-queue-type"), Some(AMQPValue::LongString(kind)) if kind.as_bytes() == b"quorum")
}

/// Compares a declaration's arguments with those of the queue that exists.
pub(super) fn check_equivalent(
    received: &FieldTable,
    current: &FieldTable,
    queue: &str,
    vhost: &str,
) -> Result<(), Fault> {
    for argument in COMPARED {
        let (new, old) = (received.inner().get(argument), current.inner().get(argument));
        let is_same = match (new, old) {
            (None, None) => true,
            (Some(new), Some(old)) => same_value(new, old),
            // A classic queue is what one gets without asking.
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

/// Numbers are compared by value, everything else as it is.
fn same_value(left: &AMQPValue, right: &AMQPValue) -> bool {
    match (integer_of(left), integer_of(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// RabbitMQ names the type only where the other side is missing.
fn describe(value: Option<&AMQPValue>, is_other_missing: bool) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) if is_other_missing => format!("the value '{}' of type '{}'", text_of(value), type_name(value)),
        Some(value) => format!("'{}'", text_of(value)),
    }
}

struct Reader<'a> {
    table: &'a FieldTable,
    queue: &'a str,
    vhost: &'a str,
}

impl<'a> Reader<'a> {
    /// Arguments of the other type of queue are refused, those of no type are not.
    fn check_supported(&self) -> Result<(), Fault> {
        let (kind, unsupported): (_, &[&str]) = match is_quorum(self.table) {
            true => ("rabbit_quorum_queue", &["x-max-priority"]),
            false => ("rabbit_classic_queue", &["x-delivery-limit", "x-queue-leader-locator"]),
        };
        let Some(argument) = unsupported.iter().find(|argument| self.table.inner().contains_key(**argument)) else {
            return Ok(());
        };
        let Self { queue, vhost, .. } = self;
        Err(Fault::precondition(format!(
            "invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}' of queue type {kind}"
        )))
    }

    fn dead_letter_exchange(&self) -> Result<Option<&'a str>, Fault> {
        const ARGUMENT: &str = "x-dead-letter-exchange";
        match self.table.inner().get(ARGUMENT) {
            Some(value) if !matches!(value, AMQPValue::LongString(_) | AMQPValue::ShortString(_)) => {
                let (kind, Self { queue, vhost, .. }) = (type_name(value), self);
                Err(Fault::precondition(format!(
                    "invalid type '{kind}' for arg '{ARGUMENT}' in queue '{queue}' in vhost '{vhost}'"
                )))
            }
            _ => self.text(ARGUMENT),
        }
    }

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

    fn text(&self, argument: &str) -> Result<Option<&'a str>, Fault> {
        match self.table.inner().get(argument) {
            None => Ok(None),
            Some(AMQPValue::LongString(text)) => Ok(std::str::from_utf8(text.as_bytes()).ok()),
            Some(AMQPValue::ShortString(text)) => Ok(Some(text.as_str())),
            Some(value) => {
                let why = format!("{{unacceptable_type,{}}}", type_name(value));
                Err(self.invalid(argument, &why))
            }
        }
    }

    fn boolean(&self, argument: &str) -> Result<bool, Fault> {
        match self.table.inner().get(argument) {
            None => Ok(false),
            Some(AMQPValue::Boolean(value)) => Ok(*value),
            Some(value) => {
                let why = format!("{{unacceptable_type,{}}}", type_name(value));
                Err(self.invalid(argument, &why))
            }
        }
    }

    fn invalid(&self, argument: &str, why: &str) -> Fault {
        Fault::invalid_argument(argument, self.queue, self.vhost, why)
    }
}

pub(super) fn integer_of(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => *value,
        _ => return None,
    })
}

fn text_of(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.as_str().to_owned(),
        AMQPValue::Boolean(value) => value.to_string(),
        value => integer_of(value).map_or_else(|| format!("{value:?}"), |integer| integer.to_string()),
    }
}

/// RabbitMQ's names of the field types.
pub(super) fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => "longstr",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Void => "void",
    }
}

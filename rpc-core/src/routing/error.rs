//! The errors of the router.
//!
//! An error names the exchange, queue or argument. The broker adds the reply code and the rest of RabbitMQ's text
//! ("… in vhost '/'").

use amq_protocol::types::AMQPValue;

use super::id::QueueId;

/// A refused change to the topology, or a message for an exchange that does not exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RoutingError {
    /// The named exchange does not exist.
    #[error("no exchange '{0}'")]
    NoSuchExchange(String),
    /// The queue was never added, or has been removed.
    #[error("no queue with id {id}", id = .0.0)]
    NoSuchQueue(QueueId),
    /// The default exchange can be neither declared, bound nor unbound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// The exchange exists with other options. `received` and `current` have RabbitMQ's form, with its quotes: `'true'`,
    /// `none`, `the value 'a' of type 'longstr'`.
    #[error("inequivalent arg '{field}': received {received} but current is {current}")]
    Inequivalent {
        /// The option: `type`, `durable`, `auto_delete`, `internal` or `alternate-exchange`.
        field: &'static str,
        /// The value in the declaration.
        received: String,
        /// The value of the exchange.
        current: String,
    },
    /// The exchange has the most bindings allowed.
    #[error("cannot bind to exchange '{exchange}': its limit of {max} bindings is reached")]
    TooManyBindings {
        /// The exchange.
        exchange: String,
        /// The limit.
        max: usize,
    },
    /// The routing key of a binding to a topic exchange has too many `#`.
    #[error("Topic binding key '{key}' uses {hashes} '#' wildcards, at most {max} are allowed")]
    TooManyHashes {
        /// The routing key.
        key: String,
        /// Their number.
        hashes: usize,
        /// The limit.
        max: usize,
    },
    /// `x-match` of a binding to a headers exchange is none of the four words.
    #[error("{}", describe_invalid_x_match(.0))]
    InvalidXMatch(AMQPValue),
}

impl RoutingError {
    pub(super) fn no_exchange(name: &str) -> Self {
        Self::NoSuchExchange(name.to_owned())
    }
}

/// RabbitMQ's text about an invalid `x-match`. Values have Erlang's form.
fn describe_invalid_x_match(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(word) => format!(
            "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
            erlang_binary(word.as_bytes())
        ),
        _ => {
            let (kind, text) = erlang_value(value);
            format!("Invalid x-match field type {kind} (value {text}); expected longstr")
        }
    }
}

/// RabbitMQ's name of the type, and the value. Nested values are shortened to `…`.
fn erlang_value(value: &AMQPValue) -> (&'static str, String) {
    match value {
        AMQPValue::Boolean(v) => ("bool", v.to_string()),
        AMQPValue::ShortShortInt(v) => ("byte", v.to_string()),
        AMQPValue::ShortShortUInt(v) => ("unsignedbyte", v.to_string()),
        AMQPValue::ShortInt(v) => ("short", v.to_string()),
        AMQPValue::ShortUInt(v) => ("unsignedshort", v.to_string()),
        AMQPValue::LongInt(v) => ("signedint", v.to_string()),
        AMQPValue::LongUInt(v) => ("unsignedint", v.to_string()),
        AMQPValue::LongLongInt(v) => ("long", v.to_string()),
        AMQPValue::Float(v) => ("float", format!("{v:?}")),
        AMQPValue::Double(v) => ("double", format!("{v:?}")),
        AMQPValue::DecimalValue(v) => ("decimal", format!("{{{},{}}}", v.scale, v.value)),
        AMQPValue::ShortString(v) => ("shortstr", erlang_binary(v.as_str().as_bytes())),
        AMQPValue::LongString(v) => ("longstr", erlang_binary(v.as_bytes())),
        AMQPValue::FieldArray(_) => ("array", "[…]".to_owned()),
        AMQPValue::Timestamp(v) => ("timestamp", v.to_string()),
        AMQPValue::FieldTable(_) => ("table", "[…]".to_owned()),
        AMQPValue::ByteArray(v) => ("binary", erlang_binary(v.as_slice())),
        AMQPValue::Void => ("void", "undefined".to_owned()),
    }
}

/// `<<"text">>`, or `<<1,2,3>>` when a byte is not printable.
fn erlang_binary(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "<<>>".to_owned();
    }
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        let text = String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"");
        return format!("<<\"{text}\">>");
    }
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}

//! Why the router refuses.
//!
//! It names the offender; the reply codes and the rest of RabbitMQ's sentences ("… in vhost '/'") are the broker's.

use amq_protocol::types::AMQPValue;

use super::{QueueId, headers};

/// A refused change to the topology, or a message for an exchange that does not exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// The named exchange does not exist.
    #[error("no exchange '{0}'")]
    NoSuchExchange(String),
    /// The queue was never added, or has been removed.
    #[error("no queue with id {id}", id = .0.0)]
    NoSuchQueue(QueueId),
    /// The default exchange can be neither declared, bound nor unbound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// The exchange exists with other options. `received` and `current` are written as RabbitMQ writes them, quotes
    /// included: `'true'`, `none`, `the value 'a' of type 'longstr'`.
    #[error("inequivalent arg '{field}': received {received} but current is {current}")]
    Inequivalent {
        /// The option: `type`, `durable`, `auto_delete`, `internal` or `alternate-exchange`.
        field: &'static str,
        /// What the declaration asked for.
        received: String,
        /// What the exchange has.
        current: String,
    },
    /// As many bindings lead from the exchange as may.
    #[error("cannot bind to exchange '{exchange}': its limit of {max} bindings is reached")]
    TooManyBindings {
        /// Where they lead from.
        exchange: String,
        /// The limit.
        max: usize,
    },
    /// `x-match` of a binding to a headers exchange is none of the four words.
    #[error("{}", headers::describe_invalid_x_match(.0))]
    InvalidXMatch(AMQPValue),
}

impl RoutingError {
    pub(super) fn no_exchange(name: &str) -> Self {
        Self::NoSuchExchange(name.to_owned())
    }
}

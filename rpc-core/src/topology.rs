//! Names of all exchanges and queues the framework declares, and the declarations of the exchanges.
//!
//! ```text
//!  rpc (direct, durable) ──<service>.<method>──────────► rpc.<service>            each method and alias
//!    │                   ──<service>.<queue>.<method>──► rpc.<service>.<queue>    #[rpc(queue = "…")]
//!    └─alternate─► rpc.other (topic, durable) ──<service>.*──► rpc.<service>      requests without a binding of their own,
//!                                             ──<service>.<queue>.*──► …          so that unknown methods are answered, too
//!  rpc.nested (direct, durable) ──<service>.<method>───► rpc.<service>.nested.calls   requests that handlers make
//!    └─alternate─► rpc                                         where no pool serves those apart
//!  rpc.cancel (direct, durable) ──<service>──► rpc.control.<user>.<uuid>   exclusive, auto-delete, one per worker pool
//!  rpc.srv (topic, durable) ──ping.<service>──► rpc.control.<user>.<uuid>   the same queues
//!  rpc.dead (headers, durable) ──x-first-death-…──► rpc.<service>.dead   requests beyond the delivery limit of a quorum queue
//!                              └─x-first-death-…──► rpc.<service>.dead.callers   the same, until their callers are notified
//!  "" (default) ──► rpc.<service>.dead    requests that a worker dead-letters
//!  "" (default) ──► rpc.reply.<user>.<uuid>.<epoch>   exclusive, auto-delete, one per client and connection epoch
//! ```
//!
//! A direct exchange, because a topic exchange costs RabbitMQ a third of its calls.

use uuid::Uuid;

use crate::connection::amqp::{ExchangeDeclaration, ExchangeKind};

/// The direct exchange every request goes through. Durable.
pub(crate) const EXCHANGE: &str = "rpc";

/// The topic exchange behind it, for requests whose method has no binding of its own.
pub(crate) const OTHER_EXCHANGE: &str = "rpc.other";

/// The direct exchange for requests that a handler makes while it serves one. Durable.
pub(crate) const NESTED_EXCHANGE: &str = "rpc.nested";

/// The direct exchange for cancels: the routing key is a service, all of whose workers get them. Durable.
pub(crate) const CANCEL_EXCHANGE: &str = "rpc.cancel";

/// The topic exchange for questions to pools, such as `ping.<service>`, which all pools of a service get. Durable.
pub(crate) const DISCOVERY_EXCHANGE: &str = "rpc.srv";

/// The headers exchange quorum service queues dead-letter to. It routes requests beyond the delivery limit to the service's
/// dead letters, and drops those that expired. Durable.
pub(crate) const DEAD_EXCHANGE: &str = "rpc.dead";

/// The exchanges every caller needs; the alternate exchange first.
pub(crate) const REQUEST_EXCHANGES: [ExchangeDeclaration; 2] = [
    ExchangeDeclaration { name: OTHER_EXCHANGE, kind: ExchangeKind::Topic, alternate: None },
    ExchangeDeclaration { name: EXCHANGE, kind: ExchangeKind::Direct, alternate: Some(OTHER_EXCHANGE) },
];

/// Those that every worker needs, and a handler that calls others.
pub(crate) const SERVICE_EXCHANGES: [ExchangeDeclaration; 3] = [
    REQUEST_EXCHANGES[0],
    REQUEST_EXCHANGES[1],
    ExchangeDeclaration { name: NESTED_EXCHANGE, kind: ExchangeKind::Direct, alternate: Some(EXCHANGE) },
];

pub(crate) const CANCELS: ExchangeDeclaration =
    ExchangeDeclaration { name: CANCEL_EXCHANGE, kind: ExchangeKind::Direct, alternate: None };

pub(crate) const DISCOVERY: ExchangeDeclaration =
    ExchangeDeclaration { name: DISCOVERY_EXCHANGE, kind: ExchangeKind::Topic, alternate: None };

pub(crate) const DEAD_LETTERS: ExchangeDeclaration =
    ExchangeDeclaration { name: DEAD_EXCHANGE, kind: ExchangeKind::Headers, alternate: None };

/// Every topology name starts with this.
const PREFIX: &str = "rpc";

/// Names of reply queues, and of nothing else, start with this.
const REPLY_PREFIX: &str = "rpc.reply.";

/// The service queue, or the queue of those of its methods that have one of their own.
pub(crate) fn service_queue(service: &str, method_queue: Option<&str>) -> String {
    match method_queue {
        None => format!("{PREFIX}.{service}"),
        Some(queue) => format!("{PREFIX}.{service}.{queue}"),
    }
}

/// The queue for the nested requests of a service, all its methods'. No method queue has a dot in its name.
pub(crate) fn nested_queue(service: &str) -> String {
    format!("{PREFIX}.{service}.nested.calls")
}

/// The pattern for the requests of a service (or of one method queue) that have no binding of their own.
pub(crate) fn other_binding_key(service: &str, method_queue: Option<&str>) -> String {
    match method_queue {
        None => format!("{service}.*"),
        Some(queue) => format!("{service}.{queue}.*"),
    }
}

/// The binding key of one of a method's names.
pub(crate) fn binding_key(service: &str, method_queue: Option<&str>, name: &str) -> String {
    match method_queue {
        None => format!("{service}.{name}"),
        Some(queue) => format!("{service}.{queue}.{name}"),
    }
}

/// The method a routing key asks for: its last word.
pub(crate) fn method_of(routing_key: &str) -> &str {
    routing_key.rsplit('.').next().unwrap_or(routing_key)
}

/// A client's reply queue: never used by an earlier epoch, so no late reply can reach a later one. The user's name lets
/// permissions tell whose it is.
pub(crate) fn reply_queue(user: Option<&str>, client: Uuid, epoch: u64) -> String {
    match owner(user) {
        Some(user) => format!("{REPLY_PREFIX}{user}.{client}.{epoch}"),
        None => format!("{REPLY_PREFIX}{client}.{epoch}"),
    }
}

/// Whether a client of ours reads this queue.
pub(crate) fn is_reply_queue(queue: &[u8]) -> bool {
    queue.starts_with(REPLY_PREFIX.as_bytes())
}

/// The routing key of a ping. No service has a dot in its name, so no cancel has such a key.
pub(crate) fn ping_key(service: &str) -> String {
    format!("{PING}{service}")
}

/// The service that a ping is for; `None` for a message of another kind.
pub(crate) fn pinged_service(routing_key: &str) -> Option<&str> {
    routing_key.strip_prefix(PING)
}

const PING: &str = "ping.";

/// The queue for dead letters of a service.
pub(crate) fn dead_queue(service: &str) -> String {
    format!("{PREFIX}.{service}.dead")
}

/// The queue for the broker's own dead letters until their callers are notified. No method queue has a dot in its name.
pub(crate) fn dead_callers_queue(service: &str) -> String {
    format!("{PREFIX}.{service}.dead.callers")
}

/// A pool's control queue: a new one for each epoch, because cancels of an earlier one are of no use. The user's name lets
/// permissions tell whose it is.
pub(crate) fn control_queue(user: Option<&str>, epoch: Uuid) -> String {
    match owner(user) {
        Some(user) => format!("{PREFIX}.control.{user}.{epoch}"),
        None => format!("{PREFIX}.control.{epoch}"),
    }
}

/// The part of a queue's name that says whose it is; `None` when it leaves no room for the rest.
fn owner(user: Option<&str>) -> Option<&str> {
    user.filter(|user| user.len() <= OWNER_BYTES_MAX)
}

/// A queue's name has 255 bytes.
const OWNER_BYTES_MAX: usize = 150;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_wire_contract() {
        assert_eq!(service_queue("fibonacci", None), "rpc.fibonacci");
        assert_eq!(service_queue("fibonacci", Some("slow")), "rpc.fibonacci.slow");
        assert_eq!(other_binding_key("fibonacci", None), "fibonacci.*");
        assert_eq!(other_binding_key("fibonacci", Some("slow")), "fibonacci.slow.*");
        assert_eq!(binding_key("fibonacci", None, "fib"), "fibonacci.fib");
        assert_eq!(binding_key("fibonacci", Some("slow"), "fib"), "fibonacci.slow.fib");
        assert_eq!(method_of("fibonacci.fib"), "fib");
        assert_eq!(method_of("fibonacci.slow.fib"), "fib");
        assert_eq!(method_of("rpc_queue"), "rpc_queue");
        assert_eq!(nested_queue("fibonacci"), "rpc.fibonacci.nested.calls");
        assert_eq!(pinged_service(&ping_key("fibonacci")), Some("fibonacci"));
        assert_eq!(pinged_service("fibonacci"), None, "a cancel");
        assert_eq!(dead_queue("fibonacci"), "rpc.fibonacci.dead");
        assert_eq!(dead_callers_queue("fibonacci"), "rpc.fibonacci.dead.callers");
        assert!(
            is_reply_queue(reply_queue(None, Uuid::nil(), 2).as_bytes()) && !is_reply_queue(b"amq.rabbitmq.reply-to")
        );
        assert_eq!(control_queue(None, Uuid::nil()), "rpc.control.00000000-0000-0000-0000-000000000000");
        assert_eq!(control_queue(Some("a.b"), Uuid::nil()), "rpc.control.a.b.00000000-0000-0000-0000-000000000000");
        let long = "u".repeat(151);
        assert_eq!(control_queue(Some(&long), Uuid::nil()), control_queue(None, Uuid::nil()));
        assert_eq!(reply_queue(None, Uuid::nil(), 2), "rpc.reply.00000000-0000-0000-0000-000000000000.2");
        assert_eq!(reply_queue(Some("u"), Uuid::nil(), 2), "rpc.reply.u.00000000-0000-0000-0000-000000000000.2");
    }
}

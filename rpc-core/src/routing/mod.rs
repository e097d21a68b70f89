//! The routing engine: which queues does a message reach?
//!
//! Pure data and matching. It holds no messages, reads no clock and checks no permissions. The owner of the [`Router`] refuses
//! publishes to internal exchanges and the deletion of `amq.direct`.
//!
//! ```text
//!              ┌─ "" ────────── queue name ─────────────► queue
//!  message ──► │
//!  exchange,   └─ exchange ──binding (routing_key | headers)──► queue
//!  keys,            │ └──────binding──► exchange (each visited once per message)
//!  headers          └─ nothing matched? alternate exchange (likewise)
//! ```
//!
//! Semantics are those of RabbitMQ 3.10.8. Its answers that surprise:
//!
//! - *every* exchange on the path may have an alternate exchange, not only the one published to; it is used when that
//!   exchange matches nothing itself;
//! - a binding is identified by source, destination, routing key *and* arguments, even where arguments have no meaning;
//! - an auto-delete exchange is deleted with the last binding *from* it, and so are auto-delete exchanges bound to it.
//!
//! Cost: the default exchange and direct exchanges are one hash look-up a key, fanout a list, topic a trie whose cost depends
//! on the words of the key, headers linear in the bindings of that exchange. Removing a queue or an exchange touches its own
//! bindings only.
//!
//! The bundled broker calls it, once per message.

mod binding;
mod collections;
mod error;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod headers;
mod id;
#[cfg(any(test, fuzzing))]
mod naive;
#[cfg(test)]
mod oracle;
mod router;
mod routes;
mod size;
mod steps;
mod targets;
#[cfg(test)]
mod tests;
mod topic;
mod words;

pub(crate) use self::{
    error::RoutingError,
    exchange::{ExchangeKind, ExchangeOptions},
    headers::Headers,
    id::{Destination, QueueId},
    router::{Declared, Router},
    routes::Routes,
    size::table_bytes,
    steps::Progress,
    words::hashes,
};

//! The routing engine: which queues does a message reach?
//!
//! Pure data and matching. It holds no messages, knows no connections, reads no clock and checks no permissions: refusing a
//! publish to an internal exchange or the deletion of `amq.direct` is the business of whoever owns the [`Router`].
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
//! - the alternate exchange belongs to *every* exchange on the path, not only to the one published to, and is asked when
//!   that exchange matched nothing itself;
//! - a binding is identified by source, destination, routing key *and* arguments, also where arguments mean nothing;
//! - an auto-delete exchange goes with the last binding *from* it, and takes auto-delete exchanges bound to it along.
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
mod targets;
#[cfg(test)]
mod tests;
mod topic;

pub(crate) use self::{
    error::RoutingError,
    exchange::{ExchangeKind, ExchangeOptions},
    headers::Headers,
    id::{Destination, QueueId},
    router::{Declared, Router},
    routes::Routes,
    size::table_bytes,
};

//! Inspection: the state of the core as plain values that tests compare.

use crate::broker::core::{session::Stage, state::Core};
use crate::routing::Destination;

/// A queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Messages waiting in it.
    pub ready: usize,
    /// Messages delivered and neither acknowledged nor requeued.
    pub unacked: usize,
    /// Its consumers.
    pub consumers: usize,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// Whether it belongs to the connection that declared it, and is deleted with it.
    pub exclusive: bool,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeInfo {
    /// Its name; empty for the default exchange.
    pub name: String,
    /// `direct`, `fanout`, `topic` or `headers`.
    pub kind: &'static str,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether only exchanges bound to it can send it messages.
    pub internal: bool,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindingInfo {
    /// The exchange it leads from.
    pub source: String,
    /// The queue or exchange it leads to.
    pub destination: String,
    /// Whether that is an exchange.
    pub is_to_exchange: bool,
    /// Its routing key.
    pub routing_key: String,
}

/// A connection that is open on a vhost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The client's `connection_name`; empty without one.
    pub name: String,
    /// The user that logged in.
    pub user: String,
    /// Its vhost.
    pub vhost: String,
    /// Its open channels.
    pub channels: usize,
    /// The client's address, `host:port`.
    pub peer: String,
    /// Whether the broker has stopped reading from it (`connection.blocked`).
    pub is_blocked: bool,
}

impl Core {
    /// The queues of a vhost, sorted by name; empty for an unknown vhost.
    pub(crate) fn queues(&self, vhost: &str) -> Vec<QueueInfo> {
        let queues = self.vhosts.iter().filter(|known| &*known.name == vhost).flat_map(|vhost| vhost.queues.values());
        let mut queues: Vec<_> = queues
            .map(|queue| QueueInfo {
                name: queue.name.to_string(),
                ready: queue.ready_count(),
                unacked: queue.unacked,
                consumers: queue.consumers.len(),
                durable: queue.durable,
                auto_delete: queue.auto_delete,
                exclusive: queue.exclusive_to.is_some(),
            })
            .collect();
        queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// The exchanges of a vhost, sorted by name.
    pub(crate) fn exchanges(&self, vhost: &str) -> Vec<ExchangeInfo> {
        let vhosts = self.vhosts.iter().filter(|known| &*known.name == vhost);
        let mut exchanges: Vec<_> = vhosts
            .flat_map(|vhost| vhost.router.exchanges())
            .map(|(name, options)| ExchangeInfo {
                name: name.to_owned(),
                kind: options.kind.name(),
                durable: options.durable,
                auto_delete: options.auto_delete,
                internal: options.internal,
            })
            .collect();
        exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        exchanges
    }

    /// The bindings of a vhost, the oldest first.
    pub(crate) fn bindings(&self, vhost: &str) -> Vec<BindingInfo> {
        let Some(vhost) = self.vhosts.iter().find(|known| &*known.name == vhost) else { return Vec::new() };
        let named = |(source, destination, routing_key, _): (&str, Destination<'_>, &str, _)| {
            let (destination, is_to_exchange) = match destination {
                Destination::Queue(key) => (vhost.queues.get(&key)?.name.to_string(), false),
                Destination::Exchange(name) => (name.to_owned(), true),
            };
            let (source, routing_key) = (source.to_owned(), routing_key.to_owned());
            Some(BindingInfo { source, destination, is_to_exchange, routing_key })
        };
        vhost.router.bindings().filter_map(named).collect()
    }

    /// The open connections.
    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        let sessions = self.sessions.ids().filter_map(|id| self.sessions.get(id));
        sessions
            .filter(|session| session.stage == Stage::Open)
            .filter_map(|session| {
                Some(ConnectionInfo {
                    name: session.client_name.clone(),
                    user: session.user.clone(),
                    vhost: self.vhosts.get(session.vhost?)?.name.to_string(),
                    channels: session.channels.len(),
                    peer: session.peer.address.clone(),
                    is_blocked: session.is_held(),
                })
            })
            .collect()
    }

    /// Whether no message is ready or unacknowledged, no output waits to be written, and no method is done in part.
    pub(crate) fn is_idle(&self) -> bool {
        let mut queues = self.vhosts.iter().flat_map(|vhost| vhost.queues.values());
        let mut sessions = self.sessions.ids().filter_map(|id| self.sessions.get(id));
        queues.all(|queue| queue.ready_count() == 0 && queue.unacked == 0)
            && sessions.all(|session| session.backlog_bytes() == 0)
            && self.unfinished.is_empty()
    }
}

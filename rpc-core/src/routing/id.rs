//! Names and numbers that the files of this engine share: of queues, exchanges and bindings, and where a binding leads.

use std::collections::BTreeSet;

/// A queue, as its owner numbers it. The router never invents one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u64);

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Destination<'a> {
    /// A queue.
    Queue(QueueId),
    /// The exchange of this name.
    Exchange(&'a str),
}

/// [`Destination`] inside the engine: no name to look up on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Queue(QueueId),
    Exchange(ExchangeId),
}

/// Numbers bindings in the order they are made; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BindingId(u64);

impl BindingId {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The bindings at one end of something, oldest first.
pub(super) type BindingIds = BTreeSet<BindingId>;

/// Where an exchange lives in the router's list; used again after the exchange is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ExchangeId(pub(super) usize);

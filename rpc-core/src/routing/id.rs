//! The ids of queues, exchanges and bindings, and the destination of a binding.

use std::collections::BTreeSet;

/// A queue, as the owner of the router numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u64);

/// The destination of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Destination<'a> {
    /// A queue.
    Queue(QueueId),
    /// The exchange of this name.
    Exchange(&'a str),
}

/// A [`Destination`] by id, which needs no look-up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Queue(QueueId),
    Exchange(ExchangeId),
}

/// Numbers bindings in the order of their declaration. No number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BindingId(u64);

impl BindingId {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The bindings from or to an exchange or queue, oldest first.
pub(super) type BindingIds = BTreeSet<BindingId>;

/// The index of an exchange in the router's list. It is used again after the exchange is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ExchangeId(pub(super) usize);

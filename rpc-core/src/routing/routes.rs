//! The reusable result of routing one message.
//!
//! It holds the queues reached, the exchanges still to visit and the scratch memory of topic matching, so that routing
//! allocates nothing once the buffer has seen a message as wide. It belongs to no router: one buffer may serve several.
//!
//! ```text
//!  queues     each once, in the order they were reached
//!  exchanges  [ visited … | next ──► to visit … ]     each once: cycles end here
//! ```

use std::hash::Hash;

use super::{
    Map,
    binding::{QueueId, Target},
    exchange::ExchangeId,
    targets::TargetSet,
    topic::{Scratch, Trie},
};

/// The queues a message reaches; a buffer to keep and reuse.
#[derive(Debug, Default)]
pub struct Routes {
    reached: Reached,
    scratch: Scratch,
    looks: usize,
}

impl Routes {
    /// Makes an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the queues; call it between messages.
    pub fn clear(&mut self) {
        self.reached.queues.clear();
        self.looks = 0;
    }

    /// How many exchanges, bindings and nodes of patterns were looked at since the last [`clear`](Self::clear): the work
    /// done.
    #[must_use]
    pub fn looks(&self) -> usize {
        self.looks
    }

    pub(super) fn note_looks(&mut self, looks: usize) {
        self.looks += looks;
    }

    /// The queues reached, each once, in the order they were reached.
    #[must_use]
    pub fn queues(&self) -> &[QueueId] {
        self.reached.queues.as_slice()
    }

    /// Whether no queue was reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues().is_empty()
    }

    /// Begins a walk at one exchange; the queues stay.
    pub(super) fn start_at(&mut self, exchange: ExchangeId) {
        self.reached.exchanges.clear();
        self.reached.exchanges.push(exchange);
        self.reached.visited = 0;
    }

    /// The next exchange of the walk that was not visited yet.
    pub(super) fn next_exchange(&mut self) -> Option<ExchangeId> {
        let next = self.reached.exchanges.as_slice().get(self.reached.visited).copied();
        self.reached.visited += usize::from(next.is_some());
        self.looks += 1;
        next
    }

    pub(super) fn add(&mut self, target: Target) {
        self.reached.add(target);
    }

    pub(super) fn add_all(&mut self, targets: &TargetSet) {
        self.reached.add_all(targets);
    }

    /// Adds the targets of all patterns in `trie` that match. Returns whether any did.
    pub(super) fn add_matching(&mut self, trie: &Trie, routing_key: &str) -> bool {
        let mut is_matched = false;
        self.looks += trie.search(routing_key, &mut self.scratch, |targets| {
            is_matched = true;
            self.reached.add_all(targets);
        });
        is_matched
    }
}

#[derive(Debug, Default)]
struct Reached {
    queues: UniqueList<QueueId>,
    exchanges: UniqueList<ExchangeId>,
    /// How many of `exchanges` the walk has taken.
    visited: usize,
}

impl Reached {
    fn add(&mut self, target: Target) {
        match target {
            Target::Queue(id) => self.queues.push(id),
            Target::Exchange(id) => self.exchanges.push(id),
        };
    }

    fn add_all(&mut self, targets: &TargetSet) {
        if !self.queues.as_slice().is_empty() {
            targets.iter().for_each(|target| self.add(target));
            return;
        }
        // The targets of one set differ, so as long as it is the first one no queue needs to be looked for.
        for target in targets.iter() {
            match target {
                Target::Queue(id) => self.queues.push_new(id),
                Target::Exchange(_) => self.add(target),
            }
        }
    }
}

/// Longest list that is searched by looking at every item.
const SCAN_LIMIT: usize = 16;

/// A list that holds each item once: scanned while short, hashed when long.
#[derive(Debug)]
pub(super) struct UniqueList<T> {
    items: Vec<T>,
    /// The first `seen.len()` of `items`; catches up when a long list is searched.
    seen: Map<T, ()>,
}

impl<T: Copy + Eq + Hash> UniqueList<T> {
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.seen.clear();
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// Appends an item unless it is there. Returns whether it was appended.
    pub(super) fn push(&mut self, item: T) -> bool {
        let is_new = if self.items.len() <= SCAN_LIMIT {
            !self.items.contains(&item)
        } else {
            for &item in &self.items[self.seen.len()..] {
                self.seen.insert(item, ());
            }
            self.seen.insert(item, ()).is_none()
        };
        if is_new {
            self.items.push(item);
        }
        is_new
    }

    /// Appends an item known not to be there.
    fn push_new(&mut self, item: T) {
        self.items.push(item);
    }
}

impl<T> Default for UniqueList<T> {
    fn default() -> Self {
        Self { items: Vec::new(), seen: Map::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_holds_each_item_once_however_long_it_is() {
        let mut list = UniqueList::default();
        for _ in 0..3 {
            (0..1_000).for_each(|item| {
                list.push(item);
            });
        }
        assert_eq!(list.as_slice(), (0..1_000).collect::<Vec<_>>());
        list.clear();
        assert!(list.push(7));
        assert_eq!(list.as_slice(), [7]);
    }

    #[test]
    fn items_appended_unchecked_are_still_found() {
        let mut list = UniqueList::default();
        (0..100).for_each(|item| list.push_new(item));
        assert!(!list.push(99));
        assert!(list.push(100));
        list.push_new(101);
        assert!(!list.push(101));
        assert!(!list.push(0));
        assert_eq!(list.as_slice().len(), 102);
    }
}

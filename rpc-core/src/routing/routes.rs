//! The reusable result of routing one message.
//!
//! It holds the queues reached, the exchanges still to visit and the scratch memory of topic matching. Routing allocates
//! nothing once the buffer has held a message that reaches as many queues. One buffer may serve several routers.
//!
//! ```text
//!  queues     each once, in the order of routing
//!  exchanges  [ visited … | next ──► to visit … ]     each once: cycles end here
//! ```

use super::{
    collections::UniqueList,
    id::{ExchangeId, QueueId, Target},
    targets::TargetSet,
    topic::{Scratch, Trie},
};

/// The queues that a message reaches. A buffer to keep and reuse.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    reached: Reached,
    scratch: Scratch,
    looks: usize,
}

impl Routes {
    /// Creates an empty buffer.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Removes the queues. Call it between messages.
    pub(crate) fn clear(&mut self) {
        self.reached.queues.clear();
        self.looks = 0;
    }

    /// The work since the last [`clear`](Self::clear): the number of exchanges, bindings and nodes of patterns visited.
    #[must_use]
    pub(crate) fn looks(&self) -> usize {
        self.looks
    }

    pub(super) fn note_looks(&mut self, looks: usize) {
        self.looks += looks;
    }

    /// The queues reached, each once, in the order of routing.
    #[must_use]
    pub(crate) fn queues(&self) -> &[QueueId] {
        self.reached.queues.as_slice()
    }

    /// Begins a walk at one exchange. The queues stay.
    pub(super) fn start_at(&mut self, exchange: ExchangeId) {
        self.reached.exchanges.clear();
        self.reached.exchanges.push(exchange);
        self.reached.visited = 0;
    }

    /// The next exchange of the walk that is not visited yet.
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
    /// The number of `exchanges` that the walk has visited.
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
        // The targets of one set are distinct, so the first set needs no search for duplicates.
        for target in targets.iter() {
            match target {
                Target::Queue(id) => self.queues.push_new(id),
                Target::Exchange(_) => self.add(target),
            }
        }
    }
}

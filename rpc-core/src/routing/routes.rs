//! The reusable result of routing one message.
//!
//! It holds the queues reached, the exchanges still to visit and the scratch memory of topic matching. Routing allocates
//! nothing once the buffer has held a message that reaches as many queues. One buffer may serve several routers. A walk whose
//! steps are used up pauses, and the buffer holds all that it needs to go on.
//!
//! ```text
//!  queues     each once, in the order of routing
//!  exchanges  [ visited … | next ──► to visit … ]     each once: cycles end here
//! ```

use super::{
    collections::UniqueList,
    id::{BindingId, ExchangeId, QueueId, Target},
    steps::{Progress, Steps},
    targets::TargetSet,
    topic::{Scratch, Trie},
};

/// The queues that a message reaches. A buffer to keep and reuse.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    reached: Reached,
    scratch: Scratch,
    steps: Steps,
    walk: Walk,
}

/// A walk from exchange to exchange.
#[derive(Debug, Default)]
struct Walk {
    /// Whether it has begun and not ended, because its steps were used up.
    is_paused: bool,
    /// The visit that was interrupted.
    visit: Option<Visit>,
    /// The number of exchanges removed before it. It begins anew when more have been removed.
    exchanges_removed: u64,
    /// The queues that were there at its beginning.
    queues_before: usize,
    /// How often it, or the search of a trie, had to begin anew.
    restarts: u32,
}

/// The visit of one exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    pub(super) exchange: ExchangeId,
    /// The changes of the exchange's table before the visit, or before it went on last.
    pub(super) changes: Option<u64>,
    /// The routing key that is searched for, of a topic exchange.
    pub(super) key: usize,
    /// The binding that is compared next, of a headers exchange.
    pub(super) binding: BindingId,
    /// Whether a binding has matched.
    pub(super) is_matched: bool,
}

impl Routes {
    /// Creates an empty buffer.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Removes the queues, and forgets a paused walk. Call it between messages.
    pub(crate) fn clear(&mut self) {
        self.reached.queues.clear();
        self.scratch.reset();
        self.walk = Walk::default();
        self.steps = Steps::default();
    }

    /// Lets the next call of [`Router::route_all`](super::Router::route_all) take so many steps. A search that had to begin
    /// anew may take more, up to sixteen times as many, so that most end although bindings come and go.
    pub(crate) fn allow(&mut self, steps_max: usize) {
        self.steps = Steps::new(steps_max << self.walk.restarts.min(RESTARTS_COUNTED));
    }

    /// The work since the last [`clear`](Self::clear) or [`allow`](Self::allow): the number of exchanges, bindings and
    /// nodes of patterns visited.
    #[must_use]
    pub(crate) fn looks(&self) -> usize {
        self.steps.taken()
    }

    #[inline]
    pub(super) fn take_step(&mut self) -> bool {
        self.steps.take()
    }

    /// The queues reached, each once, in the order of routing.
    #[must_use]
    pub(crate) fn queues(&self) -> &[QueueId] {
        self.reached.queues.as_slice()
    }

    /// Begins a walk at one exchange, or goes on with a paused one. The queues stay.
    pub(super) fn start_at(&mut self, exchange: ExchangeId, exchanges_removed: u64) {
        if self.walk.is_paused {
            self.walk.is_paused = false;
            if self.walk.exchanges_removed == exchanges_removed {
                return;
            }
            self.search_anew();
            self.walk.visit = None;
            self.reached.queues.truncate(self.walk.queues_before);
        }
        self.walk.exchanges_removed = exchanges_removed;
        self.walk.queues_before = self.queues().len();
        self.reached.exchanges.clear();
        self.reached.exchanges.push(exchange);
        self.reached.visited = 0;
    }

    /// The visit that was interrupted, or that of the next exchange of the walk.
    pub(super) fn next_visit(&mut self) -> Option<Visit> {
        if let Some(visit) = self.walk.visit.take() {
            return Some(visit);
        }
        let exchange = *self.reached.exchanges.as_slice().get(self.reached.visited)?;
        self.reached.visited += 1;
        self.steps.note(1);
        Some(Visit { exchange, changes: None, key: 0, binding: BindingId::default(), is_matched: false })
    }

    /// Forgets where the search of a trie stands. The queues that it has found stay.
    pub(super) fn search_anew(&mut self) {
        self.scratch.reset();
        self.walk.restarts += 1;
    }

    /// Keeps a walk for the next call.
    pub(super) fn pause(&mut self, visit: Visit) {
        self.walk.is_paused = true;
        self.walk.visit = Some(visit);
    }

    pub(super) fn add(&mut self, target: Target) {
        self.reached.add(target);
    }

    pub(super) fn add_all(&mut self, targets: &TargetSet) {
        self.reached.add_all(targets);
    }

    /// Adds the targets of all patterns in `trie` that match.
    pub(super) fn add_matching(&mut self, trie: &Trie, routing_key: &str, visit: &mut Visit) -> Progress {
        trie.search(routing_key, &mut self.scratch, &mut self.steps, |targets| {
            visit.is_matched = true;
            self.reached.add_all(targets);
        })
    }
}

/// After so many restarts a walk is not given more steps at a time.
const RESTARTS_COUNTED: u32 = 4;

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

//! The deadlines of calls. Pure.
//!
//! Calls with the same budget arrive in deadline order and are kept in a queue, at a push and a pop each; only the others need a
//! heap.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Instant,
};

/// Deadlines and their calls, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Those that came in order.
    ordered: VecDeque<(Instant, u64)>,
    /// Those before the last of `ordered` when they came.
    others: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, deadline: Instant, id: u64) {
        if self.ordered.back().is_none_or(|(last, _)| *last <= deadline) {
            self.ordered.push_back((deadline, id));
        } else {
            self.others.push(Reverse((deadline, id)));
        }
    }

    pub(super) fn earliest(&self) -> Option<(Instant, u64)> {
        match (self.ordered.front(), self.others.peek()) {
            (Some(ordered), Some(Reverse(other))) => Some(*ordered.min(other)),
            (ordered, other) => ordered.or_else(|| other.map(|Reverse(other)| other)).copied(),
        }
    }

    /// Removes the earliest.
    pub(super) fn pop(&mut self) {
        let earliest = self.earliest();
        if self.ordered.front() == earliest.as_ref() {
            self.ordered.pop_front();
        } else {
            self.others.pop();
        }
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        self.ordered.retain(|(_, id)| is_kept(*id));
        self.others.retain(|Reverse((_, id))| is_kept(*id));
    }

    pub(super) fn len(&self) -> usize {
        self.ordered.len() + self.others.len()
    }
}

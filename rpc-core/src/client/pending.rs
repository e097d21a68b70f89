//! The calls in flight: correlation_id -> waiter and deadline.
//!
//! Pure data: no I/O, no clock, no tasks. Whoever holds it says what time it is.
//!
//! ```text
//!  insert ──► waiters[id] ──complete(id)──► the reply's waiter
//!        └──► deadlines   ──expire(now)───► waiters whose time is up
//! ```
//!
//! Most calls end long before their deadline, so ended calls stay among the deadlines until they surface or outnumber
//! the living two to one. Calls with the same budget come in deadline order and go into a queue, at a push and a pop
//! each; only the others need a heap. Completing costs a hash lookup.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    time::Instant,
};

/// The calls in flight of one reply queue.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    waiters: HashMap<u64, W, BuildHasherDefault<IdHasher>>,
    deadlines: Deadlines,
    next_id: u64,
    limit: usize,
}

/// A call that was taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Its correlation_id.
    pub(crate) id: u64,
    /// No other call ends earlier: a timer set for another one is too late.
    pub(crate) is_earliest: bool,
}

impl<W> Pending<W> {
    /// Holds at most `limit` calls.
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiters: HashMap::default(), deadlines: Deadlines::default(), next_id: 1, limit }
    }

    /// Takes a call in, or gives its waiter back when `limit` calls are in flight.
    pub(crate) fn insert(&mut self, deadline: Instant, waiter: W) -> Result<Inserted, W> {
        if self.is_full() {
            return Err(waiter);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiters.insert(id, waiter);
        let is_earliest = self.deadlines.earliest().is_none_or(|(earliest, _)| deadline < earliest);
        self.deadlines.push(deadline, id);
        Ok(Inserted { id, is_earliest })
    }

    /// Takes a call out; `None` when it ended before (a late, duplicate or foreign reply).
    pub(crate) fn complete(&mut self, id: u64) -> Option<W> {
        let waiter = self.waiters.remove(&id)?;
        if self.deadlines.len() > 2 * self.waiters.len() + DEADLINES_KEPT {
            let waiters = &self.waiters;
            self.deadlines.retain(|id| waiters.contains_key(&id));
        }
        Some(waiter)
    }

    /// Takes out the next call whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<W> {
        while let Some((deadline, id)) = self.deadlines.earliest() {
            if deadline > now {
                return None;
            }
            self.deadlines.pop();
            if let Some(waiter) = self.waiters.remove(&id) {
                return Some(waiter);
            }
        }
        None
    }

    /// When the next call in flight must end.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some((deadline, id)) = self.deadlines.earliest() {
            if self.waiters.contains_key(&id) {
                return Some(deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Takes all calls out.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        self.deadlines = Deadlines::default();
        self.waiters.drain().map(|(_, waiter)| waiter).collect()
    }

    /// Whether another call would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.waiters.len() >= self.limit
    }

    /// How many calls are in flight.
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }
}

/// Deadlines and their calls, the earliest first.
#[derive(Debug, Default)]
struct Deadlines {
    /// Those that came in order.
    ordered: VecDeque<(Instant, u64)>,
    /// Those before the last of `ordered` when they came.
    others: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Deadlines {
    fn push(&mut self, deadline: Instant, id: u64) {
        if self.ordered.back().is_none_or(|(last, _)| *last <= deadline) {
            self.ordered.push_back((deadline, id));
        } else {
            self.others.push(Reverse((deadline, id)));
        }
    }

    fn earliest(&self) -> Option<(Instant, u64)> {
        match (self.ordered.front(), self.others.peek()) {
            (Some(ordered), Some(Reverse(other))) => Some(*ordered.min(other)),
            (ordered, other) => ordered.or_else(|| other.map(|Reverse(other)| other)).copied(),
        }
    }

    /// Removes the earliest.
    fn pop(&mut self) {
        let earliest = self.earliest();
        if self.ordered.front() == earliest.as_ref() {
            self.ordered.pop_front();
        } else {
            self.others.pop();
        }
    }

    fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        self.ordered.retain(|(_, id)| is_kept(*id));
        self.others.retain(|Reverse((_, id))| is_kept(*id));
    }

    fn len(&self) -> usize {
        self.ordered.len() + self.others.len()
    }
}

/// Ended calls that may stay among the deadlines before they are swept.
const DEADLINES_KEPT: usize = 64;

/// Ids are consecutive: one multiplication spreads them over the table, and nobody outside chooses them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 / golden ratio: Knuth's multiplicative hashing, with the well-mixed high half brought down.
        let product = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_call_completes_once() {
        let mut pending = Pending::new(8);
        let first = pending.insert(at(10), "first").unwrap();
        let second = pending.insert(at(20), "second").unwrap();
        assert_eq!((first.id, second.id), (1, 2));
        assert_eq!(pending.complete(second.id), Some("second"));
        assert_eq!(pending.complete(second.id), None, "a duplicate reply");
        assert_eq!(pending.complete(99), None, "a foreign reply");
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn calls_expire_in_deadline_order_and_completed_ones_do_not() {
        let mut pending = Pending::new(8);
        for (deadline, name) in [(30, "c"), (10, "a"), (20, "b"), (40, "d")] {
            pending.insert(at(deadline), name).unwrap();
        }
        assert_eq!(pending.complete(2), Some("a"));
        assert_eq!(pending.next_deadline(), Some(at(20)));
        assert_eq!(pending.expire(at(19)), None);
        assert_eq!(pending.expire(at(30)), Some("b"));
        assert_eq!(pending.expire(at(30)), Some("c"));
        assert_eq!(pending.expire(at(30)), None);
        assert_eq!(pending.complete(3), None, "a late reply");
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn an_earlier_deadline_is_announced() {
        let mut pending = Pending::new(8);
        assert!(pending.insert(at(20), ()).unwrap().is_earliest);
        assert!(!pending.insert(at(20), ()).unwrap().is_earliest);
        assert!(pending.insert(at(10), ()).unwrap().is_earliest);
    }

    #[test]
    fn the_limit_gives_the_waiter_back() {
        let mut pending = Pending::new(1);
        let first = pending.insert(at(1), "first").unwrap();
        assert_eq!(pending.insert(at(1), "second"), Err("second"));
        pending.complete(first.id);
        pending.insert(at(1), "second").unwrap();
    }

    #[test]
    fn ended_calls_do_not_pile_up_behind_a_long_one() {
        let mut pending = Pending::new(1_000);
        pending.insert(at(0), "long").unwrap();
        for _ in 0..100_000 {
            let call = pending.insert(at(1_000_000), "short").unwrap();
            pending.complete(call.id);
        }
        assert!(pending.deadlines.len() <= 2 + DEADLINES_KEPT, "{}", pending.deadlines.len());
        assert_eq!(pending.next_deadline(), Some(at(0)));
    }

    #[test]
    fn draining_leaves_nothing_to_expire() {
        let mut pending = Pending::new(8);
        pending.insert(at(1), 1).unwrap();
        pending.insert(at(2), 2).unwrap();
        let mut drained = pending.drain();
        drained.sort_unstable();
        assert_eq!(drained, [1, 2]);
        assert_eq!(pending.next_deadline(), None);
        assert_eq!(pending.expire(at(3)), None);
    }
}

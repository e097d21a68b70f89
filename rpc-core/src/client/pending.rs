//! The calls in flight: correlation_id -> deadline, and the waker or the outcome.
//!
//! Pure data: no I/O, no clock, no tasks. Its owner passes the time in, and wakes the wakers that it hands out.
//!
//! ```text
//!  insert ──► slots[id mod 2ⁿ] ──complete(id)──► Ended ──poll(id)──► the caller, and the slot is free
//!        └──► deadlines        ──expire(now)───► Ended
//! ```
//!
//! Ids are numbers that count up, each under another name; those whose slot is taken are skipped. So finding a call is one look
//! at one slot, and a late reply finds another id there. Most calls end long before their deadline, so ended calls stay among the
//! deadlines until they surface or outnumber the living two to one.

use std::{
    task::{Poll, Waker},
    time::Instant,
};

use super::deadlines::Deadlines;

/// The properties of a call besides its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The number of its exchange, below [`EXCHANGES`].
    pub(crate) exchange: u8,
    /// It was published on the channel with confirms.
    pub(crate) is_confirmed: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) body_bytes: u32,
}

/// The exchanges that requests go to.
pub(crate) const EXCHANGES: usize = 3;

/// The calls in flight of one reply queue; `O` is how a call can end.
#[derive(Debug)]
pub(crate) struct Pending<O> {
    /// A power of two of them.
    slots: Vec<Slot<O>>,
    /// Slots that are not free: calls in flight, and those whose end the caller has not looked at yet.
    taken: usize,
    deadlines: Deadlines,
    next_number: u64,
    in_flight: usize,
    limit: usize,
}

#[derive(Debug)]
struct Slot<O> {
    id: u64,
    tag: Tag,
    state: State<O>,
}

#[derive(Debug)]
enum State<O> {
    Free,
    /// In flight; the waker is that of the last poll.
    Waiting(Option<Waker>),
    Ended(O),
}

/// A call that was taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Its correlation_id, as a number.
    pub(crate) id: u64,
    /// No other call ends earlier: a timer set for another one is too late.
    pub(crate) is_earliest: bool,
}

/// A call that has ended: wake it, without the lock around this.
#[derive(Debug)]
#[must_use = "its caller sleeps until it is woken"]
pub(crate) struct Ended {
    pub(crate) tag: Tag,
    waker: Option<Waker>,
}

impl Ended {
    pub(crate) fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

impl<O> Pending<O> {
    /// Holds at most `limit` calls.
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), taken: 0, deadlines: Deadlines::default(), next_number: 1, in_flight: 0, limit }
    }

    /// Takes a call in; `None` when `limit` calls are in flight. `name` makes ids of numbers, of each number another one, and
    /// of numbers in a row ids that fall on many slots.
    pub(crate) fn insert(&mut self, deadline: Instant, tag: Tag, name: impl Fn(u64) -> u64) -> Option<Inserted> {
        if self.is_full() {
            return None;
        }
        // At most half of them taken: the next free one is near.
        if 2 * self.taken >= self.slots.len() {
            self.grow();
        }
        let (id, place) = loop {
            let id = name(self.next_number);
            self.next_number += 1;
            let place = self.place(id);
            if matches!(self.slots[place].state, State::Free) {
                break (id, place);
            }
        };
        self.slots[place] = Slot { id, tag, state: State::Waiting(None) };
        self.taken += 1;
        self.in_flight += 1;
        let is_earliest = self.deadlines.earliest().is_none_or(|(earliest, _)| deadline < earliest);
        self.deadlines.push(deadline, id);
        Some(Inserted { id, is_earliest })
    }

    /// The end of a call, when there is one; until then `waker` is to be woken.
    ///
    /// A call that was taken out, or never taken in, stays pending.
    pub(crate) fn poll(&mut self, id: u64, waker: &Waker) -> Poll<O> {
        let Some(state) = self.state_mut(id) else { return Poll::Pending };
        match state {
            State::Waiting(known) => {
                if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                Poll::Pending
            }
            State::Ended(_) | State::Free => match std::mem::replace(state, State::Free) {
                State::Ended(outcome) => {
                    self.taken -= 1;
                    Poll::Ready(outcome)
                }
                State::Waiting(_) | State::Free => Poll::Pending,
            },
        }
    }

    /// Ends a call; returns the outcome if the call had ended before (a late, duplicate or foreign reply).
    pub(crate) fn complete(&mut self, id: u64, outcome: O) -> Result<Ended, O> {
        let Some(slot) = self.slot_mut(id) else { return Err(outcome) };
        let State::Waiting(waker) = &mut slot.state else { return Err(outcome) };
        let ended = Ended { tag: slot.tag, waker: waker.take() };
        slot.state = State::Ended(outcome);
        self.has_ended();
        Ok(ended)
    }

    /// Takes out a call whose caller has stopped waiting; returns whether the call was still in flight.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        let Some(state) = self.state_mut(id) else { return false };
        match std::mem::replace(state, State::Free) {
            State::Free => false,
            State::Ended(_) => {
                self.taken -= 1;
                false
            }
            State::Waiting(_) => {
                self.taken -= 1;
                self.has_ended();
                true
            }
        }
    }

    /// Ends the next call whose deadline has come; returns its id, too.
    pub(crate) fn expire(&mut self, now: Instant, outcome: impl FnOnce() -> O) -> Option<(u64, Ended)> {
        while let Some((deadline, id)) = self.deadlines.earliest() {
            if deadline > now {
                return None;
            }
            self.deadlines.pop();
            if self.is_waiting(id) {
                return self.complete(id, outcome()).ok().map(|ended| (id, ended));
            }
        }
        None
    }

    /// The deadline of the next call that must end.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some((deadline, id)) = self.deadlines.earliest() {
            if self.is_waiting(id) {
                return Some(deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Ends all calls.
    pub(crate) fn end_all(&mut self, outcome: impl Fn() -> O) -> Vec<Ended> {
        self.deadlines = Deadlines::default();
        self.in_flight = 0;
        let waiting = self.slots.iter_mut().filter_map(|slot| match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Ended(outcome());
                Some(Ended { tag: slot.tag, waker })
            }
            State::Ended(_) | State::Free => None,
        });
        waiting.collect()
    }

    /// Ends the calls for which `judge` has an outcome.
    pub(crate) fn end_some(&mut self, judge: impl Fn(Tag) -> Option<O>) -> Vec<Ended> {
        let waiting = self.slots.iter().filter(|slot| matches!(slot.state, State::Waiting(_)));
        let judged: Vec<_> = waiting.filter_map(|slot| Some((slot.id, judge(slot.tag)?))).collect();
        judged.into_iter().filter_map(|(id, outcome)| self.complete(id, outcome).ok()).collect()
    }

    /// The properties of a call in flight.
    pub(crate) fn tag(&self, id: u64) -> Option<Tag> {
        (!self.slots.is_empty() && self.is_waiting(id)).then(|| self.slots[self.place(id)].tag)
    }

    /// Whether a call has had that number, which `name` has made its id of.
    pub(crate) fn has_numbered(&self, number: u64) -> bool {
        (1..self.next_number).contains(&number)
    }

    /// Whether another call would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= self.limit
    }

    /// How many calls are in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight
    }

    fn place(&self, id: u64) -> usize {
        // The mask keeps the low bits, whatever the width of `usize`.
        id as usize & (self.slots.len() - 1)
    }

    fn slot_mut(&mut self, id: u64) -> Option<&mut Slot<O>> {
        if self.slots.is_empty() {
            return None;
        }
        let place = self.place(id);
        let slot = &mut self.slots[place];
        (slot.id == id).then_some(slot)
    }

    fn state_mut(&mut self, id: u64) -> Option<&mut State<O>> {
        self.slot_mut(id).map(|slot| &mut slot.state)
    }

    fn is_waiting(&self, id: u64) -> bool {
        is_waiting(&self.slots, id)
    }

    /// One call fewer is in flight.
    fn has_ended(&mut self) {
        self.in_flight -= 1;
        if self.deadlines.len() > 2 * self.in_flight + DEADLINES_KEPT {
            let slots = &self.slots;
            self.deadlines.retain(|id| is_waiting(slots, id));
        }
    }

    /// Twice as many slots. Ids that lay apart still do: one more of their bits counts.
    fn grow(&mut self) {
        let doubled = (2 * self.slots.len()).max(SLOTS_MIN);
        let mut slots: Vec<_> =
            std::iter::repeat_with(|| Slot { id: 0, tag: NO_TAG, state: State::Free }).take(doubled).collect();
        for slot in self.slots.drain(..).filter(|slot| !matches!(slot.state, State::Free)) {
            let place = slot.id as usize & (doubled - 1);
            slots[place] = slot;
        }
        self.slots = slots;
    }
}

fn is_waiting<O>(slots: &[Slot<O>], id: u64) -> bool {
    let slot = &slots[id as usize & (slots.len() - 1)];
    slot.id == id && matches!(slot.state, State::Waiting(_))
}

/// Ended calls that may stay among the deadlines before they are swept.
const DEADLINES_KEPT: usize = 64;
const SLOTS_MIN: usize = 16;
const NO_TAG: Tag = Tag { exchange: 0, is_confirmed: false, is_idempotent: false, body_bytes: 0 };

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, OnceLock,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
        time::Duration,
    };

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(milliseconds)
    }

    fn same(number: u64) -> u64 {
        number
    }

    fn look<O>(pending: &mut Pending<O>, id: u64) -> Option<O> {
        match pending.poll(id, Waker::noop()) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_call_completes_once() {
        let mut pending = Pending::new(8);
        assert_eq!(pending.complete(1, "foreign").unwrap_err(), "foreign", "before the first call");
        let first = pending.insert(at(10), NO_TAG, same).unwrap();
        let second = pending.insert(at(20), NO_TAG, same).unwrap();
        assert_eq!((first.id, second.id), (1, 2));
        pending.complete(second.id, "second").unwrap().wake();
        assert_eq!(pending.complete(second.id, "again").unwrap_err(), "again", "a duplicate reply");
        assert_eq!(pending.complete(99, "foreign").unwrap_err(), "foreign");
        assert_eq!(pending.len(), 1, "ended calls are not in flight");
        assert_eq!(look(&mut pending, first.id), None);
        assert_eq!(look(&mut pending, second.id), Some("second"));
        assert_eq!(look(&mut pending, second.id), None);
        assert_eq!(pending.complete(second.id, "late").unwrap_err(), "late");
    }

    #[test]
    fn the_waker_of_the_last_poll_is_woken() {
        struct Counter(AtomicUsize);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counters = [0, 1].map(|_| Arc::new(Counter(AtomicUsize::new(0))));
        let mut pending = Pending::new(8);
        let call = pending.insert(at(10), NO_TAG, same).unwrap();
        for counter in &counters {
            assert!(pending.poll(call.id, &Waker::from(Arc::clone(counter))).is_pending());
        }
        pending.complete(call.id, ()).unwrap().wake();
        assert_eq!(counters.map(|counter| counter.0.load(Ordering::Relaxed)), [0, 1]);
    }

    fn expired(pending: &mut Pending<&'static str>, now: u64) -> u64 {
        let (id, ended) = pending.expire(at(now), || "expired").unwrap();
        ended.wake();
        id
    }

    #[test]
    fn calls_expire_in_deadline_order_and_completed_ones_do_not() {
        let mut pending = Pending::new(8);
        for deadline in [30, 10, 20, 40] {
            pending.insert(at(deadline), NO_TAG, same).unwrap();
        }
        pending.complete(2, "reply").unwrap().wake();
        assert_eq!(pending.next_deadline(), Some(at(20)));
        assert!(pending.expire(at(19), || "expired").is_none());
        assert_eq!(expired(&mut pending, 30), 3);
        assert_eq!(look(&mut pending, 3), Some("expired"));
        assert_eq!(look(&mut pending, 1), None);
        assert_eq!(expired(&mut pending, 30), 1);
        assert_eq!(look(&mut pending, 1), Some("expired"));
        assert!(pending.expire(at(30), || "expired").is_none());
        assert_eq!(pending.complete(3, "late").unwrap_err(), "late");
        assert_eq!((look(&mut pending, 2), pending.len()), (Some("reply"), 1));
    }

    #[test]
    fn an_earlier_deadline_is_announced() {
        let mut pending = Pending::<()>::new(8);
        assert!(pending.insert(at(20), NO_TAG, same).unwrap().is_earliest);
        assert!(!pending.insert(at(20), NO_TAG, same).unwrap().is_earliest);
        assert!(pending.insert(at(10), NO_TAG, same).unwrap().is_earliest);
    }

    #[test]
    fn the_limit_counts_calls_in_flight_only() {
        let mut pending = Pending::new(1);
        let first = pending.insert(at(1), NO_TAG, same).unwrap();
        assert_eq!(pending.insert(at(1), NO_TAG, same), None);
        pending.complete(first.id, ()).unwrap().wake();
        // The caller of this one has not looked yet: the slot is taken, the place is not.
        let second = pending.insert(at(1), NO_TAG, same).unwrap();
        assert!(pending.forget(second.id));
        assert!(!pending.forget(second.id));
        assert!(!pending.forget(first.id), "it had ended");
        assert_eq!((pending.len(), pending.taken), (0, 0));
        pending.insert(at(1), NO_TAG, same).unwrap();
    }

    #[test]
    fn ended_calls_do_not_pile_up_behind_a_long_one() {
        let mut pending = Pending::new(1_000);
        let long = pending.insert(at(0), NO_TAG, same).unwrap();
        for _ in 0..100_000 {
            let call = pending.insert(at(1_000_000), NO_TAG, same).unwrap();
            assert_ne!(call.id, long.id);
            pending.complete(call.id, "short").unwrap().wake();
            assert_eq!(look(&mut pending, call.id), Some("short"));
        }
        assert!(pending.deadlines.len() <= 2 + DEADLINES_KEPT, "{}", pending.deadlines.len());
        assert_eq!(pending.slots.len(), SLOTS_MIN);
        assert_eq!(pending.next_deadline(), Some(at(0)));
        pending.complete(long.id, "long").unwrap().wake();
        assert_eq!(look(&mut pending, long.id), Some("long"));
    }

    #[test]
    fn growing_loses_no_call() {
        let mut pending = Pending::new(10_000);
        let mut ids = Vec::new();
        for round in 0..10_000_u64 {
            ids.push(pending.insert(at(round), NO_TAG, same).unwrap().id);
            if round % 3 == 0 {
                let id = ids.swap_remove(usize::try_from(round * 7).unwrap() % ids.len());
                pending.complete(id, id).unwrap().wake();
                assert_eq!(look(&mut pending, id), Some(id));
            }
        }
        assert_eq!(pending.len(), ids.len());
        for id in ids {
            pending.complete(id, id).unwrap().wake();
            assert_eq!(look(&mut pending, id), Some(id));
        }
        assert_eq!((pending.len(), pending.taken), (0, 0));
    }

    #[test]
    fn an_id_whose_slot_is_taken_is_skipped() {
        // Every second id falls on one slot.
        let crowded = |number: u64| if number.is_multiple_of(2) { number / 2 } else { number << 32 };
        let mut pending = Pending::new(1_000);
        let ids: Vec<_> = (0..300).map(|_| pending.insert(at(1), NO_TAG, crowded).unwrap().id).collect();
        for id in ids {
            pending.complete(id, id).unwrap().wake();
            assert_eq!(look(&mut pending, id), Some(id));
        }
    }

    #[test]
    fn calls_are_ended_by_their_tags() {
        let mut pending = Pending::new(8);
        let insert = |pending: &mut Pending<_>, body_bytes| {
            pending.insert(at(1), Tag { body_bytes, ..NO_TAG }, same).unwrap().id
        };
        let (small, large, gone) = (insert(&mut pending, 1), insert(&mut pending, 9), insert(&mut pending, 10));
        assert!(pending.forget(gone));
        let ended = pending.end_some(|tag| (tag.body_bytes > 5).then_some("too large"));
        assert_eq!(ended.iter().map(|ended| ended.tag.body_bytes).collect::<Vec<_>>(), [9]);
        assert_eq!((look(&mut pending, small), look(&mut pending, large)), (None, Some("too large")));
        assert_eq!(
            (pending.tag(small).map(|tag| tag.body_bytes), pending.tag(large), pending.tag(99)),
            (Some(1), None, None)
        );
        assert_eq!(Pending::<()>::new(8).tag(1), None);
    }

    #[test]
    fn ending_all_leaves_nothing_to_expire() {
        let mut pending = Pending::new(8);
        let ids = [1, 2].map(|deadline| pending.insert(at(deadline), NO_TAG, same).unwrap().id);
        assert_eq!(pending.end_all(|| "shutdown").len(), 2);
        assert_eq!(pending.next_deadline(), None);
        assert!(pending.expire(at(3), || "expired").is_none());
        assert_eq!(ids.map(|id| look(&mut pending, id)), [Some("shutdown"); 2]);
        assert_eq!(pending.len(), 0);
    }
}

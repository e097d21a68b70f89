//! Nested calls: those that a handler makes while it serves one, and the slot that it leaves until they have ended.
//!
//! ```text
//!  handler ──polled──► begins a nested call ──pending──► leaves its slot ──woken──► waits for a slot ──► polled again
//! ```
//!
//! A handler that waits for a nested call would otherwise keep the slot, and its request the place among the prefetched ones, that
//! the nested request needs. The slot is left here. The places are two queues' (`topology.rs`): nested requests arrive in one of
//! their own. Its places are bounded as well, so at most half of them are for handlers that wait: the others end.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use crate::{
    forward::Forwarded,
    lock::lock,
    slots::{Slots, TooLate},
};

/// The room that a lane's handlers have.
#[derive(Debug)]
pub(crate) struct Room {
    /// Of the pool.
    slots: Arc<Slots>,
    /// Of the queue for nested requests: how many of its handlers may wait for nested calls.
    waiting_max: Option<usize>,
    waiting: AtomicUsize,
}

impl Room {
    /// `waiting_max` is that of a lane for nested requests.
    pub(crate) fn new(slots: Arc<Slots>, waiting_max: Option<usize>) -> Arc<Self> {
        Arc::new(Self { slots, waiting_max, waiting: AtomicUsize::new(0) })
    }

    /// Whether nested requests alone arrive here.
    pub(crate) fn is_nested(&self) -> bool {
        self.waiting_max.is_some()
    }
}

/// The slot of a running handler; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot(Option<Arc<Room>>);

impl Slot {
    /// A free one.
    pub(crate) fn take(room: &Arc<Room>) -> Option<Self> {
        room.slots.try_acquire().then(|| Self(Some(Arc::clone(room))))
    }

    /// Waits for one; see [`Slots::wait`].
    pub(crate) async fn wait(room: &Arc<Room>, remaining: Option<std::time::Duration>) -> Result<Self, TooLate> {
        room.slots.wait(remaining).await.map(|()| Self(Some(Arc::clone(room))))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(room) = &self.0 {
            room.slots.release();
        }
    }
}

/// Where a handler stands among calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// How many calls deep it runs: 0 for a call from outside.
    pub(crate) depth: u32,
    /// Whether its request is another attempt of a call, or part of one.
    pub(crate) is_retry: bool,
}

/// The slot of a handler, and of the work that it has started elsewhere.
#[derive(Debug, Default)]
pub(crate) enum Seat {
    /// No pool's handler.
    #[default]
    Free,
    /// A handler that has made no nested call yet: most make none, and pay for none.
    Slot { slot: Slot, origin: Origin },
    /// A handler that has made one.
    Handler(Owner),
    /// A handler's thread, which leaves and waits for the slot as the handler does.
    Thread(Arc<Nest>),
    /// A task that a handler has started.
    Task(Arc<Nest>),
}

impl Seat {
    pub(crate) fn new(slot: Slot, origin: Origin) -> Self {
        Self::Slot { slot, origin }
    }

    /// Whether the request of the handler is a retry.
    pub(crate) fn is_retry(&self) -> bool {
        match self {
            Self::Free => false,
            Self::Slot { origin, .. } => origin.is_retry,
            Self::Handler(Owner(nest)) | Self::Thread(nest) | Self::Task(nest) => nest.origin.is_retry,
        }
    }

    /// The state that is shared with nested calls.
    pub(crate) fn nest(&mut self) -> Option<Arc<Nest>> {
        if let Self::Slot { slot, origin } = self {
            let room = slot.0.take()?;
            let (origin, forwarded) = (*origin, Mutex::default());
            let nest = Nest { room, origin, state: AtomicU8::new(HELD), calls: AtomicUsize::new(0), forwarded };
            *self = Self::Handler(Owner(Arc::new(nest)));
        }
        match self {
            Self::Free | Self::Slot { .. } => None,
            Self::Handler(Owner(nest)) | Self::Thread(nest) | Self::Task(nest) => Some(Arc::clone(nest)),
        }
    }

    /// The headers that nested calls inherit.
    pub(crate) fn forwarded(&self) -> Option<Arc<Forwarded>> {
        match self {
            Self::Free | Self::Slot { .. } => None,
            Self::Handler(Owner(nest)) | Self::Thread(nest) | Self::Task(nest) => nest.forwarded(),
        }
    }

    /// Replaces the headers that nested calls inherit.
    pub(crate) fn forward(&mut self, forwarded: Option<Arc<Forwarded>>) {
        // Most requests have none, and make no state for them.
        if (forwarded.is_some() || self.forwarded().is_some())
            && let Some(nest) = self.nest()
        {
            *lock(&nest.forwarded) = forwarded;
        }
    }

    /// The handler, if it has left its slot: it must not be polled before it has one again.
    pub(crate) fn left(&self) -> Option<Arc<Nest>> {
        match self {
            Self::Handler(Owner(nest)) | Self::Thread(nest) if nest.state.load(Ordering::SeqCst) == LEFT => {
                Some(Arc::clone(nest))
            }
            _ => None,
        }
    }

    /// Leaves the slot if the handler, which is pending, waits for a nested call.
    pub(crate) fn leave_if_calling(&self) {
        if let Self::Handler(Owner(nest)) | Self::Thread(nest) = self
            && nest.calls.load(Ordering::SeqCst) > 0
        {
            nest.leave();
        }
    }

    /// Begins a nested call; `None` outside a handler.
    pub(crate) fn begin_call(&mut self) -> Option<Result<NestedCall, String>> {
        let is_task = matches!(self, Self::Task(_));
        let call = NestedCall::begin(self.nest()?);
        if is_task && let Ok(call) = &call {
            // The handler may wait for the task, and is not polled meanwhile.
            call.0.leave();
        }
        Some(call)
    }
}

/// A handler with nested calls; dropping it gives its slot back.
#[derive(Debug)]
pub(crate) struct Owner(Arc<Nest>);

impl Drop for Owner {
    fn drop(&mut self) {
        if self.0.state.swap(ENDED, Ordering::SeqCst) == HELD {
            self.0.room.slots.release();
        }
    }
}

/// The state of a handler that its nested calls share.
#[derive(Debug)]
pub(crate) struct Nest {
    room: Arc<Room>,
    origin: Origin,
    state: AtomicU8,
    /// Nested calls under way.
    calls: AtomicUsize,
    /// The headers that they inherit.
    forwarded: Mutex<Option<Arc<Forwarded>>>,
}

impl Nest {
    fn forwarded(&self) -> Option<Arc<Forwarded>> {
        lock(&self.forwarded).clone()
    }

    fn leave(&self) {
        if self.state.compare_exchange(HELD, LEFT, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.room.slots.release();
        }
    }

    /// Waits for a slot.
    pub(crate) async fn resume(self: Arc<Self>) {
        self.room.slots.acquire().await;
        if self.state.compare_exchange(LEFT, HELD, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            // It has ended, or its other half was faster.
            self.room.slots.release();
        }
    }
}

/// A nested call under way; to be dropped when it ends.
#[derive(Debug)]
pub(crate) struct NestedCall(Arc<Nest>);

impl NestedCall {
    /// # Errors
    /// The reason why the handler must not wait.
    fn begin(nest: Arc<Nest>) -> Result<Self, String> {
        if nest.origin.depth >= DEPTH_MAX {
            return Err(format!("calls are nested {DEPTH_MAX} deep already: a handler called a handler, and so on"));
        }
        if let Some(waiting_max) = nest.room.waiting_max
            && nest.calls.load(Ordering::SeqCst) == 0
            && nest.room.waiting.load(Ordering::SeqCst) >= waiting_max
        {
            return Err(format!("{waiting_max} handlers of nested calls wait for nested calls in this pool already"));
        }
        if nest.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            nest.room.waiting.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Self(nest))
    }

    /// The headers that it inherits.
    pub(crate) fn forwarded(&self) -> Option<Arc<Forwarded>> {
        self.0.forwarded()
    }

    /// Of the nested call: at least 1.
    pub(crate) fn depth(&self) -> u32 {
        self.0.origin.depth + 1
    }

    /// Whether the request of the handler is a retry.
    pub(crate) fn is_within_retry(&self) -> bool {
        self.0.origin.is_retry
    }
}

impl Drop for NestedCall {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.room.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// How deep calls may be nested.
pub(crate) const DEPTH_MAX: u32 = 16;

/// The handler has a slot.
const HELD: u8 = 0;
/// It has left its slot.
const LEFT: u8 = 1;
/// It needs none any more.
const ENDED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(room: &Arc<Room>, depth: u32) -> Seat {
        Seat::new(Slot::take(room).expect("a free slot"), Origin { depth, is_retry: false })
    }

    fn call(seat: &mut Seat) -> NestedCall {
        seat.begin_call().expect("a handler").expect("not refused")
    }

    #[tokio::test]
    async fn a_handler_leaves_its_slot_for_as_long_as_it_waits_for_nested_calls() {
        let room = Room::new(Arc::new(Slots::new(1)), None);
        let mut waiting = seat(&room, 0);
        waiting.leave_if_calling();
        assert!(Slot::take(&room).is_none(), "pending for another reason, it keeps its slot");
        let (first, second) = (call(&mut waiting), call(&mut waiting));
        waiting.leave_if_calling();
        let other = Slot::take(&room).expect("it is left");
        drop((first, second));
        let resuming = tokio::spawn(waiting.left().expect("it must wait").resume());
        tokio::task::yield_now().await;
        assert!(!resuming.is_finished(), "until the other one has ended");
        drop(other);
        resuming.await.unwrap();
        assert!(waiting.left().is_none() && Slot::take(&room).is_none());
        drop(waiting);
        assert!(Slot::take(&room).is_some(), "it is given back once");
        assert!(seat(&room, 0).nest().is_some());
        assert!(Slot::take(&room).is_some());
    }

    #[tokio::test]
    async fn a_slot_that_arrives_after_the_handlers_end_is_given_back() {
        let room = Room::new(Arc::new(Slots::new(1)), None);
        let mut handler = seat(&room, 0);
        let nested = call(&mut handler);
        handler.leave_if_calling();
        let thread = Seat::Thread(handler.nest().unwrap());
        drop((handler, nested));
        assert!(thread.left().is_none(), "it needs none");
        let Seat::Thread(nest) = thread else { panic!() };
        nest.resume().await;
        assert!(Slot::take(&room).is_some());
    }

    #[test]
    fn too_deep_and_too_many_are_refused() {
        let room = Room::new(Arc::new(Slots::new(8)), Some(2));
        assert!(seat(&room, DEPTH_MAX).begin_call().unwrap().is_err());
        assert_eq!(call(&mut seat(&room, 0)).depth(), 1);
        let mut seats: Vec<_> = (0..3).map(|_| seat(&room, 1)).collect();
        let mut calls: Vec<_> = seats.iter_mut().take(2).map(call).collect();
        calls.push(call(&mut seats[0]));
        assert!(seats[2].begin_call().unwrap().is_err(), "half of the places are for those that end");
        calls.clear();
        assert_eq!(call(&mut seats[2]).depth(), 2);
        assert!(Seat::Free.begin_call().is_none());
    }
}

//! What the connections of a broker share: the core behind one lock, and each connection's outbox.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::core::{ConnectionId, Core, Memory, Now, Peer, Rules, Traffic};
use crate::wire::OutBuffer;

/// A broker's state, shared by its tasks.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the timer task: something is due earlier than it thought.
    pub(super) timer: Notify,
    stopping: watch::Sender<bool>,
    /// Those who wait for something to change, and what wakes them.
    pub(super) watchers: AtomicUsize,
    pub(super) changed: Notify,
    /// New connections are closed as they come.
    is_refusing: AtomicBool,
    /// Accepted and not closed, however far they have got, and how many there may be.
    seats_taken: AtomicUsize,
    seats: usize,
    memory: Arc<Memory>,
    pub(super) outbox: OutboxBounds,
    pub(super) handshake_timeout: Duration,
}

#[derive(Debug)]
struct State {
    core: Core,
    /// By connection id.
    outboxes: Vec<Option<Arc<Outbox>>>,
    /// What the timer task sleeps towards.
    timer_at: Option<Instant>,
}

/// How much may wait to be written to one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutboxBounds {
    /// Below it deliveries, and reading, go on.
    pub(super) resume_bytes: usize,
    /// Above it the client is not read: only answers to itself get a backlog this far.
    pub(super) choke_bytes: usize,
}

impl OutboxBounds {
    /// Half and twice of what stops deliveries.
    fn new(delivery_max_bytes: usize) -> Self {
        Self { resume_bytes: delivery_max_bytes / 2, choke_bytes: delivery_max_bytes.saturating_mul(2) }
    }
}

/// What waits to be written to one socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<OutBuffer>,
    pub(super) filled: Notify,
    /// The backlog is small again, or the connection not blocked any more.
    pub(super) drained: Notify,
    pub(super) traffic: Arc<Traffic>,
    /// The socket is to be closed as it is.
    pub(super) cut: Notify,
}

impl Outbox {
    fn append(&self, output: &mut OutBuffer, memory: &Memory) {
        memory.note_queued(output.bytes());
        self.traffic.backlog.fetch_add(output.bytes(), Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        waiting.append(output);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Moves everything that waits behind what is in `segments`.
    pub(super) fn take_into(&self, segments: &mut VecDeque<Bytes>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take_into(segments);
    }
}

impl Shared {
    pub(super) fn new(rules: Rules, handshake_timeout: Duration) -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
        let outbox = OutboxBounds::new(rules.limits.outbox_max_bytes);
        let seats = rules.connections_max;
        let core = Core::new(rules, seed);
        let memory = Arc::clone(core.memory());
        Self {
            state: Mutex::new(State { core, outboxes: Vec::new(), timer_at: None }),
            memory,
            outbox,
            timer: Notify::new(),
            stopping: watch::channel(false).0,
            watchers: AtomicUsize::new(0),
            changed: Notify::new(),
            is_refusing: AtomicBool::new(false),
            seats_taken: AtomicUsize::new(0),
            seats,
            handshake_timeout,
        }
    }

    /// A seat for a connection that was accepted; `None` when all are taken.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        (self.seats_taken.fetch_add(1, Ordering::AcqRel) < self.seats).then_some(seat)
    }

    /// Registers a connection; `None` when there are too many.
    pub(super) fn open(&self, peer: Peer, version_0_8: bool) -> Option<(ConnectionId, Arc<Outbox>)> {
        let outbox = Arc::new(Outbox::default());
        let mut state = self.lock();
        let id = state.core.open(peer, Arc::clone(&outbox.traffic), version_0_8)?;
        if state.outboxes.len() <= id.0 {
            state.outboxes.resize(id.0 + 1, None);
        }
        state.outboxes[id.0] = Some(Arc::clone(&outbox));
        self.finish(state);
        Some((id, outbox))
    }

    /// Works on the core under one lock, and hands the output that caused to the writers.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core, Now) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.core, now());
        self.finish(state);
        result
    }

    /// Looks at the core, without telling anybody that it changed.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.lock().core)
    }

    /// Wakes those who wait for a change; there are hardly ever any.
    pub(super) fn note_change(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Forgets a connection.
    pub(super) fn close(&self, id: ConnectionId) {
        let mut state = self.lock();
        state.core.close(id, now());
        if let Some(outbox) = state.outboxes.get_mut(id.0).and_then(Option::take) {
            // Nobody writes any more what is counted here.
            self.memory.note_written(outbox.traffic.backlog.swap(0, Ordering::AcqRel));
        }
        self.finish(state);
    }

    /// So much of an outbox was written.
    pub(super) fn note_written(&self, bytes: usize) {
        if self.memory.note_written(bytes) {
            self.with(|_, _| ());
        }
    }

    /// Ends connections without a word. When this returns, the broker has forgotten them.
    pub(super) fn cut(&self, work: impl FnOnce(&mut Core, Now) -> Vec<ConnectionId>) -> usize {
        let mut state = self.lock();
        let ids = work(&mut state.core, now());
        for outbox in ids.iter().filter_map(|id| state.outboxes.get(id.0)?.as_ref()) {
            outbox.cut.notify_one();
        }
        self.finish(state);
        ids.len()
    }

    /// Reads from all connections again that may be read from.
    pub(super) fn wake_readers(&self) {
        for outbox in self.lock().outboxes.iter().flatten() {
            outbox.drained.notify_one();
        }
    }

    pub(super) fn refuse(&self, is_refusing: bool) {
        self.is_refusing.store(is_refusing, Ordering::Relaxed);
    }

    pub(super) fn refuses(&self) -> bool {
        self.is_refusing.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) fn stopping(&self) -> Stopping {
        Stopping(self.stopping.subscribe())
    }

    /// Does what is due, and says when something is next.
    pub(super) fn tick(&self) -> Option<Instant> {
        let mut state = self.lock();
        let next = state.core.tick(now());
        state.timer_at = next;
        self.finish(state);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let State { core, outboxes, timer_at } = &mut *state;
        let are_unblocked = core.watch_memory();
        core.take_output(|id, output| {
            if let Some(Some(outbox)) = outboxes.get(id.0) {
                outbox.append(output, &self.memory);
            }
        });
        if are_unblocked {
            outboxes.iter().flatten().for_each(|outbox| outbox.drained.notify_one());
        }
        let next = core.next_timer();
        if let Some(next) = next
            && timer_at.is_none_or(|at| next < at)
        {
            *timer_at = Some(next);
            self.timer.notify_one();
        }
        self.note_change();
        let garbage = core.take_garbage();
        if !garbage.is_empty() {
            // A million messages take a while: nobody has to wait for that.
            drop(state);
            drop(garbage);
            if self.memory.may_end_alarm() {
                self.with(|_, _| ());
            }
        }
    }
}

/// A connection's place among those that may be there. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats_taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells a task that the broker stops.
#[derive(Debug)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Resolves when the broker stops, or is gone.
    pub(super) async fn wait(&mut self) {
        drop(self.0.wait_for(|stopping| *stopping).await);
    }
}

/// By tokio's clock, so that a paused one pauses expiry too.
fn now() -> Now {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: tokio::time::Instant::now().into_std(), unix_s }
}

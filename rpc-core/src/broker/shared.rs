//! The state that the connections of a broker share: the core behind one lock, and the outbox of each connection.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use uuid::Uuid;

use super::{
    core::{ConnectionId, Core, Facts, Memory, Now, Peer, Rules, Traffic},
    seats::Seats,
};
use crate::{lock::lock, wire::OutBuffer};

/// The state of a broker, shared by its tasks.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held by the thread that gets the lock next. Busy connections queue here behind threads that wait already: a mutex
    /// alone would be taken again before one of these has woken up.
    line: Mutex<()>,
    /// Threads that wait for the lock.
    waiting: AtomicUsize,
    /// Of busy connections few are handled at a time, one batch each, in the order in which they ask. The others are not
    /// even in the runtime's queue, so that a handshake or a small call passes them.
    turns: Semaphore,
    /// Wakes the timer task because something is due earlier than its current sleep ends.
    pub(super) timer: Notify,
    stopping: watch::Sender<bool>,
    /// Tasks that wait for `changed`.
    pub(super) watchers: AtomicUsize,
    pub(super) changed: Notify,
    /// Whether new connections are closed at once.
    is_refusing: AtomicBool,
    pub(super) seats: Arc<Seats>,
    memory: Arc<Memory>,
    pub(super) outbox: OutboxBounds,
    pub(super) handshake_timeout: Duration,
    pub(super) facts: &'static Facts,
}

#[derive(Debug)]
struct State {
    core: Core,
    /// By connection id.
    outboxes: Vec<Option<Arc<Outbox>>>,
    /// The end of the current sleep of the timer task.
    timer_at: Option<Instant>,
}

/// Bounds of the bytes that wait to be written to one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutboxBounds {
    /// Below it, deliveries and reading resume.
    pub(super) resume_bytes: usize,
    /// Above it, the client is not read. Deliveries stop earlier, so only answers to its own requests exceed it.
    pub(super) choke_bytes: usize,
}

impl OutboxBounds {
    /// Half and twice the limit at which deliveries stop.
    fn new(delivery_max_bytes: usize) -> Self {
        Self { resume_bytes: delivery_max_bytes / 2, choke_bytes: delivery_max_bytes.saturating_mul(2) }
    }
}

/// The frames that wait to be written to one socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<OutBuffer>,
    pub(super) filled: Notify,
    /// Wakes the reader: the backlog is small again, or the connection is unblocked.
    pub(super) drained: Notify,
    pub(super) traffic: Arc<Traffic>,
    /// Ends the connection without another frame.
    pub(super) cut: Arc<Notify>,
}

impl Outbox {
    fn append(&self, output: &mut OutBuffer, memory: &Memory) {
        memory.note_queued(output.bytes());
        self.traffic.backlog.fetch_add(output.bytes(), Ordering::Relaxed);
        let mut waiting = lock(&self.waiting);
        let was_empty = waiting.is_empty();
        waiting.append(output);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Moves all waiting frames to the end of `segments`.
    pub(super) fn take_into(&self, segments: &mut VecDeque<Bytes>) {
        lock(&self.waiting).take_into(segments);
    }
}

impl Shared {
    pub(super) fn new(rules: Rules, handshake_timeout: Duration, handshakes_max: usize) -> Self {
        // Each has 122 bits from the system's generator.
        let halves = [(); 2].map(|()| Uuid::new_v4().into_bytes());
        let mut seed = [0; 32];
        seed.copy_from_slice(halves.as_flattened());
        let outbox = OutboxBounds::new(rules.limits.outbox_max_bytes);
        let facts = rules.facts;
        let seats = Seats::new(rules.connections_max, handshakes_max);
        let core = Core::new(rules, seed);
        let memory = Arc::clone(core.memory());
        Self {
            state: Mutex::new(State { core, outboxes: Vec::new(), timer_at: None }),
            line: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            turns: Semaphore::new(TURNS),
            memory,
            outbox,
            timer: Notify::new(),
            stopping: watch::channel(false).0,
            watchers: AtomicUsize::new(0),
            changed: Notify::new(),
            is_refusing: AtomicBool::new(false),
            seats,
            handshake_timeout,
            facts,
        }
    }

    /// Registers a connection, which ends when `cut` is notified; `None` when the core has too many.
    pub(super) fn open(&self, peer: Peer, version_0_8: bool, cut: &Arc<Notify>) -> Option<(ConnectionId, Arc<Outbox>)> {
        let outbox = Arc::new(Outbox { cut: Arc::clone(cut), ..Outbox::default() });
        let mut state = self.lock();
        let id = state.core.open(peer, Arc::clone(&outbox.traffic), version_0_8)?;
        if state.outboxes.len() <= id.0 {
            state.outboxes.resize(id.0 + 1, None);
        }
        state.outboxes[id.0] = Some(Arc::clone(&outbox));
        self.finish(state);
        Some((id, outbox))
    }

    /// Runs `work` on the core under one lock, and hands its output to the writers.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core, Now) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.core, now());
        self.finish(state);
        result
    }

    /// As [`with`](Self::with), for one that has a [`turn`](Self::turn): threads that wait already come first.
    pub(super) fn with_in_turn<T>(&self, work: impl FnOnce(&mut Core, Now) -> T) -> T {
        let mut state = self.lock_in_turn();
        let result = work(&mut state.core, now());
        self.finish(state);
        result
    }

    /// Waits for the turn of a busy connection. It lasts until it is dropped.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// Reads the core. Unlike [`with`](Self::with), it wakes no watchers.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.lock().core)
    }

    /// Wakes the tasks that wait for a change.
    pub(super) fn note_change(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Removes a connection.
    pub(super) fn close(&self, id: ConnectionId) {
        let mut state = self.lock();
        state.core.close(id, now());
        if let Some(outbox) = state.outboxes.get_mut(id.0).and_then(Option::take) {
            // The rest of the outbox is counted, but will not be written.
            self.memory.note_written(outbox.traffic.backlog.swap(0, Ordering::AcqRel));
        }
        self.finish(state);
    }

    #[cfg(feature = "cli")]
    pub(super) fn takes_fall(&self, fall_bytes: usize) -> bool {
        self.memory.takes_fall(fall_bytes)
    }

    /// Notes that so many bytes of an outbox were written.
    pub(super) fn note_written(&self, bytes: usize) {
        if self.memory.note_written(bytes) {
            self.with(|_, _| ());
        }
    }

    /// Ends connections without another frame. When this returns, the core has removed them.
    pub(super) fn cut(&self, work: impl FnOnce(&mut Core, Now) -> Vec<ConnectionId>) -> usize {
        let mut state = self.lock();
        let ids = work(&mut state.core, now());
        for outbox in ids.iter().filter_map(|id| state.outboxes.get(id.0)?.as_ref()) {
            outbox.cut.notify_one();
        }
        self.finish(state);
        ids.len()
    }

    /// Makes the readers of all connections check again whether they may read.
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

    /// Runs the timers that are due, and returns when the next one is.
    pub(super) fn tick(&self) -> Option<Instant> {
        let mut state = self.lock_in_turn();
        let next = state.core.tick(now());
        state.timer_at = next;
        self.finish(state);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        if let Ok(state) = self.state.try_lock() {
            return state;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.lock_in_line();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    fn lock_in_turn(&self) -> MutexGuard<'_, State> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return self.lock();
        }
        self.lock_in_line()
    }

    fn lock_in_line(&self) -> MutexGuard<'_, State> {
        let line = lock(&self.line);
        let state = lock(&self.state);
        drop(line);
        state
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
            // Dropping a million messages takes long, so it happens without the lock.
            drop(state);
            drop(garbage);
            if self.memory.may_end_alarm() {
                self.with(|_, _| ());
            }
        }
    }
}

/// One has the lock while another one's frames are cut.
const TURNS: usize = 2;

/// Notifies a task that the broker stops.
#[derive(Debug)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Resolves when the broker stops or is dropped.
    pub(super) async fn wait(&mut self) {
        drop(self.0.wait_for(|stopping| *stopping).await);
    }
}

/// By tokio's clock, so that a test that pauses it pauses expiry, too.
fn now() -> Now {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: tokio::time::Instant::now().into_std(), unix_s }
}

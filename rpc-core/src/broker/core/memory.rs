//! How much memory messages take, and all that is declared; and who is held up when it is too much. Pure.
//!
//! ```text
//!  Assembly ─grow─► Held ──with the message──► dropped: given back       Outbox: note_queued, note_written
//!                     └──────────────► Memory.bytes ◄──────────────────────┘
//!  bytes ≥ high: publishers are blocked ── bytes < low: everybody goes on
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use amq_protocol::protocol::{AMQPClass, connection as connection_class};

use super::{
    ConnectionId, Core, Fault,
    session::{Sessions, Stage, short},
};

/// What messages and outboxes of one broker take, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: AtomicUsize,
    high: usize,
    low: usize,
    hard: usize,
    is_high: AtomicBool,
}

impl Memory {
    pub(crate) fn new(high_watermark: u64) -> Self {
        let high = usize::try_from(high_watermark).unwrap_or(usize::MAX);
        // An eighth below, so that publishers are not stopped and started for each message.
        let (low, hard) = (high - high / 8, high.saturating_add(high / 2));
        Self { bytes: AtomicUsize::new(0), high, low, hard, is_high: AtomicBool::new(false) }
    }

    /// The largest message there can ever be room for.
    pub(super) fn message_max_bytes(&self) -> u64 {
        self.high as u64
    }

    /// Whether even messages that have begun must wait. Below that they are let in: a broker full of halves would be
    /// stuck.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bytes() >= self.hard
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Something was put into an outbox.
    pub(crate) fn note_queued(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether there is room again that the core does not know of.
    pub(crate) fn may_end_alarm(&self) -> bool {
        self.is_high.load(Ordering::Relaxed) && self.bytes() < self.low
    }

    /// Something left an outbox; true when that may end the alarm, which the core has to look at.
    pub(crate) fn note_written(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.is_high.load(Ordering::Relaxed) && before - bytes < self.low
    }
}

/// Memory that is held, and counted while this lives. The default counts nothing.
#[derive(Debug, Default)]
pub(super) struct Held {
    memory: Option<Arc<Memory>>,
    bytes: usize,
}

impl Held {
    pub(super) fn nothing_of(memory: &Arc<Memory>) -> Self {
        Self { memory: Some(Arc::clone(memory)), bytes: 0 }
    }

    /// Another one that counts in the same place, and holds nothing yet.
    pub(super) fn another(&self) -> Self {
        Self { memory: self.memory.clone(), bytes: 0 }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes(&self) -> usize {
        if self.memory.is_some() { self.bytes } else { 0 }
    }

    pub(super) fn set(&mut self, bytes: usize) {
        if let Some(memory) = self.memory.as_deref().filter(|_| bytes != self.bytes) {
            if bytes > self.bytes {
                memory.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            } else {
                memory.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        }
        self.bytes = bytes;
    }

    pub(super) fn grow(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Why publishers are blocked, when they are. Either cause is enough.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// Somebody asked for it, with these words.
    pub(super) asked: Option<Arc<str>>,
    pub(super) is_memory_high: bool,
}

impl Alarm {
    pub(super) fn is_on(&self) -> bool {
        self.is_memory_high || self.asked.is_some()
    }

    fn reason(&self) -> Option<Arc<str>> {
        self.asked.clone().or_else(|| self.is_memory_high.then(|| LOW_ON_MEMORY.into()))
    }
}

impl Core {
    /// What its messages take.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Blocks publishers when messages take too much, and lets them go on when that is over; true when they may be read
    /// again. Costs a look at two numbers as long as nothing changes.
    pub(crate) fn watch_memory(&mut self) -> bool {
        let bytes = self.memory.bytes();
        match self.sessions.alarm.is_memory_high {
            false if bytes >= self.memory.high => self.set_memory_high(true, bytes),
            true if bytes < self.memory.low => self.set_memory_high(false, bytes),
            _ => return false,
        }
        !self.sessions.alarm.is_on()
    }

    /// Notes what exchanges, queues and bindings take now.
    pub(super) fn count_topology(&mut self, id: ConnectionId) {
        if let Ok((vhost, _)) = self.vhost(id) {
            vhost.count_topology();
        }
    }

    /// Refuses what would stay for ever when there is no memory left for it: not every publisher is blocked in time.
    pub(super) fn need_memory(&self, what: &fmt::Arguments<'_>) -> Result<(), Fault> {
        match self.memory.is_exhausted() {
            true => Err(Fault::precondition(format!("cannot {what}: low on memory"))),
            false => Ok(()),
        }
    }

    fn set_memory_high(&mut self, is_high: bool, bytes: usize) {
        let high = self.memory.high;
        if is_high {
            tracing::warn!(bytes, high, "memory high watermark reached: publishers are blocked");
        } else {
            tracing::info!(bytes, high, "memory is free again: publishers go on");
        }
        self.memory.is_high.store(is_high, Ordering::Relaxed);
        // As in RabbitMQ, publishers are stopped by their next publish: until then they may acknowledge what they have.
        self.sessions.alarm.is_memory_high = is_high;
        self.sessions.unblock_all();
    }

    /// Stops reading from those who have published, at once, and from others when they do.
    pub(crate) fn block(&mut self, reason: &str) {
        self.sessions.alarm.asked = Some(reason.into());
        let ids: Vec<_> = self.sessions.ids().collect();
        for id in ids {
            if self.sessions.get(id).is_some_and(|session| session.has_published) {
                self.sessions.block(id);
            }
        }
    }

    /// Reads from everybody again, unless memory is short.
    pub(crate) fn unblock(&mut self) {
        self.sessions.alarm.asked = None;
        self.sessions.unblock_all();
    }
}

impl Sessions {
    /// Lets everybody go on when nothing speaks against it.
    fn unblock_all(&mut self) {
        if self.alarm.is_on() {
            return;
        }
        let ids: Vec<_> = self.ids().collect();
        ids.into_iter().for_each(|id| self.unblock(id));
    }

    /// Stops reading from a connection that is about to publish: what it is about to say waits.
    pub(super) fn block_publisher(&mut self, id: ConnectionId) {
        self.block(id);
        self.work = usize::MAX / 2;
    }

    /// Stops reading from a connection, and says so.
    fn block(&mut self, id: ConnectionId) {
        let Some(reason) = self.alarm.reason() else { return };
        let Some(session) = self.get_mut(id).filter(|session| session.stage == Stage::Open && !session.is_held())
        else {
            return;
        };
        session.set_held(true);
        if session.capabilities.connection_blocked {
            let blocked = connection_class::Blocked { reason: short(&reason) };
            self.send(id, 0, &AMQPClass::Connection(connection_class::AMQPMethod::Blocked(blocked)));
        }
    }

    fn unblock(&mut self, id: ConnectionId) {
        let Some(session) = self.get_mut(id).filter(|session| session.is_held()) else { return };
        session.set_held(false);
        if session.capabilities.connection_blocked && session.stage == Stage::Open {
            let unblocked = connection_class::AMQPMethod::Unblocked(connection_class::Unblocked {});
            self.send(id, 0, &AMQPClass::Connection(unblocked));
        }
    }
}

/// RabbitMQ's reason.
const LOW_ON_MEMORY: &str = "low on memory";
/// What a small message takes besides its bytes: room for more of them, its place in a queue, and what the allocator adds.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 224;

//! How much memory messages, outboxes and declarations take. Pure.
//!
//! ```text
//!  Assembly ─grow─► Held ──part of the message──► dropped: subtracted    Outbox: note_queued, note_written
//!                     └──────────────► Memory.bytes ◄──────────────────────┘
//!  bytes ≥ high: publishers are blocked ── bytes < low: they are unblocked
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::broker::core::fault::Fault;

/// The bytes that messages, outboxes and declarations of one broker take.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: AtomicUsize,
    /// The most there were at a [`Memory::crosses`] since [`Memory::takes_fall`] was true.
    peak: AtomicUsize,
    /// Publishers are blocked from here on.
    high: usize,
    /// Publishers are unblocked below this.
    low: usize,
    /// Messages that are only partly received, and declarations, are also stopped from here on.
    hard: usize,
    is_high: AtomicBool,
}

impl Memory {
    pub(crate) fn new(high_watermark: u64) -> Self {
        let high = usize::try_from(high_watermark).unwrap_or(usize::MAX);
        // An eighth lower, so that publishers are not blocked and unblocked for each message.
        let (low, hard) = (high - high / 8, high.saturating_add(high / 2));
        Self { bytes: AtomicUsize::new(0), peak: AtomicUsize::new(0), high, low, hard, is_high: AtomicBool::new(false) }
    }

    /// The largest message that can ever fit.
    pub(crate) fn message_max_bytes(&self) -> u64 {
        self.high as u64
    }

    /// Whether even partially received messages must wait. Below this limit they may complete; otherwise half-received
    /// messages could fill the memory and deadlock the broker.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.bytes() >= self.hard
    }

    /// Refuses a declaration, which would stay for ever, while memory is exhausted: not every publisher is blocked in
    /// time.
    pub(crate) fn refuse_if_exhausted(&self, declaration: &fmt::Arguments<'_>) -> Result<(), Fault> {
        match self.is_exhausted() {
            true => Err(Fault::precondition(format!("cannot {declaration}: low on memory"))),
            false => Ok(()),
        }
    }

    /// Whether usage is beyond the watermark that applies now: the lower one while publishers are blocked. Notes the peak.
    pub(crate) fn crosses(&self) -> bool {
        let bytes = self.bytes();
        // Only one thread at a time is here: it has the core.
        if bytes > self.peak.load(Ordering::Relaxed) {
            self.peak.store(bytes, Ordering::Relaxed);
        }
        match self.is_high.load(Ordering::Relaxed) {
            false => bytes >= self.high,
            true => bytes < self.low,
        }
    }

    /// Whether usage has fallen by so many bytes from its peak. Then the peak begins anew.
    #[cfg(feature = "cli")]
    pub(crate) fn takes_fall(&self, fall_bytes: usize) -> bool {
        let bytes = self.bytes();
        let has_fallen = self.peak.load(Ordering::Relaxed).saturating_sub(bytes) >= fall_bytes;
        if has_fallen {
            self.peak.store(bytes, Ordering::Relaxed);
        }
        has_fallen
    }

    /// Notes whether publishers are blocked over memory.
    pub(crate) fn set_high(&self, is_high: bool) {
        let (bytes, high) = (self.bytes(), self.high);
        if is_high {
            tracing::warn!(bytes, high, "memory high watermark reached: publishers are blocked");
        } else {
            tracing::info!(bytes, high, "memory is below the low watermark: publishers are unblocked");
        }
        self.is_high.store(is_high, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that were put into an outbox.
    pub(crate) fn note_queued(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether usage fell below the low watermark without the core having noticed.
    pub(crate) fn may_end_alarm(&self) -> bool {
        self.is_high.load(Ordering::Relaxed) && self.bytes() < self.low
    }

    /// Subtracts bytes that left an outbox. Returns whether the core has to check for the end of the alarm.
    pub(crate) fn note_written(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.is_high.load(Ordering::Relaxed) && before - bytes < self.low
    }
}

/// An amount of memory, counted until this is dropped. The default counts in no [`Memory`].
#[derive(Debug, Default)]
pub(crate) struct Held {
    memory: Option<Arc<Memory>>,
    bytes: usize,
}

impl Held {
    pub(crate) fn nothing_of(memory: &Arc<Memory>) -> Self {
        Self { memory: Some(Arc::clone(memory)), bytes: 0 }
    }

    /// Another, empty amount that counts in the same [`Memory`].
    pub(crate) fn another(&self) -> Self {
        Self { memory: self.memory.clone(), bytes: 0 }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn bytes(&self) -> usize {
        if self.memory.is_some() { self.bytes } else { 0 }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        if let Some(memory) = self.memory.as_deref().filter(|_| bytes != self.bytes) {
            if bytes > self.bytes {
                memory.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            } else {
                memory.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        }
        self.bytes = bytes;
    }

    pub(crate) fn grow(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Memory that a small message takes besides its bytes: spare room, its place in a queue, and the allocator's overhead.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 224;

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn a_fall_from_the_peak_is_taken_once() {
        const FALL: usize = 16 << 20;
        let few = FALL - 1;
        let memory = Arc::new(Memory::new(u64::MAX));
        let mut held = Held::nothing_of(&memory);
        for (bytes, peak_bytes, has_fallen) in [
            (0, 0, false),
            (few, few, false),
            (0, few, false),
            (FALL * 3, FALL * 3, false),
            (FALL * 2 + 1, FALL * 3, false),
            (9, FALL * 2 + 1, true),
            (9, 9, false),
            // It began and ended between two looks.
            (0, FALL, true),
            (0, 0, false),
        ] {
            held.set(peak_bytes);
            memory.crosses();
            held.set(bytes);
            assert_eq!(memory.takes_fall(FALL), has_fallen, "{bytes} of {peak_bytes}");
        }
    }
}

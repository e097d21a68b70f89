//! The counts of a client's requests: of all that happened to them on their way. `called.rs` counts its calls by method.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    call_error::TimeoutStage,
    meter::{self, Event, Of},
};

/// Shared by a client's clones and its sessions.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) resent: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) late_replies: AtomicU64,
    pub(super) duplicate_replies: AtomicU64,
    pub(super) foreign_replies: AtomicU64,
    pub(super) cancels: AtomicU64,
    pub(super) looks: AtomicU64,
    pub(super) unserved: AtomicU64,
    /// In the order of [`TimeoutStage::ALL`].
    timeouts: [AtomicU64; TimeoutStage::ALL.len()],
}

impl Counters {
    /// Counts an event, here and by the facade.
    pub(super) fn note(&self, event: Event, of: Of) {
        let counter = match event {
            Event::Resent => Some(&self.resent),
            Event::Retried => Some(&self.retried),
            Event::Returned => Some(&self.returned),
            Event::LateReply => Some(&self.late_replies),
            Event::DuplicateReply => Some(&self.duplicate_replies),
            Event::ForeignReply => Some(&self.foreign_replies),
            Event::CancelSent => Some(&self.cancels),
            Event::Looked => Some(&self.looks),
            Event::Unserved => Some(&self.unserved),
            Event::TimedOut(stage) => Some(&self.timeouts[stage.index()]),
            // A pool's, or a connection's.
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        meter::count(event, of);
    }

    /// Those that have occurred.
    pub(super) fn timeouts(&self) -> Vec<(TimeoutStage, u64)> {
        let all = TimeoutStage::ALL.into_iter().zip(&self.timeouts);
        all.map(|(stage, calls)| (stage, calls.load(Ordering::Relaxed))).filter(|(_, calls)| *calls > 0).collect()
    }
}

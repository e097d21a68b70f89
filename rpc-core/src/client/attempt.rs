//! [`AttemptOf`]: ties what is sent to the logical call that the layers see.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::layer::LogicalCall;

/// One attempt of a logical call.
pub(super) struct AttemptOf {
    pub(super) call: Arc<LogicalCall>,
    is_sent: AtomicBool,
}

impl AttemptOf {
    pub(super) fn new(call: Arc<LogicalCall>) -> Self {
        Self { call, is_sent: AtomicBool::new(false) }
    }

    /// Notes that the broker may have it.
    pub(super) fn note_sent(&self) {
        self.call.progress.note_sent(!self.is_sent.swap(true, Ordering::Relaxed));
    }

    /// Notes that it has ended, certainly not executed.
    pub(super) fn note_not_executed(&self) {
        if self.is_sent.load(Ordering::Relaxed) {
            self.call.progress.note_not_executed();
        }
    }
}

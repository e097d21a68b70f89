//! [`AttemptOf`]: ties what is sent to the logical call that the layers see.

use std::sync::Arc;

use crate::layer::{AttemptId, LogicalCall};

/// One attempt of a logical call.
#[derive(Clone)]
pub(super) struct AttemptOf {
    pub(super) call: Arc<LogicalCall>,
    id: AttemptId,
}

impl AttemptOf {
    pub(super) fn new(call: Arc<LogicalCall>) -> Self {
        let id = call.progress.begin_attempt();
        Self { call, id }
    }

    pub(super) fn is_first(&self) -> bool {
        self.id.is_first()
    }

    /// Notes that the broker may have it.
    pub(super) fn note_sent(&self) {
        self.call.progress.note_sent(self.id);
    }

    /// Notes that it has ended, certainly not executed.
    pub(super) fn note_not_executed(&self) {
        self.call.progress.note_not_executed(self.id);
    }
}

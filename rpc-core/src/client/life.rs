//! Whether a part of a client still works, for those that wait for its end.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// The life of a session or of a channel: it ends once.
#[derive(Debug, Default)]
pub(super) struct Life {
    has_ended: AtomicBool,
    ended: Notify,
}

impl Life {
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) {
        let mut ended = pin!(self.ended.notified());
        // Before the look at the flag, so that an end between the two wakes this task.
        ended.as_mut().enable();
        if !self.has_ended() {
            ended.await;
        }
    }
}

/// Ends a life when its task ends, be it by a panic or with its runtime.
#[derive(Debug)]
pub(super) struct EndOnDrop(pub(super) Arc<Life>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

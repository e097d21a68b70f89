//! Whether the call behind a delivery was cancelled, for handlers that ask.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering, fence},
};

use tokio::sync::Notify;

/// A cancel that may arrive, and the tasks that wait for it. Nothing is allocated before the first one waits.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    is_cancelled: AtomicBool,
    waiting: OnceLock<Box<Notify>>,
}

impl Cancellation {
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        // Pairs with the fence in `cancelled`: either this side sees the `Notify`, or the waiting side sees the flag.
        fence(Ordering::SeqCst);
        if let Some(waiting) = self.waiting.get() {
            waiting.notify_waiters();
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Resolves when it is cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn cancelled(&self) {
        if self.is_cancelled() {
            return;
        }
        let mut notified = std::pin::pin!(self.waiting.get_or_init(Box::default).notified());
        // Before the look at the flag, so that a cancel between the two wakes this task.
        notified.as_mut().enable();
        fence(Ordering::SeqCst);
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn every_task_that_waits_is_woken_and_a_later_one_need_not_wait() {
        let cancellation = Arc::new(Cancellation::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let cancellation = Arc::clone(&cancellation);
                tokio::spawn(async move { cancellation.cancelled().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!cancellation.is_cancelled() && waiting.iter().all(|task| !task.is_finished()));
        cancellation.cancel();
        for task in waiting {
            task.await.unwrap();
        }
        cancellation.cancelled().await;
        assert!(cancellation.is_cancelled());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cancel_that_comes_while_a_task_begins_to_wait_is_not_lost() {
        for _ in 0..2_000 {
            let cancellation = Arc::new(Cancellation::default());
            let waiting = tokio::spawn({
                let cancellation = Arc::clone(&cancellation);
                async move { cancellation.cancelled().await }
            });
            cancellation.cancel();
            tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("it is woken").unwrap();
        }
    }
}

//! A task that ends with its owner.

use tokio::task::JoinHandle;

/// A spawned task; dropping this stops it at its next `.await`.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T = ()>(JoinHandle<T>);

impl<T: Send + 'static> AbortOnDrop<T> {
    pub(crate) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl<T> AbortOnDrop<T> {
    /// Waits for the end of the task; `None` if it panicked.
    ///
    /// # Cancel safety
    /// Dropping the future stops the task.
    pub(crate) async fn join(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }

    /// Whether it has ended by itself, was stopped, or went down with its runtime.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Stops the task at its next `.await`.
    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_with_its_owner() {
        let (held, dropped) = oneshot::channel::<()>();
        let task = AbortOnDrop::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(task);
        assert!(dropped.await.is_err(), "the task's future is gone, and with it what it held");
    }
}

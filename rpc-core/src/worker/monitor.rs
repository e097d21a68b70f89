//! A view of a running pool that others may hold.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    lane::Phase,
    stats::{Counters, PoolStats},
};

/// Watches a pool while its [`PoolHandle`](crate::PoolHandle) serves elsewhere, and can ask for its shutdown.
///
/// Clones watch the same pool. None of them keeps it running: that is the handle's part alone.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(pool: rpc_core::WorkerPool) -> Result<(), rpc_core::Error> {
/// let pool = pool.start().await?;
/// let monitor = pool.monitor();
/// tokio::spawn(async move {
///     loop {
///         tokio::time::sleep(Duration::from_secs(60)).await;
///         println!("{:?}: {} calls answered", monitor.state(), monitor.stats().answered);
///     }
/// });
/// pool.run_until_signal(Duration::from_secs(30)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PoolMonitor {
    phase: watch::Receiver<Phase>,
    counters: Arc<Counters>,
    shutdown_requested: watch::Sender<bool>,
}

/// The part of its life that a pool is in.
///
/// It does not say whether the broker can be reached: [`PoolMonitor::is_ready`] says whether requests are taken, and
/// [`Connection::state`](crate::Connection::state) why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolState {
    /// It takes requests, or will when its connection is back.
    Serving,
    /// It is being shut down: running handlers finish.
    Draining,
    /// It has stopped: its shutdown has ended, or its handle was dropped.
    Stopped,
}

impl PoolMonitor {
    pub(super) fn new(
        phase: watch::Receiver<Phase>,
        counters: Arc<Counters>,
        shutdown_requested: watch::Sender<bool>,
    ) -> Self {
        Self { phase, counters, shutdown_requested }
    }

    /// The counts of the pool so far; after its end, the final ones.
    pub fn stats(&self) -> PoolStats {
        self.counters.stats()
    }

    /// The state of the pool now.
    pub fn state(&self) -> PoolState {
        // The handle owns the only sender, and drops it when the pool has stopped.
        if self.phase.has_changed().is_err() {
            return PoolState::Stopped;
        }
        match *self.phase.borrow() {
            Phase::Serving => PoolState::Serving,
            Phase::Draining | Phase::Aborting => PoolState::Draining,
        }
    }

    /// Whether the pool takes requests now; see [`PoolHandle::is_ready`](crate::PoolHandle::is_ready). False after its end.
    pub fn is_ready(&self) -> bool {
        self.state() == PoolState::Serving && self.counters.is_consuming()
    }

    /// Asks the owner of the handle to shut the pool down, and returns at once.
    ///
    /// [`PoolHandle::run_until_signal`](crate::PoolHandle::run_until_signal) does so within its limit, and
    /// [`PoolHandle::shutdown_requested`](crate::PoolHandle::shutdown_requested) resolves. An owner that waits for neither
    /// does not notice. Asking again changes nothing.
    pub fn request_shutdown(&self) {
        self.shutdown_requested.send_replace(true);
    }
}

//! A running pool, and how it stops.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    lane::{LaneEnd, Phase},
    monitor::PoolMonitor,
    stats::{Counters, PoolStats},
};
use crate::{error::Error, signal::StopSignals, task::AbortOnDrop};

/// A running pool, and its only owner.
///
/// Dropping it stops the pool at once: handlers are aborted, and the broker redelivers their requests to other workers. To
/// watch the pool from elsewhere take a [`monitor`](Self::monitor).
#[derive(Debug)]
#[must_use = "dropping the handle stops the pool, and so does `let _ = …`: keep it in a variable"]
pub struct PoolHandle {
    phase: watch::Sender<Phase>,
    lanes: JoinSet<LaneEnd>,
    counters: Arc<Counters>,
    /// Set to true by monitors.
    shutdown_requested: watch::Sender<bool>,
    control: Option<AbortOnDrop>,
    dead_callers: Vec<AbortOnDrop>,
}

/// The outcome of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Handlers still running at the limit, which were aborted; the broker redelivers their requests.
    pub aborted: usize,
    /// The counts of the pool, from its start to its end.
    pub stats: PoolStats,
}

/// A pool stopped, but not in order: the broker may redeliver requests that were answered.
///
/// `?` turns it into an [`Error`] where the report does not matter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("the pool did not stop in order, after {} answers and with {} handlers aborted", report.stats.answered, report.aborted)]
pub struct ShutdownError {
    /// The outcome as far as it is known.
    pub report: ShutdownReport,
    /// The reason.
    #[source]
    pub error: Error,
}

impl From<ShutdownError> for Error {
    fn from(failed: ShutdownError) -> Self {
        failed.error
    }
}

impl PoolHandle {
    pub(super) fn new(phase: watch::Sender<Phase>, counters: Arc<Counters>) -> Self {
        let (shutdown_requested, _) = watch::channel(false);
        Self { phase, lanes: JoinSet::new(), counters, shutdown_requested, control: None, dead_callers: Vec::new() }
    }

    /// A monitor of this pool, which can be cloned and handed to other tasks: to a health check, a scraper of metrics.
    pub fn monitor(&self) -> PoolMonitor {
        PoolMonitor::new(self.phase(), Arc::clone(&self.counters), self.shutdown_requested.clone())
    }

    /// Resolves when a [`PoolMonitor`] has asked for the shutdown of this pool.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn shutdown_requested(&self) {
        wait_for_true(self.shutdown_requested.subscribe()).await;
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn spawn(&mut self, lane: impl Future<Output = LaneEnd> + Send + 'static) {
        self.lanes.spawn(lane);
    }

    pub(super) fn own_control(&mut self, control: AbortOnDrop) {
        self.control = Some(control);
    }

    pub(super) fn own_dead_callers(&mut self, task: AbortOnDrop) {
        self.dead_callers.push(task);
    }

    /// The counts of the pool so far.
    pub fn stats(&self) -> PoolStats {
        self.counters.stats()
    }

    /// Whether the pool takes requests now: every queue has its consumer, and no shutdown has begun.
    ///
    /// It is false from the moment a consumer, its channel or the connection is lost until the pool consumes again. A connection that
    /// ends without a word is lost after two heartbeats, 20 s by default. So it answers a readiness probe; a process that is not ready needs no
    /// restart.
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Serving && self.counters.is_consuming()
    }

    /// Resolves when the pool can serve no longer because its connection is closed for good, and says why. Losses
    /// that the pool repairs by itself do not show here.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&mut self) -> Error {
        while let Some(end) = self.lanes.join_next().await {
            match end {
                Ok(LaneEnd::Lost { reason }) => return Error::Disconnected { reason },
                Ok(LaneEnd::Drained | LaneEnd::Aborted { .. }) => {}
                Err(error) => return Error::Disconnected { reason: error.to_string() },
            }
        }
        Error::Disconnected { reason: "the pool has no consumer left".to_owned() }
    }

    /// Serves until the process is asked to stop, by ctrl-c or SIGTERM, or until a [`PoolMonitor`] asks for it; then
    /// [shuts down](Self::shutdown) within `limit`. From the call on these signals no longer end the process by themselves.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(pool: rpc_core::WorkerPool) -> Result<(), rpc_core::Error> {
    /// let report = pool.start().await?.run_until_signal(Duration::from_secs(30)).await?;
    /// println!("{} calls answered, {} cut short", report.stats.answered, report.aborted);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`shutdown`](Self::shutdown) and [`lost`](Self::lost); [`Error::Signals`] when the operating
    /// system refuses a signal handler. Each comes with the report.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pool at once, as dropping the pool does.
    ///
    /// # Panics
    /// Outside a tokio runtime whose I/O is enabled.
    pub fn run_until_signal(
        mut self,
        limit: Duration,
    ) -> impl Future<Output = Result<ShutdownReport, ShutdownError>> + Send + 'static {
        // Now, not when it is first polled: a signal must not find the process without a handler.
        let stop_signals = StopSignals::listen();
        async move {
            let mut stop_signals = match stop_signals {
                Ok(stop_signals) => stop_signals,
                Err(error) => {
                    let error = Error::Signals { reason: error.to_string() };
                    return Err(self.failed(0, error));
                }
            };
            let requested = wait_for_true(self.shutdown_requested.subscribe());
            tokio::select! {
                () = stop_signals.next() => {}
                () = requested => {}
                error = self.lost() => return Err(self.failed(0, error)),
            }
            tracing::info!(?limit, "asked to stop: draining");
            self.shutdown(limit).await
        }
    }

    /// Stops in order: takes no further requests, requeues those not begun, finishes the others and answers them,
    /// acknowledges, closes its channels. Handlers that run longer than `limit` are aborted, and the broker redelivers their
    /// requests.
    ///
    /// # Errors
    /// A [`ShutdownError`] with the report, and in it [`Error::Disconnected`] when a channel was lost before the broker
    /// confirmed that it has seen every reply and ack, or [`Error::TimedOut`] when it did not do so within a second after
    /// `limit`.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pool at once, as dropping the pool does.
    pub async fn shutdown(mut self, limit: Duration) -> Result<ShutdownReport, ShutdownError> {
        self.phase.send_replace(Phase::Draining);
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        let mut report = ShutdownReport::default();
        let mut lost = None;
        if timeout_at(deadline, self.join(&mut report, &mut lost)).await.is_err() {
            self.phase.send_replace(Phase::Aborting);
            if timeout_at(deadline + CLOSE_GRACE, self.join(&mut report, &mut lost)).await.is_err() {
                let limit = limit + CLOSE_GRACE;
                let error = Error::TimedOut { operation: "shut the pool down".to_owned(), limit };
                return Err(self.failed(report.aborted, error));
            }
        }
        match lost {
            Some(reason) => Err(self.failed(report.aborted, Error::Disconnected { reason })),
            None => Ok(ShutdownReport { stats: self.counters.stats(), ..report }),
        }
    }

    fn failed(&self, aborted: usize, error: Error) -> ShutdownError {
        ShutdownError { report: ShutdownReport { aborted, stats: self.counters.stats() }, error }
    }

    async fn join(&mut self, report: &mut ShutdownReport, lost: &mut Option<String>) {
        while let Some(end) = self.lanes.join_next().await {
            match end {
                Ok(LaneEnd::Drained) => {}
                Ok(LaneEnd::Aborted { handlers }) => report.aborted += handlers,
                Ok(LaneEnd::Lost { reason }) => *lost = Some(reason),
                Err(error) => *lost = Some(error.to_string()),
            }
        }
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        // Before the lanes are aborted: the slot of a handler that goes must not let another one begin.
        self.phase.send_replace(Phase::Aborting);
    }
}

async fn wait_for_true(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|is_set| *is_set).await.is_err() {
        // Every sender is gone unset: it is never set.
        std::future::pending().await
    }
}

/// How long aborting and closing may take after the limit.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_pool_begins_no_further_handler() {
        let (sender, phase) = watch::channel(Phase::Serving);
        drop(PoolHandle::new(sender, Arc::default()));
        assert!(
            *phase.borrow() > Phase::Serving,
            "a handler that waits would begin in the slot of one that is aborted"
        );
    }
}

//! A running pool, and how it stops.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    cancel::ControlTask,
    dead_callers::TellTask,
    lane::{LaneEnd, Phase},
    stats::{Counters, PoolStats},
};
use crate::{error::Error, signal::StopSignals};

/// A running pool. Dropping it stops it at once: handlers are aborted, and their requests go back to the queues.
#[derive(Debug)]
pub struct PoolHandle {
    phase: watch::Sender<Phase>,
    lanes: JoinSet<LaneEnd>,
    counters: Arc<Counters>,
    control: Option<ControlTask>,
    tellers: Vec<TellTask>,
}

/// What a shutdown left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Handlers still running at the limit, which were aborted; the broker redelivers their requests.
    pub aborted: usize,
    /// What the pool has done from its start to its end.
    pub stats: PoolStats,
}

impl PoolHandle {
    pub(super) fn new(phase: watch::Sender<Phase>, counters: Arc<Counters>) -> Self {
        Self { phase, lanes: JoinSet::new(), counters, control: None, tellers: Vec::new() }
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn spawn(&mut self, lane: impl Future<Output = LaneEnd> + Send + 'static) {
        self.lanes.spawn(lane);
    }

    pub(super) fn hear(&mut self, control: ControlTask) {
        self.control = Some(control);
    }

    pub(super) fn tell(&mut self, teller: TellTask) {
        self.tellers.push(teller);
    }

    /// What the pool has done so far.
    pub fn stats(&self) -> PoolStats {
        self.counters.stats()
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

    /// Serves until the process is told to stop, by ctrl-c or SIGTERM, then [shuts down](Self::shutdown) within
    /// `limit`. From the call on these signals no longer end the process by themselves.
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
    /// system refuses a signal handler.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pool at once, as dropping the pool does.
    ///
    /// # Panics
    /// Outside a tokio runtime whose I/O is enabled.
    pub fn run_until_signal(
        mut self,
        limit: Duration,
    ) -> impl Future<Output = Result<ShutdownReport, Error>> + Send + 'static {
        // Now, not when it is first polled: a signal must not find the process without a handler.
        let stop_signals = StopSignals::listen();
        async move {
            let mut stop_signals = stop_signals.map_err(|error| Error::Signals { reason: error.to_string() })?;
            tokio::select! {
                () = stop_signals.next() => {}
                error = self.lost() => return Err(error),
            }
            tracing::info!(?limit, "told to stop: draining");
            self.shutdown(limit).await
        }
    }

    /// Stops in order: takes no new requests, gives back those not begun, finishes the others and answers them,
    /// acknowledges, closes its channels. Handlers that run longer than `limit` are aborted, and their requests go
    /// back to the queues.
    ///
    /// # Errors
    /// [`Error::Disconnected`] when a channel was lost before the broker confirmed that it has seen every reply and
    /// ack; [`Error::TimedOut`] when it did not do so within a second after `limit`.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pool at once, as dropping the pool does.
    pub async fn shutdown(mut self, limit: Duration) -> Result<ShutdownReport, Error> {
        self.phase.send_replace(Phase::Draining);
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        let mut report = ShutdownReport::default();
        let mut lost = None;
        if timeout_at(deadline, self.join(&mut report, &mut lost)).await.is_err() {
            self.phase.send_replace(Phase::Aborting);
            if timeout_at(deadline + CLOSE_GRACE, self.join(&mut report, &mut lost)).await.is_err() {
                let limit = limit + CLOSE_GRACE;
                return Err(Error::TimedOut { operation: "shut the pool down".to_owned(), limit });
            }
        }
        match lost {
            Some(reason) => Err(Error::Disconnected { reason }),
            None => Ok(ShutdownReport { stats: self.counters.stats(), ..report }),
        }
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

/// What aborting and closing may take after the limit.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

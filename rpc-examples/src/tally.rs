//! The outcome of many calls: progress during the run (on stderr), tables at its end (on stdout).

use std::{
    fmt,
    process::ExitCode,
    time::{Duration, Instant},
};

use hdrhistogram::{CreationError, Histogram};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::{signal::ctrl_c, sync::mpsc};

use crate::Failure;

/// Counts correct answers and their latencies.
#[derive(Debug)]
pub struct Tally {
    total: u64,
    started_at: Instant,
    /// Hidden when stderr is not a terminal; then a line is printed every second.
    bar: ProgressBar,
    next_line_at: Instant,
    latencies_us: Histogram<u64>,
}

impl Tally {
    /// A run of `total` calls that starts now.
    ///
    /// # Errors
    /// Never: the histogram's bounds are constants.
    pub fn start(total: u64) -> Result<Self, CreationError> {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} calls  {rate}  {eta} left") {
            let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A progress bar that cannot be drawn is no reason to stop.
                _ = write!(out, "{:.0} calls/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate));
        }
        let started_at = Instant::now();
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?;
        Ok(Self { total, started_at, bar, next_line_at: started_at + LINE_EVERY, latencies_us })
    }

    /// Receives the latencies of correct answers until the last sender is dropped.
    ///
    /// At the first failure, or at ctrl-c, it asks the senders to stop and waits for the calls in flight; a
    /// second ctrl-c does not wait. The exit code is 0 when every call was answered, 130 after ctrl-c.
    ///
    /// # Errors
    /// The first failure; that of the operating system when it refuses a handler for ctrl-c.
    pub async fn gather(
        &mut self,
        mut outcomes: mpsc::Receiver<Result<Duration, Failure>>,
        stop: impl Fn(),
    ) -> Result<ExitCode, Failure> {
        let mut first_failure = None;
        let mut is_interrupted = false;
        loop {
            tokio::select! {
                outcome = outcomes.recv() => match outcome {
                    Some(Ok(latency)) => self.record(latency),
                    Some(Err(failure)) => {
                        first_failure.get_or_insert(failure);
                        stop();
                    }
                    None => break,
                },
                signal = ctrl_c() => {
                    signal?;
                    if is_interrupted {
                        break;
                    }
                    is_interrupted = true;
                    self.bar.suspend(|| eprintln!("stopping after the calls in flight; once more to leave them"));
                    stop();
                }
            }
        }
        match first_failure {
            Some(failure) => Err(failure),
            None if self.latencies_us.len() == self.total => Ok(ExitCode::SUCCESS),
            None => Ok(ExitCode::from(INTERRUPTED)),
        }
    }

    fn record(&mut self, latency: Duration) {
        self.latencies_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US));
        self.bar.inc(1);
        if self.bar.is_hidden() {
            let now = Instant::now();
            if now >= self.next_line_at {
                self.next_line_at = now + LINE_EVERY;
                eprintln!(
                    "{:>4} s  {}/{} calls",
                    (now - self.started_at).as_secs(),
                    self.latencies_us.len(),
                    self.total
                );
            }
        }
    }

    /// Prints rate and latencies, and how the calls were shared among workers.
    pub fn report(&self, calls_by_worker: &[u64]) {
        let elapsed_s = self.started_at.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        let right = self.latencies_us.len();
        println!("{right} of {} right in {elapsed_s:.2} s: {:.0} calls/s\n", self.total, right as f64 / elapsed_s);
        let quantile = |quantile| milliseconds(self.latencies_us.value_at_quantile(quantile));
        println!("latency ms {:>9} {:>9} {:>9} {:>9}", "p50", "p90", "p99", "max");
        println!(
            "{:<10} {:>9} {:>9} {:>9} {:>9}\n",
            "",
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            milliseconds(self.latencies_us.max())
        );
        // Another process may serve the same service on the same broker.
        let here: u64 = calls_by_worker.iter().sum();
        let elsewhere = right.saturating_sub(here);
        let share = |calls: u64| 100.0 * calls as f64 / (here + elsewhere).max(1) as f64;
        println!("{:<10} {:>9} {:>9}", "worker", "calls", "share");
        for (index, &calls) in calls_by_worker.iter().enumerate() {
            println!("{:<10} {calls:>9} {:>7.1} %", index + 1, share(calls));
        }
        if elsewhere > 0 {
            println!("{:<10} {elsewhere:>9} {:>7.1} %", "elsewhere", share(elsewhere));
        }
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.2}", Duration::from_micros(microseconds).as_secs_f64() * 1e3)
}

/// 128 + SIGINT, as in a shell.
const INTERRUPTED: u8 = 130;

const LINE_EVERY: Duration = Duration::from_secs(1);

/// An hour; longer ones count as that.
const LATENCY_MAX_US: u64 = 3_600_000_000;

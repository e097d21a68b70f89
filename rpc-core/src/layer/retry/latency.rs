//! How long the calls of each method take, and how many of them may be sent a second time meanwhile.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use crate::lock::lock;

/// By routing key: as many as the callers' services have methods.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<HashMap<&'static str, Latency>>);

/// Of one method.
#[derive(Debug, Default)]
struct Latency {
    /// In µs, the last [`SAMPLES_MAX`] ones.
    samples: Vec<u32>,
    /// The place of the next sample, once all have one.
    next: usize,
    /// The time that 95 % of the samples are not longer than; `None` with fewer than [`SAMPLES_MIN`].
    p95: Option<Duration>,
    /// Samples since it was computed.
    unsorted: usize,
    /// Twentieths of a call that may be sent a second time.
    twentieths: u32,
}

impl Latencies {
    /// Notes that a call begins; returns after how long it may be sent a second time.
    pub(super) fn begin(&self, routing_key: &'static str) -> Option<Duration> {
        let mut latencies = self.latencies();
        let latency = latencies.entry(routing_key).or_default();
        latency.twentieths = (latency.twentieths + 1).min(TWENTIETHS_MAX);
        latency.p95
    }

    /// Takes the right to send a call a second time; false when more than 5 % were.
    pub(super) fn take(&self, routing_key: &'static str) -> bool {
        let mut latencies = self.latencies();
        let Some(latency) = latencies.get_mut(routing_key) else { return false };
        let left = latency.twentieths.checked_sub(TWENTIETHS);
        latency.twentieths = left.unwrap_or(latency.twentieths);
        left.is_some()
    }

    /// The time that 95 % of the method's calls are not longer than, once 100 are known.
    pub(crate) fn p95(&self, routing_key: &'static str) -> Option<Duration> {
        self.latencies().get(routing_key).and_then(|latency| latency.p95)
    }

    /// Notes how long an answer took, or, of a request that another one was faster than, how long it had taken then.
    pub(crate) fn note(&self, routing_key: &'static str, took: Duration) {
        let mut latencies = self.latencies();
        latencies.entry(routing_key).or_default().note(took);
    }

    fn latencies(&self) -> MutexGuard<'_, HashMap<&'static str, Latency>> {
        lock(&self.0)
    }
}

impl Latency {
    fn note(&mut self, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(took_us);
        } else {
            self.samples[self.next] = took_us;
            self.next = (self.next + 1) % SAMPLES_MAX;
        }
        self.unsorted += 1;
        let is_due = self.p95.is_none() || self.unsorted >= RECOUNT_AFTER;
        if self.samples.len() >= SAMPLES_MIN && is_due {
            self.unsorted = 0;
            let mut samples = self.samples.clone();
            let at = (samples.len() * 95).div_ceil(100) - 1;
            let (_, p95, _) = samples.select_nth_unstable(at);
            self.p95 = Some(Duration::from_micros((*p95).into()));
        }
    }
}

/// Fewer say nothing about the slowest twentieth.
const SAMPLES_MIN: usize = 100;
/// 4 KiB a method.
const SAMPLES_MAX: usize = 1_000;
/// Samples between two looks for the slowest twentieth.
const RECOUNT_AFTER: usize = 50;
/// Of one call: 5 % are one in twenty.
const TWENTIETHS: u32 = 20;
/// At most ten calls at once, after a time without a slow one.
const TWENTIETHS_MAX: u32 = 10 * TWENTIETHS;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "stock.count";

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_slowest_twentieth_is_known_from_the_hundredth_sample_on() {
        let latencies = Latencies::default();
        for sample in 1..100 {
            latencies.note(KEY, ms(sample));
            assert_eq!(latencies.begin(KEY), None);
        }
        latencies.note(KEY, ms(100));
        assert_eq!(latencies.begin(KEY), Some(ms(95)));
        assert_eq!(latencies.begin("stock.other"), None);
        // Old ones are forgotten.
        for _ in 0..SAMPLES_MAX {
            latencies.note(KEY, ms(7));
        }
        assert_eq!(latencies.begin(KEY), Some(ms(7)));
        assert_eq!(latencies.latencies()[KEY].samples.len(), SAMPLES_MAX);
    }

    #[test]
    fn one_call_in_twenty_may_be_sent_a_second_time() {
        let latencies = Latencies::default();
        assert!(!latencies.take(KEY));
        let mut taken = 0;
        for call in 1..=200 {
            latencies.begin(KEY);
            taken += usize::from(latencies.take(KEY));
            assert_eq!(taken, call / 20);
        }
        for _ in 0..10_000 {
            latencies.begin(KEY);
        }
        assert_eq!((0..100).filter(|_| latencies.take(KEY)).count(), 10, "not all that were saved, at once");
    }
}

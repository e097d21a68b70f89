//! A histogram of times whose classes grow with the times: a sixteenth wide, however long a call takes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::LatencyStats;

/// Counts of times, in µs.
#[derive(Debug)]
pub(super) struct Histogram([AtomicU64; CLASSES]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    pub(super) fn note(&self, took: Duration) {
        self.0[class_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// `None` before the first time.
    pub(super) fn stats(&self) -> Option<LatencyStats> {
        let counts: Vec<_> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let quantile = |percent: u64| {
            // The first class below or in which that share of the calls lies.
            let rank = (total * percent).div_ceil(100);
            let mut seen = 0;
            let class = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            Some(Duration::from_micros(longest_of(class?)))
        };
        match total {
            0 => None,
            _ => Some(LatencyStats { p50: quantile(50)?, p99: quantile(99)? }),
        }
    }
}

/// The class of a time. Below [`STEPS`] µs each microsecond has one; then each doubling has [`STEPS`].
fn class_of(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let Some(doublings) = us.checked_ilog2().and_then(|log| log.checked_sub(STEPS.ilog2())) else {
        // Fewer than `STEPS`.
        return us as usize;
    };
    let step = (us >> doublings) as usize - STEPS;
    (STEPS * (doublings as usize + 1) + step).min(CLASSES - 1)
}

/// The longest time of a class, in µs.
fn longest_of(class: usize) -> u64 {
    match class / STEPS {
        0 => class as u64,
        row => (((STEPS + class % STEPS + 1) as u64) << (row - 1)) - 1,
    }
}

/// Classes in which the times between one and its double are told apart.
const STEPS: usize = 16;
/// Those below 2³³ µs, 2.4 h; the last one has the longer ones, too.
const CLASSES: usize = STEPS * 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_sixteenth_wide_and_follows_the_one_before() {
        for class in 1..CLASSES {
            let (shortest, longest) = (longest_of(class - 1) + 1, longest_of(class));
            assert_eq!(class_of(Duration::from_micros(shortest)), class);
            assert_eq!(class_of(Duration::from_micros(longest)), class);
            assert!(longest - shortest <= shortest / STEPS as u64, "{class}");
        }
        assert!(longest_of(CLASSES - 1) > 2 * 3_600_000_000);
        assert_eq!(class_of(Duration::MAX), CLASSES - 1);
        assert_eq!(class_of(Duration::ZERO), 0);
    }

    #[test]
    fn half_and_nearly_all_of_the_times_are_no_longer() {
        let histogram = Histogram::default();
        assert_eq!(histogram.stats(), None);
        histogram.note(Duration::from_millis(7));
        let one = histogram.stats().unwrap();
        assert_eq!(one.p50, one.p99);
        for ms in 1..=1_000 {
            histogram.note(Duration::from_millis(ms));
        }
        let LatencyStats { p50, p99 } = histogram.stats().unwrap();
        let is_near = |time: Duration, ms: u64| (ms..=ms + ms / 15).contains(&(time.as_millis() as u64));
        assert!(is_near(p50, 500) && is_near(p99, 990), "{p50:?}, {p99:?}");
    }
}

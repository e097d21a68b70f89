//! Which methods are so quick that a task for each call would cost more than the handler.
//!
//! Pure: the code that polls handlers reports their times. A handler is quick if it takes no longer than taking a few deliveries
//! does, so that fast and slow machines, debuggers and emulators lead to the same verdict.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How the last handlers of one method behaved.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Rises by one with each handler that ended at its first poll within `limit_ns`, and is halved by each other one.
    score: AtomicU32,
    limit_ns: AtomicU64,
}

// Lost updates only delay a verdict.
impl Pace {
    /// Whether the next handler is expected to end at once.
    pub(super) fn is_quick(&self) -> bool {
        self.score.load(Ordering::Relaxed) >= QUICK_SCORE
    }

    /// A pace at the given verdict.
    #[cfg(test)]
    pub(super) fn of(is_quick: bool) -> Self {
        let pace = Self::default();
        pace.score.store(if is_quick { QUICK_SCORE } else { 0 }, Ordering::Relaxed);
        pace
    }

    /// Notes how long it took to take a delivery, everything before the handler.
    pub(super) fn calibrate(&self, taken_in: Duration) {
        let ns = u64::try_from(taken_in.as_nanos()).unwrap_or(u64::MAX).saturating_mul(DELIVERIES);
        let known = self.limit_ns.load(Ordering::Relaxed);
        // The cost of the first deliveries says little, and one that was interrupted should not count for much.
        let mixed = if known == 0 { ns } else { known - known / 8 + ns / 8 };
        self.limit_ns.store(mixed.max(LIMIT_MIN_NS), Ordering::Relaxed);
    }

    /// Notes a handler's first poll.
    pub(super) fn note(&self, has_ended: bool, took: Duration) {
        let limit_ns = u128::from(self.limit_ns.load(Ordering::Relaxed));
        let score = self.score.load(Ordering::Relaxed);
        self.score.store(
            match took.as_nanos() {
                // A thread can be interrupted: one handler that took longer than the others says little.
                ns if has_ended && ns <= limit_ns => (score + 1).min(SCORE_MAX),
                ns if ns <= limit_ns * INTOLERABLE => score / 2,
                _ => 0,
            },
            Ordering::Relaxed,
        );
    }
}

/// A handler may take as long as this many deliveries take to take: microseconds.
const DELIVERIES: u64 = 16;
const LIMIT_MIN_NS: u64 = 5_000;
/// So many times the limit is no accident: about a millisecond.
const INTOLERABLE: u128 = 64;
/// With one slow handler in less than this many the score stays below.
const QUICK_SCORE: u32 = 32;
const SCORE_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn calibrated() -> (Pace, Duration) {
        let pace = Pace::default();
        pace.calibrate(Duration::from_micros(1));
        (pace, Duration::from_micros(DELIVERIES))
    }

    fn quick_ones(pace: &Pace, handlers: u32) {
        (0..handlers).for_each(|_| pace.note(true, Duration::from_micros(1)));
    }

    #[test]
    fn a_method_must_show_that_it_is_quick() {
        let (pace, limit) = calibrated();
        quick_ones(&pace, QUICK_SCORE - 1);
        assert!(!pace.is_quick());
        pace.note(true, limit);
        assert!(pace.is_quick());
    }

    #[test]
    fn an_interruption_is_forgiven_and_a_habit_is_not() {
        let (pace, limit) = calibrated();
        quick_ones(&pace, SCORE_MAX);
        pace.note(true, limit * 2);
        assert!(pace.is_quick());
        for _ in 0..3 {
            pace.note(true, limit * 2);
        }
        assert!(!pace.is_quick());
        for _ in 0..1_000 {
            quick_ones(&pace, 9);
            pace.note(false, Duration::ZERO);
        }
        assert!(!pace.is_quick(), "one in ten waits for something");
    }

    #[test]
    fn a_handler_that_computes_for_long_is_never_quick_again_at_once() {
        let (pace, limit) = calibrated();
        quick_ones(&pace, SCORE_MAX);
        pace.note(true, limit * 64 + Duration::from_nanos(1));
        assert!(!pace.is_quick());
        quick_ones(&pace, QUICK_SCORE - 1);
        assert!(!pace.is_quick());
    }

    #[test]
    fn the_limit_follows_the_machine_and_forgets_interruptions() {
        let pace = Pace::default();
        let limit = || Duration::from_nanos(pace.limit_ns.load(Ordering::Relaxed));
        pace.calibrate(Duration::ZERO);
        assert_eq!(limit(), Duration::from_nanos(LIMIT_MIN_NS));
        pace.calibrate(Duration::from_millis(10));
        for _ in 0..100 {
            pace.calibrate(Duration::from_micros(50));
        }
        let settled = Duration::from_micros(50 * DELIVERIES);
        assert!(limit() >= settled && limit() < settled * 2, "{:?}", limit());
    }
}

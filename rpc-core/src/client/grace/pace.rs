//! [`Pace`]: when the next look may be. Pure.

use std::time::{Duration, Instant};

/// The looks of one service: 20 ms apart at first, then a sixteenth of the time for which they have told nothing new, and at last a
/// second. So what happens is seen after a twentieth of the time that was waited for it, at little cost to the broker.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// When looks began to tell the same.
    since: Instant,
    /// The end of the last one.
    at: Instant,
}

impl Pace {
    /// Notes a look; `is_news` when it has told another thing than the one before.
    pub(super) fn note(&mut self, at: Instant, is_news: bool) {
        let since = self.last.filter(|last| !is_news && at < last.at + FORGOTTEN_AFTER).map_or(at, |last| last.since);
        self.last = Some(Last { since, at });
    }

    /// The earliest time of the next one.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| last.at + INTERVAL_MIN)
    }

    /// The time of the next one, if there is no haste.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| last.at + ((last.at - last.since) / 16).clamp(INTERVAL_MIN, INTERVAL_MAX))
    }

    /// Whether the last look was so long ago that nothing is known from it.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now >= last.at + FORGOTTEN_AFTER)
    }
}

/// Between two looks.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// More than between any two looks in a row.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_20_ms_apart_and_back_off_to_a_second() {
        let begin = Instant::now();
        let (mut pace, mut now, mut looks) = (Pace::default(), begin, 0);
        assert_eq!((pace.earliest(begin), pace.next(begin)), (begin, begin));
        let mut intervals = Vec::new();
        while now < begin + Duration::from_secs(60) {
            looks += 1;
            pace.note(now, false);
            assert_eq!(pace.earliest(now), now + INTERVAL_MIN);
            intervals.push(pace.next(now) - now);
            now = pace.next(now);
        }
        assert!(intervals.is_sorted() && intervals[..10].iter().all(|interval| *interval == INTERVAL_MIN));
        assert_eq!(intervals.last(), Some(&INTERVAL_MAX));
        assert!((110..140).contains(&looks), "{looks} in a minute");
        // News, and a pause, make them frequent again.
        pace.note(now, true);
        assert_eq!(pace.next(now), now + INTERVAL_MIN);
        pace.note(now + INTERVAL_MAX * 2, false);
        assert!(!pace.is_forgotten(now + INTERVAL_MAX * 4) && pace.is_forgotten(now + INTERVAL_MAX * 5));
        pace.note(now + INTERVAL_MAX * 5, false);
        assert_eq!(pace.next(now), now + INTERVAL_MAX * 5 + INTERVAL_MIN);
    }
}

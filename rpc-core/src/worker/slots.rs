//! Slots: how many handlers run at once, and whether it is worth a request's while to wait for one.
//!
//! A request that finds a slot free costs an atomic operation. For one that has to wait the time is estimated from
//! the pace of the requests before it: when its caller will not wait so long, it is refused at once rather than worked on in
//! vain.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// The slots of a pool.
#[derive(Debug)]
pub(super) struct Slots {
    semaphore: Semaphore,
    waiting: AtomicUsize,
    /// The time that each place in the line has taken lately, in ns: a mean in which the last one weighs an eighth.
    pace_ns: AtomicU64,
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// The caller would have given up by then.
    TooLate { estimate: Duration },
    /// The pool has stopped.
    Closed,
}

impl Slots {
    pub(super) fn new(handlers: usize) -> Self {
        Self {
            semaphore: Semaphore::new(handlers.min(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            pace_ns: AtomicU64::new(0),
        }
    }

    /// Takes a slot if one is free.
    pub(super) fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.semaphore.try_acquire().ok()
    }

    /// Waits for a slot, in order of arrival, unless it would take longer than `remaining`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(super) async fn wait(&self, remaining: Option<Duration>) -> Result<SemaphorePermit<'_>, NoSlot> {
        let place = Place::take(&self.waiting);
        // The first in the line always waits, so that a pace that was wrong is measured anew.
        if let Some(remaining) = remaining.filter(|_| place.ahead > 0) {
            let estimate = self.estimate(place.ahead);
            if estimate > remaining {
                return Err(NoSlot::TooLate { estimate });
            }
        }
        let begin = Instant::now();
        let slot = self.semaphore.acquire().await.map_err(|_| NoSlot::Closed)?;
        self.learn(begin.elapsed(), place.ahead);
        Ok(slot)
    }

    fn estimate(&self, ahead: usize) -> Duration {
        let places = u64::try_from(ahead + 1).unwrap_or(u64::MAX);
        Duration::from_nanos(self.pace_ns.load(Ordering::Relaxed).saturating_mul(places))
    }

    /// Takes a wait into the mean, which begins at zero: a few waits change it little.
    fn learn(&self, waited: Duration, ahead: usize) {
        let places = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
        let sample_ns = u64::try_from((waited / places).as_nanos()).unwrap_or(u64::MAX);
        let pace_ns = self.pace_ns.load(Ordering::Relaxed);
        // Two at once lose one of the samples, which does no harm.
        self.pace_ns.store(pace_ns - pace_ns / 8 + sample_ns / 8, Ordering::Relaxed);
    }
}

/// A place in the line.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        Self { waiting, ahead: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(80);

    fn paced() -> Slots {
        let slots = Slots::new(1);
        for _ in 0..100 {
            slots.learn(PACE * 4, 3);
        }
        slots
    }

    #[test]
    fn the_estimate_approaches_the_pace_and_a_few_waits_say_little() {
        let fresh = Slots::new(1);
        fresh.learn(PACE, 0);
        assert_eq!(fresh.estimate(0), PACE / 8);
        let estimate = paced().estimate(4);
        assert!(estimate > PACE * 9 / 2 && estimate <= PACE * 5, "{estimate:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_so_long_is_refused_but_never_the_first_in_the_line() {
        let slots = paced();
        let _running = slots.try_acquire().unwrap();
        assert!(slots.try_acquire().is_none());
        let first = slots.wait(Some(Duration::from_millis(1)));
        let mut first = std::pin::pin!(tokio::time::timeout(Duration::from_millis(10), first));
        let second = async {
            tokio::task::yield_now().await;
            let patient = tokio::time::timeout(Duration::from_millis(5), slots.wait(Some(PACE * 10)));
            assert!(patient.await.is_err(), "it waits");
            let refused = slots.wait(Some(PACE)).await;
            assert!(matches!(refused, Err(NoSlot::TooLate { .. })), "{refused:?}");
        };
        let (first, ()) = tokio::join!(&mut first, second);
        assert!(first.is_err(), "it waited");
        assert_eq!(slots.waiting.load(Ordering::Relaxed), 1, "the first, until it is dropped");
    }
}

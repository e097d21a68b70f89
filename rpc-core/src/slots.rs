//! Slots: how many handlers run at once, and whether it is worth a request's while to wait for one.
//!
//! Taking a free slot and giving it back are two atomic operations each. For a request that has to wait the time is estimated
//! from the pace of the requests before it: when its caller will not wait so long, it is refused at once rather than worked
//! on in vain.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The slots of a pool.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicUsize,
    handlers_max: usize,
    waiting: AtomicUsize,
    /// Wakes one that waits, for each slot given back.
    freed: Notify,
    /// The time that each place in the line has taken lately, in ns: a mean in which the last one weighs an eighth.
    pace_ns: AtomicU64,
}

/// The caller would have given up before a slot is free.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLate {
    pub(crate) estimate: Duration,
}

impl Slots {
    pub(crate) fn new(handlers_max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            handlers_max,
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            pace_ns: AtomicU64::new(0),
        }
    }

    /// Takes a slot if one is free and no one waits for it.
    pub(crate) fn try_acquire(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.take()
    }

    fn take(&self) -> bool {
        let more = |taken| (taken < self.handlers_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives a slot back.
    pub(crate) fn release(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        // Those that wait announce themselves before they look for a free slot, so one of both sees the other.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Waits for a slot, in order of arrival, unless it would take longer than `remaining`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(crate) async fn wait(&self, remaining: Option<Duration>) -> Result<(), TooLate> {
        let place = Place::take(&self.waiting);
        // The first in the line always waits, so that a pace that was wrong is measured anew.
        if let Some(remaining) = remaining.filter(|_| place.ahead > 0) {
            let estimate = self.estimate(place.ahead);
            if estimate > remaining {
                return Err(TooLate { estimate });
            }
        }
        let begin = Instant::now();
        self.acquire_at(&place).await;
        self.learn(begin.elapsed(), place.ahead);
        Ok(())
    }

    /// Waits for a slot, however long it takes.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(crate) async fn acquire(&self) {
        self.acquire_at(&Place::take(&self.waiting)).await;
    }

    async fn acquire_at(&self, _place: &Place<'_>) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // In the line before the look, so that two slots freed in between wake two.
            freed.as_mut().enable();
            if self.take() {
                return;
            }
            freed.await;
        }
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
        Self { waiting, ahead: waiting.fetch_add(1, Ordering::SeqCst) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        assert!(slots.try_acquire());
        assert!(!slots.try_acquire());
        let first = slots.wait(Some(Duration::from_millis(1)));
        let mut first = pin!(tokio::time::timeout(Duration::from_millis(10), first));
        let second = async {
            tokio::task::yield_now().await;
            let patient = tokio::time::timeout(Duration::from_millis(5), slots.wait(Some(PACE * 10)));
            assert!(patient.await.is_err(), "it waits");
            let refused = slots.wait(Some(PACE)).await;
            assert!(matches!(refused, Err(TooLate { .. })), "{refused:?}");
        };
        let (first, ()) = tokio::join!(&mut first, second);
        assert!(first.is_err(), "it waited");
        assert_eq!(slots.waiting.load(Ordering::Relaxed), 1, "the first, until it is dropped");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_slot_is_lost_or_given_twice_however_they_are_waited_for() {
        let (slots, running) = (Arc::new(Slots::new(3)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..64_u64)
            .map(|n| {
                let (slots, running) = (Arc::clone(&slots), Arc::clone(&running));
                tokio::spawn(async move {
                    for round in 0..50 {
                        // Some give up while they wait.
                        let waiting = tokio::time::timeout(Duration::from_micros((n * round) % 97), slots.acquire());
                        if !slots.try_acquire() && waiting.await.is_err() {
                            continue;
                        }
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                        tokio::task::yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        slots.release();
                    }
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("no wake-up is lost").unwrap();
        }
        assert_eq!(slots.taken.load(Ordering::SeqCst), 0);
    }
}

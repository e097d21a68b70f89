//! Pauses between attempts, and opening something again until it works.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use crate::error::Error;

/// Exponential backoff with full jitter: each pause is random, below a limit that doubles.
///
/// Full jitter keeps the clients of a restarted broker from reconnecting all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    limit: Duration,
    max: Duration,
}

impl Backoff {
    /// Limits below [`PAUSE_FLOOR`] count as that.
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        let max = max.max(PAUSE_FLOOR);
        Self { limit: initial.clamp(PAUSE_FLOOR, max), max }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        // 32 random bits of a v4 uuid: this crate has no other source of randomness.
        let random = Uuid::new_v4().as_u64_pair().1 as u32;
        let pause = self.limit.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.limit = (self.limit * 2).min(self.max);
        pause
    }
}

/// Opens something whose channel was lost, with a pause before each attempt, until an attempt succeeds.
///
/// # Errors
/// [`Error::Closed`] alone: the connection will not be reopened.
pub(crate) async fn open_again<T, F>(what: &str, open: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut backoff = Backoff::new(OPEN_DELAY_INITIAL, OPEN_DELAY_MAX);
    loop {
        sleep(backoff.pause()).await;
        match open().await {
            Err(error @ Error::Closed { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "could not open {what} again"),
            opened => return opened,
        }
    }
}

/// A limit of zero would never grow: attempts would follow each other without a pause, for ever.
const PAUSE_FLOOR: Duration = Duration::from_millis(10);
const OPEN_DELAY_INITIAL: Duration = Duration::from_millis(50);
const OPEN_DELAY_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_are_spread() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut backoff = Backoff::new(initial, max);
        let mut limits = Vec::new();
        for _ in 0..5 {
            limits.push(backoff.limit.as_millis());
            assert!(backoff.pause() <= max);
        }
        assert_eq!(limits, [100, 200, 400, 400, 400]);
        let mut pauses: Vec<_> = (0..16).map(|_| backoff.pause()).collect();
        pauses.dedup();
        assert!(pauses.len() > 8, "{pauses:?}");
    }

    #[test]
    fn pauses_grow_from_zero_too() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::from_secs(1));
        for limit_ms in [10, 20, 40] {
            assert_eq!(backoff.limit.as_millis(), limit_ms);
            backoff.pause();
        }
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).limit, PAUSE_FLOOR);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_closed_connection_ends_the_attempts() {
        let attempts = Cell::new(0);
        let attempt = || {
            attempts.set(attempts.get() + 1);
            let is_lost = attempts.get() < 5;
            ready(if is_lost { Err(Error::Disconnected { reason: String::new() }) } else { Ok(attempts.get()) })
        };
        assert_eq!(open_again("it", attempt).await.unwrap(), 5);
        let closed = open_again("it", || ready(Err::<(), _>(Error::Closed { reason: String::new() })));
        assert!(matches!(closed.await, Err(Error::Closed { .. })));
    }
}

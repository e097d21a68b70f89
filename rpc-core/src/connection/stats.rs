//! [`ConnectionStats`]: how often a connection was lost, and how long it was blocked.

use std::time::Duration;

use tokio::time::Instant;

/// Counts of a connection since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// How often it was lost and opened again.
    pub reconnects: u64,
    /// How long the broker has blocked it in all (`connection.blocked`), until now if it is blocked.
    pub blocked: Duration,
}

/// A time that is measured in pieces.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    /// Of the pieces that have ended.
    total: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    /// Runs from now on, or stands; returns the length of the piece that ends with that.
    pub(super) fn run(&mut self, is_running: bool) -> Option<Duration> {
        match (is_running, self.since) {
            (true, None) => {
                self.since = Some(Instant::now());
                None
            }
            (false, Some(since)) => {
                let piece = since.elapsed();
                *self = Self { total: self.total + piece, since: None };
                Some(piece)
            }
            _ => None,
        }
    }

    pub(super) fn total(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopwatch_counts_while_it_runs() {
        let second = Duration::from_secs(1);
        let mut watch = Stopwatch::default();
        assert_eq!(watch.run(false), None);
        for round in 1..=3 {
            assert_eq!(watch.run(true), None);
            tokio::time::advance(second).await;
            assert_eq!((watch.run(true), watch.total()), (None, second * round), "it goes on");
            assert_eq!(watch.run(false), Some(second));
            tokio::time::advance(second).await;
            assert_eq!(watch.total(), second * round);
        }
    }
}

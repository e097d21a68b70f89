//! Which queues a channel reaches, and how often a channel that does not reach one is replaced.
//!
//! RabbitMQ asks for the servers of a quorum queue at a channel's first publish to it. If the queue's record names a node that has
//! gone, the channel keeps to that until the node is back: each of its messages is nacked, and dropped without a sign where nothing
//! is confirmed. A channel that has once got through follows the queue to every later leader.
//!
//! ```text
//!  first requests of a method ──confirmed──┬── ack ───► the later ones go unconfirmed
//!                                           └── nack ──► another channel, at most one a second; they are sent again
//! ```

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use super::seen::Seen;
use crate::lock::lock;

/// How the channels to one exchange stand to the queues behind it.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Methods of which the broker has taken a request: a method may have a queue of its own.
    pub(super) methods: Seen,
    pub(super) replacements: Replacements,
}

/// The meaning of a `basic.nack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nack {
    /// The channel reaches the queue, which is full.
    Full,
    /// The channel has not reached the queue, and is being replaced.
    Replaced,
    /// The channel has not reached the queue, and is too young to be replaced.
    Young,
}

/// When a channel was last replaced.
#[derive(Debug, Default)]
pub(super) struct Replacements(Mutex<Option<Instant>>);

impl Replacements {
    /// The meaning of a nack on a channel that has not reached the queue before. The caller leaves a channel that is replaced.
    pub(super) fn nack(&self) -> Nack {
        let (now, mut last) = (Instant::now(), lock(&self.0));
        if last.is_some_and(|last| now < last + REPLACEMENT_MIN) {
            return Nack::Young;
        }
        *last = Some(now);
        Nack::Replaced
    }
}

/// Between two replacements: a queue that is full nacks, too.
const REPLACEMENT_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_replaced_at_most_once_a_second() {
        let replacements = Replacements::default();
        assert_eq!([replacements.nack(), replacements.nack()], [Nack::Replaced, Nack::Young]);
        advance(REPLACEMENT_MIN - Duration::from_millis(1)).await;
        assert_eq!(replacements.nack(), Nack::Young);
        advance(Duration::from_millis(1)).await;
        assert_eq!([replacements.nack(), replacements.nack()], [Nack::Replaced, Nack::Young]);
    }
}

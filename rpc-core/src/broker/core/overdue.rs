//! RabbitMQ's `consumer_timeout`: a channel that keeps a delivery for too long is closed. Pure.
//!
//! No delivery has a time of its own. Now and then each channel notes the last tag it has given out
//! ([`Unacked::is_overdue`](super::unacked::Unacked::is_overdue)): what has that tag or a lower one is at least as old as
//! the note. So a look costs each channel a few comparisons, and a delivery nothing at all.

use std::time::{Duration, Instant};

use super::{ConnectionId, Core, Fault, Now, session::Stage};

/// One look at all channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) now: Instant,
    /// What was out then is out now. It is earlier than `now` when the clock jumped, as a paused one does: nothing has
    /// happened since the look that should have been.
    pub(super) out_since: Instant,
    /// How long a delivery may wait for its acknowledgement.
    pub(super) limit: Duration,
}

impl Core {
    /// Closes channels over what they have not acknowledged in time, when it is time to look. Says when that is next.
    pub(super) fn close_overdue(&mut self, now: Now) -> Option<Instant> {
        let limit = self.rules.limits.consumer_timeout?;
        let pause = (limit / LOOKS_PER_LIMIT).max(LOOK_PAUSE_MIN);
        let due = self.next_look.unwrap_or(now.instant);
        if due > now.instant {
            return Some(due);
        }
        self.next_look = now.instant.checked_add(pause);
        let has_jumped = now.instant.duration_since(due) > pause;
        let look = Look { now: now.instant, out_since: if has_jumped { due } else { now.instant }, limit };
        for (id, number) in self.overdue(look) {
            tracing::warn!(connection = id.0, channel = number, ?limit, "a delivery was not acknowledged in time");
            self.fail(id, number, &Fault::overdue(number, limit), now);
        }
        self.next_look
    }

    fn overdue(&mut self, look: Look) -> Vec<(ConnectionId, u16)> {
        let open = self.sessions.all_mut().filter(|(_, session)| session.stage == Stage::Open);
        let channels = open.flat_map(|(id, session)| {
            session
                .channels
                .iter_mut()
                .filter_map(move |(number, channel)| channel.is_overdue(look).then_some(number))
                .map(move |number| (id, number))
        });
        channels.collect()
    }
}

/// A delivery is noticed as late by two of them: by a minute after the default of half an hour, as in RabbitMQ.
const LOOKS_PER_LIMIT: u32 = 60;
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(1);

//! RabbitMQ's `consumer_timeout`: a channel whose delivery stays unacknowledged for too long is closed. Pure.
//!
//! Deliveries carry no time stamp. Instead a scan, now and then, notes the last tag that each channel has given out
//! ([`Unacked::is_overdue`](super::super::session::unacked::Unacked::is_overdue)): a delivery with that tag or a lower one
//! is at least as old as the note. So a scan costs each channel a few comparisons, and a delivery costs nothing.

use std::time::{Duration, Instant};

use crate::broker::core::{
    interface::{ConnectionId, Now},
    session::{Stage, sessions::Sessions, unacked::Scan},
};

/// The schedule of the scans.
#[derive(Debug, Default)]
pub(crate) struct OverdueScans {
    next: Option<Instant>,
}

impl OverdueScans {
    /// Finds the channels that keep a delivery for `limit`, if a scan is due.
    pub(crate) fn run(&mut self, limit: Duration, sessions: &mut Sessions, now: Now) -> Vec<(ConnectionId, u16)> {
        let pause = (limit / SCANS_PER_LIMIT).max(SCAN_PAUSE_MIN);
        let due = self.next.unwrap_or(now.instant);
        if due > now.instant {
            return Vec::new();
        }
        self.next = now.instant.checked_add(pause);
        let has_jumped = now.instant.duration_since(due) > pause;
        overdue(Scan { now: now.instant, unchanged_since: if has_jumped { due } else { now.instant }, limit }, sessions)
    }

    /// The time of the next scan; `None` before the first one, and if the limit is beyond all time.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }
}

fn overdue(scan: Scan, sessions: &mut Sessions) -> Vec<(ConnectionId, u16)> {
    let open = sessions.all_mut().filter(|(_, session)| session.stage == Stage::Open);
    let channels = open.flat_map(|(id, session)| {
        session
            .channels
            .iter_mut()
            .filter_map(move |(number, channel)| channel.is_overdue(scan).then_some(number))
            .map(move |number| (id, number))
    });
    channels.collect()
}

/// A delivery is found overdue at most two scans late: a minute after the default of half an hour, as in RabbitMQ.
const SCANS_PER_LIMIT: u32 = 60;
const SCAN_PAUSE_MIN: Duration = Duration::from_secs(1);

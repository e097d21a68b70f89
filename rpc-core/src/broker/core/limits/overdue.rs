//! RabbitMQ 3.10's `consumer_timeout`: a channel whose delivery stays unacknowledged for too long is closed. Pure.
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
    /// The scan that is under way, and the channel with which it goes on.
    current: Option<(Scan, ConnectionId, u16)>,
}

impl OverdueScans {
    /// Finds channels that keep a delivery for `limit`, if a scan is due. Others get the lock before it goes on.
    pub(crate) fn run(&mut self, limit: Duration, sessions: &mut Sessions, now: Now) -> Vec<(ConnectionId, u16)> {
        let Some((scan, id, number)) = self.current.take().or_else(|| self.begin(limit, now)) else {
            return Vec::new();
        };
        let (mut looks, mut found) = (0, Vec::new());
        let open = sessions.all_mut().filter(|(at, session)| *at >= id && session.stage == Stage::Open);
        let channels = open
            .flat_map(|(at, session)| session.channels.iter_mut().map(move |(number, channel)| (at, number, channel)));
        for (at, number, channel) in channels.filter(|(at, other, _)| (*at, *other) >= (id, number)) {
            if looks >= LOOKS_MAX || found.len() >= FOUND_MAX {
                self.current = Some((scan, at, number));
                break;
            }
            looks += 1;
            if channel.is_overdue(scan) {
                found.push((at, number));
            }
        }
        found
    }

    fn begin(&mut self, limit: Duration, now: Now) -> Option<(Scan, ConnectionId, u16)> {
        let pause = (limit / SCANS_PER_LIMIT).max(SCAN_PAUSE_MIN);
        let due = self.next.unwrap_or(now.instant);
        if due > now.instant {
            return None;
        }
        self.next = now.instant.checked_add(pause);
        let has_jumped = now.instant.duration_since(due) > pause;
        let unchanged_since = if has_jumped { due } else { now.instant };
        Some((Scan { now: now.instant, unchanged_since, limit }, ConnectionId(0), 0))
    }

    /// When to go on, or the time of the next scan; `None` before the first one, and if the limit is beyond all time.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.current.map(|(scan, ..)| scan.now).or(self.next)
    }
}

/// A delivery is found overdue at most two scans late: a minute after the default of half an hour, as in RabbitMQ.
const SCANS_PER_LIMIT: u32 = 60;
const SCAN_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Channels that are looked at, and closed, before others get the lock.
const LOOKS_MAX: usize = 8_192;
const FOUND_MAX: usize = 512;

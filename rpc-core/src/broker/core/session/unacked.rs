//! Unacknowledged deliveries of a channel. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{broker::core::vhost::message::Entry, routing::QueueId};

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) queue: QueueId,
    pub(crate) entry: Entry,
    /// The consumer's slot; `None` for `basic.get`.
    pub(crate) slot: Option<usize>,
    /// Its tag, once it has one.
    pub(crate) delivery_tag: u64,
}

/// Unacknowledged deliveries in the order of their tags. A settled delivery leaves a hole. Holes are removed from the
/// front at once, and elsewhere when they are half of all.
#[derive(Debug, Default)]
pub(crate) struct Unacked {
    /// The last tag given out.
    pub(crate) last_tag: u64,
    pub(crate) deliveries: VecDeque<(u64, Option<Delivered>)>,
    pub(crate) holes: usize,
    /// For each scan with a delivery still unacknowledged: the last tag given out by then. There are few, because scans
    /// are rare and the first one is younger than the limit.
    seen: VecDeque<(u64, Instant)>,
}

impl Unacked {
    pub(crate) fn push(&mut self, delivered: Option<Delivered>) -> u64 {
        self.last_tag += 1;
        if let Some(delivered) = delivered {
            self.deliveries.push_back((self.last_tag, Some(Delivered { delivery_tag: self.last_tag, ..delivered })));
        }
        self.last_tag
    }

    pub(crate) fn take(&mut self, tag: u64) -> Option<Delivered> {
        let at = self.position(tag)?;
        let delivered = match at {
            0 => self.deliveries.pop_front()?.1?,
            at => {
                let delivered = self.deliveries.get_mut(at)?.1.take()?;
                self.holes += 1;
                delivered
            }
        };
        if self.holes > 0 {
            self.trim();
        }
        Some(delivered)
    }

    /// Takes out all deliveries up to a tag, or all for tag 0. `None` for a tag that was not given out, or is settled.
    pub(crate) fn take_through(&mut self, tag: u64) -> Option<Taken> {
        let count = if tag == 0 {
            self.deliveries.len()
        } else {
            let at = self.position(tag)?;
            self.deliveries.get(at)?.1.as_ref()?;
            at + 1
        };
        if count == self.deliveries.len() {
            return Some(self.take_all());
        }
        let mut taken: VecDeque<_> = self.deliveries.drain(..count).collect();
        if self.holes > 0 {
            taken.retain(|(_, delivered)| delivered.is_some());
            self.holes -= count - taken.len();
            self.trim();
        }
        Some(Taken(taken))
    }

    /// Takes out all deliveries without moving them: there may be a million.
    pub(crate) fn take_all(&mut self) -> Taken {
        self.holes = 0;
        Taken(std::mem::take(&mut self.deliveries))
    }

    /// Puts a delivery back under its tag.
    pub(crate) fn restore(&mut self, delivered: Delivered) {
        let tag = delivered.delivery_tag;
        match self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                self.deliveries[at].1 = Some(delivered);
                self.holes -= 1;
            }
            Err(at) => self.deliveries.insert(at, (tag, Some(delivered))),
        }
    }

    /// Whether the oldest delivery has been unacknowledged for the limit.
    pub(crate) fn is_overdue(&mut self, scan: Scan) -> bool {
        // `trim` keeps no hole at the front.
        let Some(&(oldest, _)) = self.deliveries.front() else {
            self.seen = VecDeque::new();
            return false;
        };
        while self.seen.front().is_some_and(|(tag, _)| *tag < oldest) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|(tag, _)| *tag < self.last_tag) {
            self.seen.push_back((self.last_tag, scan.unchanged_since));
        }
        self.seen.front().is_some_and(|(_, since)| scan.now.saturating_duration_since(*since) >= scan.limit)
    }

    fn position(&self, tag: u64) -> Option<usize> {
        // Nearly all acknowledgements arrive in order.
        if self.deliveries.front()?.0 == tag {
            return Some(0);
        }
        self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    fn trim(&mut self) {
        while let Some((_, None)) = self.deliveries.front() {
            self.deliveries.pop_front();
            self.holes -= 1;
        }
        if self.holes > HOLES_MIN && self.holes > self.deliveries.len() / 2 {
            self.deliveries.retain(|(_, delivered)| delivered.is_some());
            self.holes = 0;
        }
    }
}

/// One scan of all channels for overdue deliveries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    pub(crate) now: Instant,
    /// Deliveries outstanding at this time are still outstanding. Earlier than `now` if the clock jumped (a paused test
    /// clock): nothing can have changed since the scan that was due then.
    pub(crate) unchanged_since: Instant,
    /// How long a delivery may wait for its acknowledgement.
    pub(crate) limit: Duration,
}

/// Deliveries that were taken out, in the order of their tags.
#[derive(Debug)]
pub(crate) struct Taken(VecDeque<(u64, Option<Delivered>)>);

impl Taken {
    /// The queue of each delivery.
    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.0.iter().filter_map(|(_, delivered)| Some(delivered.as_ref()?.queue))
    }

    pub(crate) fn into_deliveries(self) -> impl Iterator<Item = Delivered> {
        self.0.into_iter().filter_map(|(_, delivered)| delivered)
    }
}

/// Up to this many holes are left in place, because removing them moves all later deliveries.
pub(crate) const HOLES_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::core::session::channel::tests::delivered;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Scans so many seconds after the start.
    fn scan(unacked: &mut Unacked, start: Instant, at_s: u64) -> bool {
        let now = start + Duration::from_secs(at_s);
        unacked.is_overdue(Scan { now, unchanged_since: now, limit: LIMIT })
    }

    #[test]
    fn the_oldest_delivery_is_overdue_when_a_scan_saw_it_a_limit_ago() {
        let (mut unacked, start) = (Unacked::default(), Instant::now());
        unacked.push(Some(delivered(None)));
        assert!(!scan(&mut unacked, start, 0));
        unacked.push(Some(delivered(None)));
        assert!(!scan(&mut unacked, start, 30) && !scan(&mut unacked, start, 59));
        unacked.take(1);
        assert!(!scan(&mut unacked, start, 60), "the second is not: it was first seen at 30");
        unacked.push(Some(delivered(None)));
        assert!(!scan(&mut unacked, start, 89) && scan(&mut unacked, start, 90) && scan(&mut unacked, start, 91));
        unacked.take(2);
        assert!(!scan(&mut unacked, start, 120), "the third was first seen at 89");
        assert!(scan(&mut unacked, start, 149));
    }
}

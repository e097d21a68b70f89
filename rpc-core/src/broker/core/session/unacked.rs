//! Unacknowledged deliveries of a channel. Pure.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use crate::{broker::core::vhost::message::Entry, routing::QueueId};

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) queue: QueueId,
    /// `None` once its message was taken back, because its consumer has kept it for too long. The client does not know, and
    /// may still settle it, which lets the consumer go on.
    pub(crate) entry: Option<Entry>,
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
    /// Whether all holes are kept, because a transaction may undo the settlements that made them.
    keeps_holes: bool,
    /// When messages are taken back, and the tags of their deliveries. Settled ones remain until they are due, or most of all.
    dues: BinaryHeap<Reverse<(Instant, u64)>>,
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
            0 if !self.keeps_holes => self.deliveries.pop_front()?.1?,
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

    /// The last of the deliveries that a `multiple` acknowledgement covers: for tag 0 the last of all. `None` for a tag that
    /// was not given out, or is settled.
    pub(crate) fn last_through(&self, tag: u64) -> Option<u64> {
        if tag == 0 {
            return Some(self.last_tag);
        }
        self.deliveries.get(self.position(tag)?)?.1.as_ref()?;
        Some(tag)
    }

    /// Takes out the deliveries from one tag to another, at most `max`. Returns the tag to go on with, if these are not
    /// all.
    pub(crate) fn take_some(&mut self, from: u64, through: u64, max: usize) -> (Taken, Option<u64>) {
        let end = self.deliveries.partition_point(|(tag, _)| *tag <= through);
        if self.keeps_holes {
            return self.take_into_holes(from, end, max);
        }
        let count = end.min(max);
        if count == self.deliveries.len() {
            return (self.take_all(), None);
        }
        let mut taken: VecDeque<_> = self.deliveries.drain(..count).collect();
        if self.holes > 0 {
            taken.retain(|(_, delivered)| delivered.is_some());
            self.holes -= count - taken.len();
            self.trim();
        }
        (Taken(taken), (count < end).then_some(from))
    }

    fn take_into_holes(&mut self, from: u64, end: usize, max: usize) -> (Taken, Option<u64>) {
        let first = self.deliveries.partition_point(|(tag, _)| *tag < from).min(end);
        let pause = first.saturating_add(max).min(end);
        let holes = self.deliveries.range_mut(first..pause).filter(|(_, delivered)| delivered.is_some());
        let taken: VecDeque<_> = holes.map(|(tag, delivered)| (*tag, delivered.take())).collect();
        self.holes += taken.len();
        (Taken(taken), (pause < end).then(|| self.deliveries[pause].0))
    }

    /// Keeps holes from now on, because a transaction may undo the settlements that make them.
    pub(crate) fn keep_holes(&mut self) {
        self.keeps_holes = true;
    }

    /// Drops the holes, which no transaction needs any more.
    pub(crate) fn drop_holes(&mut self) {
        self.keeps_holes = false;
        self.trim();
    }

    /// Takes out all deliveries without moving them: there may be a million.
    pub(crate) fn take_all(&mut self) -> Taken {
        self.holes = 0;
        self.keeps_holes = false;
        Taken(std::mem::take(&mut self.deliveries))
    }

    /// Puts a delivery back into its hole.
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
        // Only a transaction keeps holes at the front.
        let Some(&(oldest, _)) = self.deliveries.iter().find(|(_, delivered)| delivered.is_some()) else {
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

    /// Has the message of a delivery taken back at that time.
    pub(crate) fn set_due(&mut self, due: Instant, tag: u64) {
        if self.dues.len() > HOLES_MIN + 2 * self.deliveries.len() {
            let mut dues = std::mem::take(&mut self.dues);
            dues.retain(|Reverse((_, tag))| self.may_be_due(*tag));
            self.dues = dues;
        }
        self.dues.push(Reverse((due, tag)));
    }

    fn may_be_due(&self, tag: u64) -> bool {
        let delivered = self.position(tag).and_then(|at| self.deliveries.get(at));
        // A transaction may hold the delivery of a hole.
        delivered.is_some_and(|(_, delivered)| {
            delivered.as_ref().map_or(self.keeps_holes, |delivered| delivered.entry.is_some())
        })
    }

    /// When the next message is taken back.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.dues.peek().map(|Reverse((due, _))| *due)
    }

    /// The tag of the next delivery that is due. It may be settled.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u64> {
        self.dues.peek().filter(|Reverse((due, _))| *due <= now)?;
        self.dues.pop().map(|Reverse((_, tag))| tag)
    }

    /// A delivery that is not settled.
    pub(crate) fn get_mut(&mut self, tag: u64) -> Option<&mut Delivered> {
        let at = self.position(tag)?;
        self.deliveries.get_mut(at)?.1.as_mut()
    }

    fn position(&self, tag: u64) -> Option<usize> {
        // Nearly all acknowledgements arrive in order.
        if self.deliveries.front()?.0 == tag {
            return Some(0);
        }
        self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    fn trim(&mut self) {
        if self.keeps_holes {
            return;
        }
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

    /// Takes out the next delivery.
    pub(crate) fn next(&mut self) -> Option<Delivered> {
        while let Some((_, delivered)) = self.0.pop_front() {
            if delivered.is_some() {
                return delivered;
            }
        }
        None
    }
}

/// Up to this many holes are left in place, because removing them moves all later deliveries.
pub(crate) const HOLES_MIN: usize = 64;

#[cfg(any(test, fuzzing))]
impl Unacked {
    pub(crate) fn dues_count(&self) -> usize {
        self.dues.len()
    }

    /// Panics unless tags and holes are right.
    pub(crate) fn check(&self) {
        let Self { last_tag, deliveries, holes, .. } = self;
        let is_trimmed = deliveries.front().is_none_or(|(_, delivered)| delivered.is_some());
        assert!(is_trimmed || self.keeps_holes, "a hole at the front");
        assert!(deliveries.iter().map(|(tag, _)| *tag).is_sorted_by(|a, b| a < b), "tags out of order");
        assert!(deliveries.back().is_none_or(|(tag, _)| tag <= last_tag), "a tag that was not given out");
        assert_eq!(*holes, deliveries.iter().filter(|(_, delivered)| delivered.is_none()).count(), "holes");
    }
}

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

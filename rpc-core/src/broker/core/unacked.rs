//! What a channel was sent and has not settled.

use std::{collections::VecDeque, time::Instant};

use super::{channel::Delivered, overdue::Look, vhost::QueueKey};

/// Unacknowledged deliveries in the order of their tags. What is settled leaves a hole; holes go when they are at the
/// front, or half of all.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// The last tag given out.
    pub(super) last_tag: u64,
    pub(super) deliveries: VecDeque<(u64, Option<Delivered>)>,
    pub(super) holes: usize,
    /// The last tag there was when somebody looked, for as long as one up to it is out. Few: the first is younger than
    /// the limit.
    seen: VecDeque<(u64, Instant)>,
}

impl Unacked {
    pub(super) fn push(&mut self, delivered: Option<Delivered>) -> u64 {
        self.last_tag += 1;
        if let Some(delivered) = delivered {
            self.deliveries.push_back((self.last_tag, Some(Delivered { delivery_tag: self.last_tag, ..delivered })));
        }
        self.last_tag
    }

    pub(super) fn take(&mut self, tag: u64) -> Option<Delivered> {
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

    /// Tag 0 is all; a tag above the last one delivered, or one that is settled, is an error.
    pub(super) fn take_through(&mut self, tag: u64) -> Option<Taken> {
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

    /// All of them as they lie there: a million are not moved.
    pub(super) fn take_all(&mut self) -> Taken {
        self.holes = 0;
        Taken(std::mem::take(&mut self.deliveries))
    }

    /// Puts a delivery back under its tag.
    pub(super) fn restore(&mut self, delivered: Delivered) {
        let tag = delivered.delivery_tag;
        match self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                self.deliveries[at].1 = Some(delivered);
                self.holes -= 1;
            }
            Err(at) => self.deliveries.insert(at, (tag, Some(delivered))),
        }
    }

    /// Whether the oldest delivery was out already so long ago.
    pub(super) fn is_overdue(&mut self, look: Look) -> bool {
        // Holes at the front are gone.
        let Some(&(oldest, _)) = self.deliveries.front() else {
            self.seen = VecDeque::new();
            return false;
        };
        while self.seen.front().is_some_and(|(tag, _)| *tag < oldest) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|(tag, _)| *tag < self.last_tag) {
            self.seen.push_back((self.last_tag, look.out_since));
        }
        self.seen.front().is_some_and(|(_, since)| look.now.saturating_duration_since(*since) >= look.limit)
    }

    fn position(&self, tag: u64) -> Option<usize> {
        // Nearly all acknowledgements come in order.
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

/// Deliveries that were taken out, in the order of their tags.
#[derive(Debug)]
pub(super) struct Taken(VecDeque<(u64, Option<Delivered>)>);

impl Taken {
    /// The queue of each.
    pub(super) fn queues(&self) -> impl Iterator<Item = QueueKey> {
        self.0.iter().filter_map(|(_, delivered)| Some(delivered.as_ref()?.queue))
    }

    pub(super) fn into_deliveries(self) -> impl Iterator<Item = Delivered> {
        self.0.into_iter().filter_map(|(_, delivered)| delivered)
    }
}

/// Fewer holes are not worth moving the rest for.
pub(super) const HOLES_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::core::channel::tests::delivered;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Looks so many seconds after the start.
    fn look(unacked: &mut Unacked, start: Instant, at_s: u64) -> bool {
        let now = start + Duration::from_secs(at_s);
        unacked.is_overdue(Look { now, out_since: now, limit: LIMIT })
    }

    #[test]
    fn the_oldest_delivery_is_overdue_when_it_was_out_a_limit_ago() {
        let (mut unacked, start) = (Unacked::default(), Instant::now());
        unacked.push(Some(delivered(None)));
        assert!(!look(&mut unacked, start, 0));
        unacked.push(Some(delivered(None)));
        assert!(!look(&mut unacked, start, 30) && !look(&mut unacked, start, 59));
        unacked.take(1);
        assert!(!look(&mut unacked, start, 60), "the second is not: it was first seen at 30");
        unacked.push(Some(delivered(None)));
        assert!(!look(&mut unacked, start, 89) && look(&mut unacked, start, 90) && look(&mut unacked, start, 91));
        unacked.take(2);
        assert!(!look(&mut unacked, start, 120), "the third was first seen at 89");
        assert!(look(&mut unacked, start, 149));
    }
}

//! What a channel was sent and has not settled.

use std::collections::VecDeque;

use super::channel::Delivered;

/// Unacknowledged deliveries in the order of their tags. What is settled leaves a hole; holes go when they are at the
/// front, or half of all.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// The last tag given out.
    pub(super) last_tag: u64,
    pub(super) deliveries: VecDeque<(u64, Option<Delivered>)>,
    pub(super) holes: usize,
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
    pub(super) fn take_through(&mut self, tag: u64) -> Option<Vec<Delivered>> {
        let count = if tag == 0 {
            self.deliveries.len()
        } else {
            let at = self.position(tag)?;
            self.deliveries.get(at)?.1.as_ref()?;
            at + 1
        };
        let taken: Vec<_> = self.deliveries.drain(..count).filter_map(|(_, delivered)| delivered).collect();
        self.holes -= count - taken.len();
        self.trim();
        Some(taken)
    }

    pub(super) fn take_all(&mut self) -> Vec<Delivered> {
        self.holes = 0;
        self.deliveries.drain(..).filter_map(|(_, delivered)| delivered).collect()
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

/// Fewer holes are not worth moving the rest for.
pub(super) const HOLES_MIN: usize = 64;

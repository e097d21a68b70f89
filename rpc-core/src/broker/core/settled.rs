//! Deliveries that leave their channel, as their queues see it: they are done with, or come back.

use super::{
    Now,
    channel::Delivered,
    dead_letter::Death,
    message::Entry,
    queue::Comeback,
    queue_arguments::Overflow,
    vhost::{Map, QueueKey, Vhost},
};

impl Vhost {
    /// Takes settled deliveries out of their queues' counts, and lets `settle` see each. Returns the queues.
    pub(super) fn settle_all(
        &mut self,
        delivered: impl Iterator<Item = Delivered>,
        mut settle: impl FnMut(&mut Self, QueueKey, Entry),
    ) -> Vec<QueueKey> {
        let mut keys = Vec::new();
        for Delivered { queue: key, entry, .. } in delivered {
            if keys.last() != Some(&key) {
                keys.push(key);
            }
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.unacked = queue.unacked.saturating_sub(1);
            }
            settle(self, key, entry);
        }
        keys
    }

    /// Gives deliveries back to their queues. Returns the queues.
    pub(super) fn requeue_all(
        &mut self,
        delivered: impl Iterator<Item = Delivered>,
        comeback: Comeback,
        now: Now,
    ) -> Vec<QueueKey> {
        let by_queue = by_queue(delivered);
        let keys = by_queue.iter().map(|(key, _)| *key).collect();
        for (key, entries) in by_queue {
            self.requeue(key, entries, comeback, now);
        }
        keys
    }

    fn requeue(&mut self, key: QueueKey, mut entries: Vec<Entry>, comeback: Comeback, now: Now) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if queue.stream.is_some() {
            queue.unacked = queue.unacked.saturating_sub(entries.len());
            return;
        }
        if let Some(limit) = queue.arguments.delivery_limit {
            let before = entries.len();
            let is_spent = |entry: &mut Entry| i64::from(entry.delivery_count) >= limit;
            let spent: Vec<_> = entries.extract_if(.., is_spent).collect();
            queue.unacked = queue.unacked.saturating_sub(before - entries.len());
            for entry in spent {
                self.bury(key, &entry, Death::DeliveryLimit, now);
            }
        }
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.requeue(entries, comeback);
        if queue.arguments.overflow == Overflow::DropHead {
            self.drop_over_full(key, now);
        }
        self.set_timer(key);
    }
}

/// Deliveries by their queues, which are in the order that they come in first.
fn by_queue(delivered: impl Iterator<Item = Delivered>) -> Vec<(QueueKey, Vec<Entry>)> {
    let mut groups: Vec<(QueueKey, Vec<Entry>)> = Vec::new();
    let mut places: Map<QueueKey, usize> = Map::default();
    let mut at = 0;
    // Usually they are of one queue. Room for a million is got at once: growing to it costs more than all the rest.
    let mut count = delivered.size_hint().1;
    for Delivered { queue: key, entry, .. } in delivered {
        if groups.get(at).is_none_or(|(last, _)| *last != key) {
            at = *places.entry(key).or_insert(groups.len());
            if at == groups.len() {
                groups.push((key, Vec::with_capacity(count.take().unwrap_or_default())));
            }
        }
        groups[at].1.push(entry);
    }
    groups
}

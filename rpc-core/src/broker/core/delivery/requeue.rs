//! Deliveries leave their channel: they are settled, or requeued.

use crate::{
    broker::core::{
        interface::Now,
        session::unacked::Delivered,
        vhost::{
            Map, Vhost, arguments::Overflow, dead_letter::Death, live_queue::LiveQueue, message::Entry,
            queue::RequeueReason,
        },
    },
    routing::QueueId,
};

impl Vhost {
    /// Subtracts settled deliveries from their queues, and passes each to `settle`, with its queue unless that was
    /// deleted. Those whose message was taken back are nothing to their queue. Returns the queues.
    pub(crate) fn settle_all(
        &mut self,
        delivered: impl Iterator<Item = Delivered>,
        mut settle: impl FnMut(Option<LiveQueue<'_>>, Entry),
    ) -> Vec<QueueId> {
        let mut keys = Vec::new();
        for Delivered { queue: key, entry, .. } in delivered {
            if keys.last() != Some(&key) {
                keys.push(key);
            }
            let Some(entry) = entry else { continue };
            let mut live = self.live(key);
            if let Some(LiveQueue { queue, .. }) = &mut live {
                queue.unacked = queue.unacked.saturating_sub(1);
            }
            settle(live, entry);
        }
        keys
    }

    /// Requeues deliveries. Returns the queues.
    pub(crate) fn requeue_all(
        &mut self,
        delivered: impl Iterator<Item = Delivered>,
        reason: RequeueReason,
        now: Now,
    ) -> Vec<QueueId> {
        let by_queue = by_queue(delivered);
        let keys = by_queue.iter().map(|(key, _)| *key).collect();
        for (key, entries) in by_queue {
            if let Some(mut live) = self.live(key) {
                live.requeue(entries, reason, now);
            }
        }
        keys
    }
}

impl LiveQueue<'_> {
    fn requeue(&mut self, mut entries: Vec<Entry>, reason: RequeueReason, now: Now) {
        let queue = &mut *self.queue;
        if queue.stream.is_some() {
            queue.unacked = queue.unacked.saturating_sub(entries.len());
            return;
        }
        if let Some(limit) = queue.arguments.delivery_limit {
            let before = entries.len();
            let counts_failures = queue.arguments.counts_failures_apart;
            let is_spent = |entry: &mut Entry| match counts_failures {
                true => reason != RequeueReason::Requested && i64::from(entry.failed_count) >= limit,
                false => i64::from(entry.delivery_count) >= limit,
            };
            let spent: Vec<_> = entries.extract_if(.., is_spent).collect();
            queue.unacked = queue.unacked.saturating_sub(before - entries.len());
            for entry in spent {
                self.bury(&entry, Death::DeliveryLimit, now);
            }
        }
        self.queue.requeue(entries, reason, now.instant);
        if self.queue.arguments.overflow == Overflow::DropHead {
            self.drop_over_full(now);
        }
        self.set_timer();
    }
}

/// Groups deliveries by queue, in the order of each queue's first delivery.
fn by_queue(delivered: impl Iterator<Item = Delivered>) -> Vec<(QueueId, Vec<Entry>)> {
    let mut groups: Vec<(QueueId, Vec<Entry>)> = Vec::new();
    let mut places: Map<QueueId, usize> = Map::default();
    let mut at = 0;
    // Usually all of them are of one queue. Reserving room for a million at once is cheaper than growing to it.
    let mut count = delivered.size_hint().1;
    for Delivered { queue: key, entry, .. } in delivered {
        if groups.get(at).is_none_or(|(last, _)| *last != key) {
            at = *places.entry(key).or_insert(groups.len());
            if at == groups.len() {
                groups.push((key, Vec::with_capacity(count.take().unwrap_or_default())));
            }
        }
        // Its consumer may go on, so the queue is listed even if the message was taken back.
        groups[at].1.extend(entry);
    }
    groups
}

//! One channel: delivery tags, unacknowledged deliveries, prefetch windows, confirm and transaction mode.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    message::{Body, Entry, Message},
    vhost::QueueKey,
};
use crate::wire::Publish;

/// An open channel, or one that waits for `channel.close-ok`.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// We sent `channel.close`: everything but the answer is ignored.
    pub(super) is_closing: bool,
    pub(super) mode: Mode,
    /// A publish whose content has not all arrived.
    pub(super) incoming: Option<Incoming>,
    /// Set by `basic.qos` for consumers started later.
    pub(super) prefetch_count: u16,
    /// Shared by all consumers of the channel.
    pub(super) global_prefetch_count: u16,
    /// Deliveries that count against the windows.
    windowed: usize,
    pub(super) consumers: Vec<Option<ChannelConsumer>>,
    /// What an empty queue name stands for.
    pub(super) last_queue: Option<String>,
    /// Its one consumer of direct replies: the tag.
    pub(super) direct_replies: Option<Bytes>,
    unacked: Unacked,
    pub(super) confirms: Confirms,
}

/// What publishes and acks on the channel do.
#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    Confirm,
    Transaction(Transaction),
}

/// What a transaction holds until it is committed.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<Routable>,
    pub(super) settlements: Vec<(Delivered, Settle)>,
}

/// A message that passed all checks, and where it goes.
#[derive(Debug)]
pub(super) struct Routable {
    pub(super) message: Arc<Message>,
    pub(super) queues: Vec<QueueKey>,
    pub(super) mandatory: bool,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Ack,
    Requeue,
    Reject,
}

/// A publish on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) publish: Publish,
    pub(super) properties: Option<Bytes>,
    pub(super) body_left: u64,
    pub(super) body: Body,
}

/// A consumer as its channel sees it.
#[derive(Debug)]
pub(super) struct ChannelConsumer {
    pub(super) tag: Bytes,
    pub(super) queue: QueueKey,
    pub(super) no_ack: bool,
    prefetch_count: u16,
    unacked: usize,
}

impl ChannelConsumer {
    pub(super) fn new(tag: Bytes, queue: QueueKey, no_ack: bool, prefetch_count: u16) -> Self {
        Self { tag, queue, no_ack, prefetch_count, unacked: 0 }
    }
}

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) queue: QueueKey,
    pub(super) entry: Entry,
    /// The consumer's slot; `None` for `basic.get`.
    pub(super) slot: Option<usize>,
    /// Its tag, once it has one.
    pub(super) delivery_tag: u64,
}

impl Channel {
    /// One that is closed over a fault, and waits for the client to say so.
    pub(super) fn closing() -> Self {
        Self { is_closing: true, ..Self::default() }
    }

    /// Whether the consumer in `slot` may get another message.
    pub(super) fn has_credit(&self, slot: usize) -> bool {
        let Some(Some(consumer)) = self.consumers.get(slot) else {
            return false;
        };
        consumer.no_ack
            || (is_below(consumer.unacked, consumer.prefetch_count)
                && is_below(self.windowed, self.global_prefetch_count))
    }

    /// Takes the next delivery tag for a message nobody will acknowledge.
    pub(super) fn tag_settled(&mut self) -> u64 {
        self.unacked.push(None)
    }

    /// Takes the next delivery tag, and holds the delivery until it is settled.
    pub(super) fn tag_unacked(&mut self, delivered: Delivered) -> u64 {
        if let Some(Some(consumer)) = delivered.slot.and_then(|slot| self.consumers.get_mut(slot)) {
            consumer.unacked += 1;
        }
        self.windowed += usize::from(delivered.slot.is_some());
        self.unacked.push(Some(delivered))
    }

    /// Takes out what an acknowledgement names; `None` when it names nothing.
    pub(super) fn settle(&mut self, delivery_tag: u64, multiple: bool) -> Option<Vec<Delivered>> {
        if !multiple {
            let delivered = self.unacked.take(delivery_tag)?;
            self.release(&delivered);
            return Some(vec![delivered]);
        }
        let settled = self.unacked.take_through(delivery_tag)?;
        for delivered in &settled {
            self.release(delivered);
        }
        Some(settled)
    }

    /// One acknowledgement of one delivery, the usual case, without a list.
    pub(super) fn settle_one(&mut self, delivery_tag: u64) -> Option<Delivered> {
        let delivered = self.unacked.take(delivery_tag)?;
        self.release(&delivered);
        Some(delivered)
    }

    /// Takes out everything unacknowledged, in delivery order.
    pub(super) fn settle_all(&mut self) -> Vec<Delivered> {
        let settled = self.unacked.take_all();
        for delivered in &settled {
            self.release(delivered);
        }
        settled
    }

    /// Takes back what a rolled-back transaction had settled: it is unacknowledged again under its old tag.
    pub(super) fn restore(&mut self, settlements: Vec<(Delivered, Settle)>) {
        for (delivered, _) in settlements {
            if let Some(slot) = delivered.slot {
                self.windowed += 1;
                if let Some(Some(consumer)) = self.consumers.get_mut(slot) {
                    consumer.unacked += 1;
                }
            }
            self.unacked.restore(delivered);
        }
    }

    /// Frees the windows a delivery occupied.
    fn release(&mut self, delivered: &Delivered) {
        if let Some(slot) = delivered.slot {
            self.windowed = self.windowed.saturating_sub(1);
            if let Some(Some(consumer)) = self.consumers.get_mut(slot) {
                consumer.unacked = consumer.unacked.saturating_sub(1);
            }
        }
    }

    /// Puts a consumer into the first free slot. A slot is not reused while deliveries of its last consumer are out.
    pub(super) fn add_consumer(&mut self, consumer: ChannelConsumer) -> usize {
        self.consumers.push(Some(consumer));
        self.consumers.len() - 1
    }

    pub(super) fn consumer_slot(&self, tag: &[u8]) -> Option<usize> {
        self.consumers.iter().position(|consumer| consumer.as_ref().is_some_and(|consumer| consumer.tag == tag))
    }

    pub(super) fn remove_consumer(&mut self, slot: usize) -> Option<ChannelConsumer> {
        let removed = self.consumers.get_mut(slot)?.take();
        // Slots at the end are free again once nothing delivered through them is out.
        if self.windowed == 0 {
            while matches!(self.consumers.last(), Some(None)) {
                self.consumers.pop();
            }
        }
        removed
    }
}

/// 0 is no limit.
fn is_below(count: usize, limit: u16) -> bool {
    limit == 0 || count < usize::from(limit)
}

/// Unacknowledged deliveries by consecutive tag: looking one up is an index.
#[derive(Debug, Default)]
struct Unacked {
    /// The tag of the front; tags below it are settled.
    first: u64,
    deliveries: VecDeque<Option<Delivered>>,
}

impl Unacked {
    fn push(&mut self, mut delivered: Option<Delivered>) -> u64 {
        if self.first == 0 {
            self.first = 1;
        }
        let tag = self.first + self.deliveries.len() as u64;
        if let Some(delivered) = &mut delivered {
            delivered.delivery_tag = tag;
        }
        if delivered.is_none() && self.deliveries.is_empty() {
            self.first += 1;
        } else {
            self.deliveries.push_back(delivered);
        }
        tag
    }

    fn take(&mut self, tag: u64) -> Option<Delivered> {
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        let delivered = self.deliveries.get_mut(at)?.take()?;
        self.trim();
        Some(delivered)
    }

    /// Tag 0 is all; a tag above the last one delivered, or one that is settled, is an error.
    fn take_through(&mut self, tag: u64) -> Option<Vec<Delivered>> {
        let count = if tag == 0 {
            self.deliveries.len()
        } else {
            let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
            self.deliveries.get(at)?.as_ref()?;
            at + 1
        };
        let taken = self.deliveries.drain(..count).flatten().collect();
        self.first += count as u64;
        self.trim();
        Some(taken)
    }

    fn take_all(&mut self) -> Vec<Delivered> {
        self.first += self.deliveries.len() as u64;
        self.deliveries.drain(..).flatten().collect()
    }

    /// Puts a delivery back under its tag, which may lie below the first one that is still out.
    fn restore(&mut self, delivered: Delivered) {
        while self.first > delivered.delivery_tag {
            self.deliveries.push_front(None);
            self.first -= 1;
        }
        let at = delivered.delivery_tag - self.first;
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.deliveries.get_mut(at)) {
            *slot = Some(delivered);
        }
    }

    fn trim(&mut self) {
        while let Some(None) = self.deliveries.front() {
            self.deliveries.pop_front();
            self.first += 1;
        }
    }
}

/// Publisher confirms that are due, merged until the batch of frames is handled.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    published: u64,
    /// The first tag not told yet, when there is one, and whether the run is acks.
    run: Option<(u64, bool)>,
}

/// A confirm to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) delivery_tag: u64,
    pub(super) multiple: bool,
    pub(super) is_ack: bool,
}

impl Confirms {
    /// Notes one more publish; returns the run it does not continue.
    pub(super) fn add(&mut self, is_ack: bool) -> Option<Confirm> {
        let ended = match self.run {
            Some((_, run_is_ack)) if run_is_ack != is_ack => self.flush(),
            _ => None,
        };
        self.published += 1;
        self.run.get_or_insert((self.published, is_ack));
        ended
    }

    /// The run so far.
    pub(super) fn flush(&mut self) -> Option<Confirm> {
        let (first, is_ack) = self.run.take()?;
        Some(Confirm { delivery_tag: self.published, multiple: self.published > first, is_ack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(slot: Option<usize>) -> Delivered {
        let message = Arc::new(Message {
            exchange: Bytes::new(),
            routing_key: Bytes::new(),
            properties: Bytes::from_static(&[0, 0]),
            body: Body::Empty,
            priority: 0,
            expiration_ms: None,
        });
        let entry = Entry { place: 1, message, redelivered: false, expires_at: None };
        Delivered { queue: QueueKey(1), entry, slot, delivery_tag: 0 }
    }

    #[test]
    fn tags_are_settled_once() {
        let mut channel = Channel::default();
        assert_eq!(channel.tag_settled(), 1);
        let tags: Vec<_> = (0..3).map(|_| channel.tag_unacked(delivered(None))).collect();
        assert_eq!(tags, [2, 3, 4]);
        assert!(channel.settle(1, false).is_none(), "never waited for one");
        assert!(channel.settle(3, false).is_some());
        assert!(channel.settle(3, false).is_none());
        assert!(channel.settle(5, true).is_none(), "above the last");
        assert_eq!(channel.settle(4, true).unwrap().len(), 2);
        assert_eq!(channel.settle(0, true).unwrap().len(), 0, "all of nothing");
        assert!(channel.settle(0, false).is_none());
        assert_eq!(channel.tag_unacked(delivered(None)), 5);
    }

    #[test]
    fn a_rolled_back_settlement_can_be_settled_again() {
        let mut channel = Channel::default();
        for _ in 0..3 {
            channel.tag_unacked(delivered(None));
        }
        let settled = channel.settle(2, true).unwrap();
        channel.restore(settled.into_iter().map(|delivered| (delivered, Settle::Ack)).collect());
        assert_eq!(channel.settle(0, true).unwrap().len(), 3);
        assert_eq!(channel.tag_unacked(delivered(None)), 4);
    }

    #[test]
    fn windows_are_each_consumers_own_or_shared_by_the_channel() {
        let mut channel = Channel { global_prefetch_count: 3, ..Channel::default() };
        for _ in 0..2 {
            channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueKey(1), false, 2));
        }
        channel.tag_unacked(delivered(Some(0)));
        channel.tag_unacked(delivered(Some(0)));
        assert!(!channel.has_credit(0) && channel.has_credit(1));
        channel.tag_unacked(delivered(Some(1)));
        assert!(!channel.has_credit(1), "the channel's window is full");
        channel.tag_unacked(delivered(None));
        channel.settle(1, false);
        assert!(channel.has_credit(0) && channel.has_credit(1));
    }

    #[test]
    fn confirms_are_merged_in_runs() {
        let mut confirms = Confirms::default();
        assert_eq!((confirms.add(true), confirms.add(true)), (None, None));
        let acks = Confirm { delivery_tag: 2, multiple: true, is_ack: true };
        assert_eq!(confirms.add(false), Some(acks));
        assert_eq!(confirms.flush(), Some(Confirm { delivery_tag: 3, multiple: false, is_ack: false }));
        assert_eq!(confirms.flush(), None);
    }
}

//! One channel: delivery tags, unacknowledged deliveries, prefetch windows, confirm and transaction mode. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    broker::core::{
        limits::memory::Memory,
        session::{
            confirms::Confirms,
            reply_address::ReplyAddress,
            unacked::{Delivered, Scan, Taken, Unacked},
        },
        vhost::message::{Assembly, Message},
    },
    routing::QueueId,
};

/// An open channel, or one that waits for `channel.close-ok`.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// We sent `channel.close`: everything but the answer is ignored.
    pub(crate) is_closing: bool,
    pub(crate) mode: Mode,
    /// A publish whose content has not all arrived.
    pub(crate) incoming: Option<Incoming>,
    /// The part of it that has arrived.
    pub(crate) assembly: Assembly,
    /// Set by `basic.qos` for consumers started later.
    pub(crate) prefetch_count: u16,
    /// Shared by all consumers of the channel.
    pub(crate) global_prefetch_count: u16,
    /// Deliveries that count against the windows.
    windowed: usize,
    slots: Vec<Slot>,
    free_slots: Vec<usize>,
    /// The consumers' slots by their tags.
    tags: HashMap<Bytes, usize>,
    /// How often [`Channel::consumed_queues`] was called.
    turn: usize,
    /// The queue that an empty name stands for: the last one declared on the channel.
    pub(crate) last_queue: Option<String>,
    /// The tag of the channel's consumer of direct replies.
    pub(crate) direct_replies: Option<Bytes>,
    unacked: Unacked,
    pub(crate) confirms: Confirms,
}

/// How the channel treats publishes and acknowledgements.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm,
    Transaction(Transaction),
}

/// Publishes and acknowledgements that wait for `tx.commit`.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) publishes: Vec<Routable>,
    /// How many copies the publishes put into queues. A message without a queue counts as one.
    pub(crate) copies: usize,
    pub(crate) settlements: Vec<(Delivered, Settle)>,
    /// The names of the queues, where a commit needs them.
    pub(crate) names: BTreeMap<QueueId, Arc<str>>,
}

/// A message that passed all checks, and the queues it is routed to.
#[derive(Debug)]
pub(crate) struct Routable {
    pub(crate) message: Arc<Message>,
    pub(crate) queues: Vec<QueueId>,
    /// The addresses of direct replies that it is for.
    pub(crate) replies: Vec<ReplyAddress>,
    pub(crate) mandatory: bool,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    Requeue,
    /// As `Requeue`, but for a quorum queue the delivery has failed.
    RequeueFailed,
    Reject,
    /// As `Reject`, but the delivery has failed.
    RejectFailed,
}

impl Settle {
    /// Whether the delivery returns to its queue.
    pub(crate) const fn requeues(self) -> bool {
        matches!(self, Self::Requeue | Self::RequeueFailed)
    }
}

/// A `basic.publish` whose content is arriving.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
    pub(crate) has_header: bool,
    /// Whether it has all arrived, and the search for its queues has paused.
    pub(crate) is_paused: bool,
}

/// A consumer as its channel sees it.
#[derive(Debug)]
pub(crate) struct ChannelConsumer {
    pub(crate) tag: Bytes,
    pub(crate) queue: QueueId,
    pub(crate) no_ack: bool,
    prefetch_count: u16,
    unacked: usize,
}

impl ChannelConsumer {
    pub(crate) fn new(tag: Bytes, queue: QueueId, no_ack: bool, prefetch_count: u16) -> Self {
        Self { tag, queue, no_ack, prefetch_count, unacked: 0 }
    }
}

/// A consumer's place on its channel. Deliveries refer to it, so it is reused only after all of them are settled.
#[derive(Debug)]
enum Slot {
    Free,
    Taken(ChannelConsumer),
    /// The consumer was cancelled, but not all of its deliveries are settled.
    Cancelled {
        unacked: usize,
    },
}

impl Channel {
    /// A new channel. Its incoming messages count in `memory`.
    pub(crate) fn open(memory: &Arc<Memory>) -> Self {
        Self { assembly: Assembly::new(memory), ..Self::default() }
    }

    /// A channel that was closed over a fault, and waits for `channel.close-ok`.
    pub(crate) fn closing() -> Self {
        Self { is_closing: true, ..Self::default() }
    }

    /// Whether the consumer in `slot` may get another message. As in RabbitMQ, a full window of the channel also stops
    /// consumers with automatic acknowledgement.
    #[inline]
    pub(crate) fn has_credit(&self, slot: usize) -> bool {
        self.consumer(slot).is_some_and(|consumer| {
            is_below(self.windowed, self.global_prefetch_count)
                && (consumer.no_ack || is_below(consumer.unacked, consumer.prefetch_count))
        })
    }

    /// The next delivery tag.
    pub(crate) const fn next_tag(&self) -> u64 {
        self.unacked.last_tag + 1
    }

    /// Takes the next delivery tag for a message that is acknowledged automatically.
    pub(crate) fn tag_settled(&mut self) -> u64 {
        self.unacked.push(None)
    }

    /// Takes the next delivery tag, and holds the delivery until it is settled.
    pub(crate) fn tag_unacked(&mut self, delivered: Delivered) -> u64 {
        if let Some(Slot::Taken(consumer)) = delivered.slot.and_then(|slot| self.slots.get_mut(slot)) {
            consumer.unacked += 1;
        }
        self.windowed += usize::from(delivered.slot.is_some());
        self.unacked.push(Some(delivered))
    }

    /// The last of the deliveries that a `multiple` acknowledgement covers; `None` for an unknown tag.
    pub(crate) fn last_through(&self, delivery_tag: u64) -> Option<u64> {
        self.unacked.last_through(delivery_tag)
    }

    /// Takes out at most `max` deliveries from one tag to another, and returns the tag to go on with. They occupy the
    /// windows until [`Channel::release`].
    pub(crate) fn take_some(&mut self, from: u64, through: u64, max: usize) -> (Taken, Option<u64>) {
        self.unacked.take_some(from, through, max)
    }

    /// Takes out one delivery. It occupies the windows until [`Channel::release`].
    pub(crate) fn take_one(&mut self, delivery_tag: u64) -> Option<Delivered> {
        self.unacked.take(delivery_tag)
    }

    /// Whether a delivery has waited too long for its acknowledgement.
    pub(crate) fn is_overdue(&mut self, scan: Scan) -> bool {
        self.unacked.is_overdue(scan)
    }

    /// Takes out everything unacknowledged, in delivery order.
    pub(crate) fn take_all(&mut self) -> Taken {
        self.unacked.take_all()
    }

    /// Makes the transaction hold an acknowledgement until its commit. Returns false for an unknown tag.
    pub(crate) fn hold_back(&mut self, delivery_tag: u64, settle: Settle) -> bool {
        let Mode::Transaction(transaction) = &mut self.mode else { return false };
        self.unacked.keep_holes();
        let delivered = self.unacked.take(delivery_tag);
        delivered.map(|delivered| transaction.settlements.push((delivered, settle))).is_some()
    }

    /// As [`Channel::hold_back`], for at most `max` deliveries from one tag to another. Returns the tag to go on with.
    pub(crate) fn hold_back_some(&mut self, from: u64, through: u64, settle: Settle, max: usize) -> Option<u64> {
        let Mode::Transaction(transaction) = &mut self.mode else { return None };
        self.unacked.keep_holes();
        let (taken, next) = self.unacked.take_some(from, through, max);
        transaction.settlements.extend(taken.into_deliveries().map(|delivered| (delivered, settle)));
        next
    }

    /// Undoes an acknowledgement of a rolled-back transaction: the delivery is unacknowledged again, under its old tag.
    pub(crate) fn restore(&mut self, delivered: Delivered) {
        self.unacked.restore(delivered);
    }

    /// Notes that the acknowledgements of a transaction are applied, or undone.
    pub(crate) fn end_transaction(&mut self) {
        self.unacked.drop_holes();
    }

    /// Frees a delivery's place in the windows.
    pub(crate) fn release(&mut self, delivered: &Delivered) {
        let Some(slot) = delivered.slot else { return };
        self.windowed = self.windowed.saturating_sub(1);
        match self.slots.get_mut(slot) {
            Some(Slot::Taken(consumer)) => consumer.unacked = consumer.unacked.saturating_sub(1),
            Some(Slot::Cancelled { unacked }) if *unacked > 1 => *unacked -= 1,
            Some(left @ Slot::Cancelled { .. }) => {
                *left = Slot::Free;
                self.free_slots.push(slot);
            }
            Some(Slot::Free) | None => {}
        }
    }

    pub(crate) fn add_consumer(&mut self, consumer: ChannelConsumer) -> usize {
        let slot = self.free_slots.pop().unwrap_or(self.slots.len());
        self.tags.insert(consumer.tag.clone(), slot);
        match self.slots.get_mut(slot) {
            Some(free) => *free = Slot::Taken(consumer),
            None => self.slots.push(Slot::Taken(consumer)),
        }
        slot
    }

    pub(crate) fn consumer(&self, slot: usize) -> Option<&ChannelConsumer> {
        match self.slots.get(slot) {
            Some(Slot::Taken(consumer)) => Some(consumer),
            _ => None,
        }
    }

    pub(crate) fn consumer_count(&self) -> usize {
        self.tags.len()
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = &ChannelConsumer> {
        (0..self.slots.len()).filter_map(|slot| self.consumer(slot))
    }

    /// The queues that the channel consumes from, each once. Each call starts with another one, so that the queues take
    /// turns at the window they share.
    pub(crate) fn consumed_queues(&mut self) -> Vec<QueueId> {
        let mut keys: Vec<_> = self.consumers().map(|consumer| consumer.queue).collect();
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % keys.len();
            keys.rotate_left(first);
        }
        keys
    }

    pub(crate) fn consumer_slot(&self, tag: &[u8]) -> Option<usize> {
        self.tags.get(tag).copied()
    }

    pub(crate) fn remove_consumer(&mut self, slot: usize) -> Option<ChannelConsumer> {
        let unacked = self.consumer(slot)?.unacked;
        let left = match unacked {
            0 => {
                self.free_slots.push(slot);
                Slot::Free
            }
            unacked => Slot::Cancelled { unacked },
        };
        match std::mem::replace(self.slots.get_mut(slot)?, left) {
            Slot::Taken(consumer) => {
                self.tags.remove(&consumer.tag);
                Some(consumer)
            }
            Slot::Free | Slot::Cancelled { .. } => None,
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Channel {
    /// Unsettled deliveries, including those that an uncommitted transaction acknowledged.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Delivered> {
        let settling = match &self.mode {
            Mode::Transaction(transaction) => transaction.settlements.as_slice(),
            Mode::Plain | Mode::Confirm => &[],
        };
        let unacked = self.unacked.deliveries.iter().filter_map(|(_, delivered)| delivered.as_ref());
        unacked.chain(settling.iter().map(|(delivered, _)| delivered))
    }

    /// Messages that wait for `tx.commit`.
    pub(crate) fn uncommitted(&self) -> impl Iterator<Item = &Arc<Message>> {
        let publishes = match &self.mode {
            Mode::Transaction(transaction) => transaction.publishes.as_slice(),
            Mode::Plain | Mode::Confirm => &[],
        };
        publishes.iter().map(|routable| &routable.message)
    }

    /// Panics unless tags, slots and windows agree with the deliveries, and no window is exceeded.
    pub(crate) fn check(&self) {
        self.unacked.check();
        assert_eq!(self.windowed, self.held().filter(|delivered| delivered.slot.is_some()).count(), "the window");
        for (at, slot) in self.slots.iter().enumerate() {
            let held = self.held().filter(|delivered| delivered.slot == Some(at)).count();
            let is_free = match slot {
                Slot::Free => {
                    assert_eq!(held, 0, "deliveries of a free slot");
                    true
                }
                Slot::Cancelled { unacked } => {
                    assert_eq!((*unacked, held > 0), (held, true), "deliveries of a cancelled consumer");
                    false
                }
                Slot::Taken(consumer) => {
                    assert_eq!(consumer.unacked, held, "deliveries of a consumer");
                    let limit = usize::from(consumer.prefetch_count);
                    assert!(limit == 0 || held <= limit, "a window of {limit} holds {held}");
                    false
                }
            };
            assert_eq!(self.free_slots.iter().filter(|free| **free == at).count(), usize::from(is_free), "free slots");
        }
    }
}

/// Whether a count is below a limit, of which 0 means none.
fn is_below(count: usize, limit: u16) -> bool {
    limit == 0 || count < usize::from(limit)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::broker::core::{
        session::unacked::HOLES_MIN,
        vhost::message::{Entry, tests::message},
    };

    pub(crate) fn delivered(slot: Option<usize>) -> Delivered {
        let entry = Entry {
            place: 1,
            message: message(b"", 0),
            delivery_count: 0,
            failed_count: 0,
            is_failed_letter: false,
            expires_at: None,
        };
        Delivered { queue: QueueId(1), entry, slot, delivery_tag: 0 }
    }

    fn settle(channel: &mut Channel, delivery_tag: u64, multiple: bool) -> Option<usize> {
        let taken: Vec<_> = match multiple {
            true => {
                let through = channel.last_through(delivery_tag)?;
                channel.take_some(0, through, usize::MAX).0.into_deliveries().collect()
            }
            false => vec![channel.take_one(delivery_tag)?],
        };
        taken.iter().for_each(|delivered| channel.release(delivered));
        Some(taken.len())
    }

    #[test]
    fn tags_are_settled_once() {
        let mut channel = Channel::default();
        assert_eq!(channel.tag_settled(), 1);
        let tags: Vec<_> = (0..3).map(|_| channel.tag_unacked(delivered(None))).collect();
        assert_eq!(tags, [2, 3, 4]);
        assert_eq!(settle(&mut channel, 1, false), None, "acknowledged automatically");
        assert_eq!(settle(&mut channel, 3, false), Some(1));
        assert_eq!(settle(&mut channel, 3, false), None);
        assert_eq!(settle(&mut channel, 5, true), None, "above the last");
        assert_eq!(settle(&mut channel, 4, true), Some(2));
        assert_eq!(settle(&mut channel, 0, true), Some(0), "all of no deliveries");
        assert_eq!(settle(&mut channel, 0, false), None);
        assert_eq!(channel.tag_unacked(delivered(None)), 5);
    }

    #[test]
    fn one_unacknowledged_delivery_keeps_no_memory_of_later_ones() {
        let mut channel = Channel::default();
        let stuck = channel.tag_unacked(delivered(None));
        for _ in 0..10_000 {
            channel.tag_settled();
            let tag = channel.tag_unacked(delivered(None));
            assert_eq!(settle(&mut channel, tag, false), Some(1));
        }
        assert!(channel.unacked.deliveries.len() <= 2 * HOLES_MIN + 2);
        assert_eq!(settle(&mut channel, stuck, false), Some(1));
        assert!(channel.unacked.deliveries.is_empty());
        assert_eq!(channel.unacked.holes, 0);
    }

    #[test]
    fn a_rolled_back_settlement_can_be_settled_again() {
        let mut channel = Channel::default();
        for _ in 0..3 {
            channel.tag_unacked(delivered(None));
        }
        channel.mode = Mode::Transaction(Transaction::default());
        assert!(channel.hold_back(1, Settle::Ack));
        assert_eq!((channel.last_through(1), channel.last_through(2)), (None, Some(2)));
        assert_eq!(channel.hold_back_some(0, 2, Settle::Reject, 1), Some(2));
        assert_eq!(channel.hold_back_some(2, 2, Settle::Reject, 1), None);
        assert!(!channel.hold_back(1, Settle::Ack), "the transaction holds it already");
        let Mode::Transaction(transaction) = std::mem::take(&mut channel.mode) else { panic!() };
        assert_eq!(transaction.settlements.len(), 2);
        transaction.settlements.into_iter().for_each(|(delivered, _)| channel.restore(delivered));
        channel.end_transaction();
        assert_eq!(settle(&mut channel, 0, true), Some(3));
        assert_eq!(channel.tag_unacked(delivered(None)), 4);
    }

    #[test]
    fn windows_are_each_consumers_own_or_shared_by_the_channel() {
        let mut channel = Channel { global_prefetch_count: 3, ..Channel::default() };
        for _ in 0..2 {
            channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), false, 2));
        }
        channel.tag_unacked(delivered(Some(0)));
        channel.tag_unacked(delivered(Some(0)));
        assert!(!channel.has_credit(0) && channel.has_credit(1));
        channel.tag_unacked(delivered(Some(1)));
        assert!(!channel.has_credit(1), "the channel's window is full");
        channel.tag_unacked(delivered(None));
        settle(&mut channel, 1, false);
        assert!(channel.has_credit(0) && channel.has_credit(1));
    }

    #[test]
    fn a_slot_is_reused_when_its_last_delivery_is_settled() {
        let mut channel = Channel::default();
        let consumer = || ChannelConsumer::new(Bytes::new(), QueueId(1), false, 1);
        let first = channel.add_consumer(consumer());
        let tag = channel.tag_unacked(delivered(Some(first)));
        channel.remove_consumer(first);
        let second = channel.add_consumer(consumer());
        assert_ne!(first, second);
        settle(&mut channel, tag, false);
        assert!(channel.has_credit(second));
        assert_eq!(channel.add_consumer(consumer()), first);
        channel.remove_consumer(second);
        assert_eq!(channel.add_consumer(consumer()), second);
    }

    #[test]
    fn a_full_window_of_the_channel_stops_consumers_with_automatic_acknowledgement() {
        let mut channel = Channel { global_prefetch_count: 1, ..Channel::default() };
        channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), false, 0));
        channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), true, 0));
        assert!(channel.has_credit(1));
        channel.tag_unacked(delivered(Some(0)));
        assert!(!channel.has_credit(1));
    }
}

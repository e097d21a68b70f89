//! One channel: delivery tags, unacknowledged deliveries, prefetch windows, confirm and transaction mode.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    confirms::Confirms,
    memory::Memory,
    message::{Assembly, Entry, Message},
    overdue::Look,
    unacked::{Taken, Unacked},
    vhost::QueueKey,
};

/// An open channel, or one that waits for `channel.close-ok`.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// We sent `channel.close`: everything but the answer is ignored.
    pub(super) is_closing: bool,
    pub(super) mode: Mode,
    /// A publish whose content has not all arrived.
    pub(super) incoming: Option<Incoming>,
    /// What has arrived of it.
    pub(super) assembly: Assembly,
    /// Set by `basic.qos` for consumers started later.
    pub(super) prefetch_count: u16,
    /// Shared by all consumers of the channel.
    pub(super) global_prefetch_count: u16,
    /// Deliveries that count against the windows.
    windowed: usize,
    slots: Vec<Slot>,
    /// Counts what [`Channel::consumed_queues`] was asked.
    turn: usize,
    free_slots: Vec<usize>,
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
    /// How many messages that puts into queues; one for none.
    pub(super) copies: usize,
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
    pub(super) has_header: bool,
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

/// A consumer's place on its channel. Deliveries name it, so it is not reused while any of them is out.
#[derive(Debug)]
enum Slot {
    Free,
    Taken(ChannelConsumer),
    /// The consumer is gone, deliveries to it are not settled.
    Left {
        unacked: usize,
    },
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
    /// A new one, whose messages are counted there.
    pub(super) fn open(memory: &Arc<Memory>) -> Self {
        Self { assembly: Assembly::new(memory), ..Self::default() }
    }

    /// One that is closed over a fault, and waits for the client to say so.
    pub(super) fn closing() -> Self {
        Self { is_closing: true, ..Self::default() }
    }

    /// Whether the consumer in `slot` may get another message. A full window of the channel stops also those who need
    /// not acknowledge, as in RabbitMQ.
    #[inline]
    pub(super) fn has_credit(&self, slot: usize) -> bool {
        self.consumer(slot).is_some_and(|consumer| {
            is_below(self.windowed, self.global_prefetch_count)
                && (consumer.no_ack || is_below(consumer.unacked, consumer.prefetch_count))
        })
    }

    /// The delivery tag that comes next.
    pub(super) const fn next_tag(&self) -> u64 {
        self.unacked.last_tag + 1
    }

    /// Takes the next delivery tag for a message nobody will acknowledge.
    pub(super) fn tag_settled(&mut self) -> u64 {
        self.unacked.push(None)
    }

    /// Takes the next delivery tag, and holds the delivery until it is settled.
    pub(super) fn tag_unacked(&mut self, delivered: Delivered) -> u64 {
        if let Some(Slot::Taken(consumer)) = delivered.slot.and_then(|slot| self.slots.get_mut(slot)) {
            consumer.unacked += 1;
        }
        self.windowed += usize::from(delivered.slot.is_some());
        self.unacked.push(Some(delivered))
    }

    /// Takes out what an acknowledgement of many names; `None` when it names nothing. Its place in the windows stays taken
    /// until [`Channel::release`].
    pub(super) fn take_through(&mut self, delivery_tag: u64) -> Option<Taken> {
        self.unacked.take_through(delivery_tag)
    }

    /// The same of one delivery.
    pub(super) fn take_one(&mut self, delivery_tag: u64) -> Option<Delivered> {
        self.unacked.take(delivery_tag)
    }

    /// Whether a delivery has waited too long for its acknowledgement.
    pub(super) fn is_overdue(&mut self, look: Look) -> bool {
        self.unacked.is_overdue(look)
    }

    /// Takes out everything unacknowledged, in delivery order.
    pub(super) fn take_all(&mut self) -> Taken {
        self.unacked.take_all()
    }

    /// Has its transaction hold what an acknowledgement names, until it is committed; false when it names nothing.
    pub(super) fn hold_back(&mut self, delivery_tag: u64, multiple: bool, settle: Settle) -> bool {
        let Mode::Transaction(transaction) = &mut self.mode else { return false };
        let settlements = &mut transaction.settlements;
        if multiple {
            let taken = self.unacked.take_through(delivery_tag).map(Taken::into_deliveries);
            taken.map(|taken| settlements.extend(taken.map(|delivered| (delivered, settle)))).is_some()
        } else {
            self.unacked.take(delivery_tag).map(|delivered| settlements.push((delivered, settle))).is_some()
        }
    }

    /// Takes back what a rolled-back transaction had settled: it is unacknowledged again under its old tag.
    pub(super) fn restore(&mut self, settlements: Vec<(Delivered, Settle)>) {
        for (delivered, _) in settlements {
            self.unacked.restore(delivered);
        }
    }

    /// Frees a delivery's place in the windows.
    pub(super) fn release(&mut self, delivered: &Delivered) {
        let Some(slot) = delivered.slot else { return };
        self.windowed = self.windowed.saturating_sub(1);
        match self.slots.get_mut(slot) {
            Some(Slot::Taken(consumer)) => consumer.unacked = consumer.unacked.saturating_sub(1),
            Some(Slot::Left { unacked }) if *unacked > 1 => *unacked -= 1,
            Some(left @ Slot::Left { .. }) => {
                *left = Slot::Free;
                self.free_slots.push(slot);
            }
            Some(Slot::Free) | None => {}
        }
    }

    pub(super) fn add_consumer(&mut self, consumer: ChannelConsumer) -> usize {
        match self.free_slots.pop() {
            Some(slot) => {
                self.slots[slot] = Slot::Taken(consumer);
                slot
            }
            None => {
                self.slots.push(Slot::Taken(consumer));
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn consumer(&self, slot: usize) -> Option<&ChannelConsumer> {
        match self.slots.get(slot) {
            Some(Slot::Taken(consumer)) => Some(consumer),
            _ => None,
        }
    }

    pub(super) fn consumers(&self) -> impl Iterator<Item = &ChannelConsumer> {
        (0..self.slots.len()).filter_map(|slot| self.consumer(slot))
    }

    /// The queues its consumers are on, each once, and another one first each time: they take turns at a window they
    /// share.
    pub(super) fn consumed_queues(&mut self) -> Vec<QueueKey> {
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

    pub(super) fn consumer_slot(&self, tag: &[u8]) -> Option<usize> {
        (0..self.slots.len()).find(|slot| self.consumer(*slot).is_some_and(|consumer| consumer.tag == tag))
    }

    pub(super) fn remove_consumer(&mut self, slot: usize) -> Option<ChannelConsumer> {
        let unacked = self.consumer(slot)?.unacked;
        let left = match unacked {
            0 => {
                self.free_slots.push(slot);
                Slot::Free
            }
            unacked => Slot::Left { unacked },
        };
        match std::mem::replace(self.slots.get_mut(slot)?, left) {
            Slot::Taken(consumer) => Some(consumer),
            Slot::Free | Slot::Left { .. } => None,
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Channel {
    /// What was delivered on it and is not settled; what a transaction settles is not, until it is committed.
    pub(super) fn held(&self) -> impl Iterator<Item = &Delivered> {
        let settling = match &self.mode {
            Mode::Transaction(transaction) => transaction.settlements.as_slice(),
            Mode::Plain | Mode::Confirm => &[],
        };
        let unacked = self.unacked.deliveries.iter().filter_map(|(_, delivered)| delivered.as_ref());
        unacked.chain(settling.iter().map(|(delivered, _)| delivered))
    }

    /// What a transaction is to publish.
    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &Arc<Message>> {
        let publishes = match &self.mode {
            Mode::Transaction(transaction) => transaction.publishes.as_slice(),
            Mode::Plain | Mode::Confirm => &[],
        };
        publishes.iter().map(|routable| &routable.message)
    }

    /// Panics unless tags, slots and windows say the same as the deliveries, and no window is exceeded.
    pub(super) fn check(&self) {
        let Unacked { last_tag, deliveries, holes, .. } = &self.unacked;
        assert!(deliveries.front().is_none_or(|(_, delivered)| delivered.is_some()), "a hole at the front");
        assert!(deliveries.iter().map(|(tag, _)| *tag).is_sorted_by(|a, b| a < b), "tags out of order");
        assert!(deliveries.back().is_none_or(|(tag, _)| tag <= last_tag), "a tag that was not given out");
        assert_eq!(*holes, deliveries.iter().filter(|(_, delivered)| delivered.is_none()).count(), "holes");
        assert_eq!(self.windowed, self.held().filter(|delivered| delivered.slot.is_some()).count(), "the window");
        for (at, slot) in self.slots.iter().enumerate() {
            let held = self.held().filter(|delivered| delivered.slot == Some(at)).count();
            let is_free = match slot {
                Slot::Free => {
                    assert_eq!(held, 0, "deliveries of a free slot");
                    true
                }
                Slot::Left { unacked } => {
                    assert_eq!((*unacked, held > 0), (held, true), "deliveries of a consumer that left");
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

/// 0 is no limit.
fn is_below(count: usize, limit: u16) -> bool {
    limit == 0 || count < usize::from(limit)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::unacked::HOLES_MIN, *};
    use crate::broker::core::message::tests::message;

    pub(in super::super) fn delivered(slot: Option<usize>) -> Delivered {
        let entry = Entry { place: 1, message: message(b"", 0), delivery_count: 0, expires_at: None };
        Delivered { queue: QueueKey(1), entry, slot, delivery_tag: 0 }
    }

    fn settle(channel: &mut Channel, delivery_tag: u64, multiple: bool) -> Option<usize> {
        let taken: Vec<_> = match multiple {
            true => channel.take_through(delivery_tag)?.into_deliveries().collect(),
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
        assert_eq!(settle(&mut channel, 1, false), None, "never waited for one");
        assert_eq!(settle(&mut channel, 3, false), Some(1));
        assert_eq!(settle(&mut channel, 3, false), None);
        assert_eq!(settle(&mut channel, 5, true), None, "above the last");
        assert_eq!(settle(&mut channel, 4, true), Some(2));
        assert_eq!(settle(&mut channel, 0, true), Some(0), "all of nothing");
        assert_eq!(settle(&mut channel, 0, false), None);
        assert_eq!(channel.tag_unacked(delivered(None)), 5);
    }

    #[test]
    fn one_delivery_that_stays_out_holds_no_memory_for_later_ones() {
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
        assert!(channel.hold_back(1, false, Settle::Ack) && channel.hold_back(2, true, Settle::Reject));
        assert!(!channel.hold_back(1, false, Settle::Ack), "it is held");
        let Mode::Transaction(transaction) = std::mem::take(&mut channel.mode) else { panic!() };
        channel.restore(transaction.settlements);
        assert_eq!(settle(&mut channel, 0, true), Some(3));
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
        settle(&mut channel, 1, false);
        assert!(channel.has_credit(0) && channel.has_credit(1));
    }

    #[test]
    fn a_slot_is_reused_when_its_last_delivery_is_settled() {
        let mut channel = Channel::default();
        let consumer = || ChannelConsumer::new(Bytes::new(), QueueKey(1), false, 1);
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
    fn a_full_window_of_the_channel_stops_those_who_need_not_acknowledge() {
        let mut channel = Channel { global_prefetch_count: 1, ..Channel::default() };
        channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueKey(1), false, 0));
        channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueKey(1), true, 0));
        assert!(channel.has_credit(1));
        channel.tag_unacked(delivered(Some(0)));
        assert!(!channel.has_credit(1));
    }
}

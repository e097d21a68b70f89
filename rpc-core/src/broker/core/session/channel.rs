//! One channel: delivery tags, unacknowledged deliveries, prefetch windows, confirm and transaction mode. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
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
    /// The timer that is set for its deliveries.
    pub(crate) timer: Option<Instant>,
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
    /// How long it may keep a message.
    pub(crate) timeout: Option<Duration>,
    prefetch_count: u16,
    unacked: usize,
    /// How many messages were taken back from it, and are not settled. It is sent nothing meanwhile.
    taken_back: usize,
}

impl ChannelConsumer {
    pub(crate) fn new(tag: Bytes, queue: QueueId, no_ack: bool, prefetch_count: u16) -> Self {
        Self { tag, queue, no_ack, timeout: None, prefetch_count, unacked: 0, taken_back: 0 }
    }

    /// Limits how long it may keep a message, unless that is acknowledged automatically.
    pub(crate) fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout: timeout.filter(|_| !self.no_ack), ..self }
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
                && consumer.taken_back == 0
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

    /// Notes when the message of a delivery is to be taken back. Returns that time if no earlier timer is set.
    pub(crate) fn set_due(&mut self, due: Instant, delivery_tag: u64) -> Option<Instant> {
        self.unacked.set_due(due, delivery_tag);
        self.timer.is_none_or(|timer| due < timer).then_some(due)
    }

    /// Takes at most `max` messages back from consumers that have kept them for too long. Their deliveries remain, empty.
    /// Returns the time when the next one is due.
    pub(crate) fn take_back(&mut self, now: Instant, max: usize) -> (Vec<Delivered>, Option<Instant>) {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(tag) = self.unacked.pop_due(now)
        {
            let held = match &mut self.mode {
                Mode::Transaction(transaction) => transaction.settlements.as_mut_slice(),
                Mode::Plain | Mode::Confirm => &mut [],
            };
            let held = held.iter_mut().map(|(held, _)| held).find(|held| held.delivery_tag == tag);
            let Some(delivered) = self.unacked.get_mut(tag).or(held) else { continue };
            let Some(entry) = delivered.entry.take() else { continue };
            let &mut Delivered { queue, slot, delivery_tag, .. } = delivered;
            if let Some(slot) = slot {
                self.windowed = self.windowed.saturating_sub(1);
                if let Some(Slot::Taken(consumer)) = self.slots.get_mut(slot) {
                    consumer.unacked = consumer.unacked.saturating_sub(1);
                    consumer.taken_back += 1;
                }
            }
            taken.push(Delivered { queue, entry: Some(entry), slot, delivery_tag });
        }
        (taken, self.unacked.next_due())
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
        let is_taken_back = delivered.entry.is_none();
        self.windowed = self.windowed.saturating_sub(usize::from(!is_taken_back));
        match self.slots.get_mut(slot) {
            Some(Slot::Taken(consumer)) if is_taken_back => {
                consumer.taken_back = consumer.taken_back.saturating_sub(1);
            }
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
        let consumer = self.consumer(slot)?;
        let left = match consumer.unacked + consumer.taken_back {
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

    /// How many times are noted at which messages are taken back.
    pub(crate) fn dues_count(&self) -> usize {
        self.unacked.dues_count()
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
        let held = |slot: usize| self.held().filter(move |delivered| delivered.slot == Some(slot));
        let kept = |slot: usize| held(slot).filter(|delivered| delivered.entry.is_some()).count();
        assert_eq!(self.windowed, (0..self.slots.len()).map(kept).sum::<usize>(), "the window");
        for (at, slot) in self.slots.iter().enumerate() {
            let (held, kept) = (held(at).count(), kept(at));
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
                    assert_eq!(
                        (consumer.unacked, consumer.taken_back),
                        (kept, held - kept),
                        "deliveries of a consumer"
                    );
                    let limit = usize::from(consumer.prefetch_count);
                    assert!(limit == 0 || kept <= limit, "a window of {limit} holds {kept}");
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
pub(crate) mod tests;

//! One queue: ready messages in order, and the consumers in line for them.
//!
//! It holds what waits; what was delivered and not acknowledged lies with the channel it was delivered on, and comes
//! back through [`Queue::requeue`] at its original place.
//!
//! ```text
//!  push ──► ready[priority]: place 1, 2, 3, … ──pop──► channel's unacked
//!                    ▲                                      │
//!                    └────────── requeue (by place) ◄───────┘
//! ```

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::types::FieldTable;
use bytes::Bytes;

use super::{
    ConnectionId,
    message::{Entry, Message},
    queue_arguments::QueueArguments,
};

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) exclusive_to: Option<ConnectionId>,
    pub(super) table: FieldTable,
    pub(super) arguments: QueueArguments,
    /// By priority, the highest last; one line for a queue without priorities.
    ready: Vec<VecDeque<Entry>>,
    ready_count: usize,
    ready_bytes: u64,
    next_place: u64,
    /// Delivered and neither acknowledged nor requeued.
    pub(super) unacked: usize,
    /// Highest priority first; the one served last stands last among its equals.
    pub(super) consumers: Vec<Consumer>,
    /// The only one served, on a queue with `x-single-active-consumer`.
    active: Option<(ConnectionId, u16, Bytes)>,
    /// When it was last declared, consumed or got from: `x-expires` counts from here.
    pub(super) last_used: Instant,
    /// The earliest timer set for it.
    pub(super) timer: Option<Instant>,
}

/// A consumer in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) connection: ConnectionId,
    pub(super) channel: u16,
    pub(super) tag: Bytes,
    /// Its place among the channel's consumers.
    pub(super) slot: usize,
    pub(super) priority: i64,
    pub(super) exclusive: bool,
}

impl Consumer {
    fn is(&self, connection: ConnectionId, channel: u16, tag: &[u8]) -> bool {
        self.connection == connection && self.channel == channel && self.tag == tag
    }
}

impl Queue {
    pub(super) fn new(name: Arc<str>, table: FieldTable, arguments: QueueArguments, now: Instant) -> Self {
        let lines = arguments.max_priority.map_or(1, |max| usize::from(max) + 1);
        Self {
            name,
            durable: false,
            auto_delete: false,
            exclusive_to: None,
            table,
            arguments,
            ready: std::iter::repeat_with(VecDeque::new).take(lines).collect(),
            ready_count: 0,
            ready_bytes: 0,
            next_place: 1,
            unacked: 0,
            consumers: Vec::new(),
            active: None,
            last_used: now,
            timer: None,
        }
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready_count
    }

    /// Whether another message, of so many bytes, would be over `x-max-length` or `x-max-length-bytes`.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        let QueueArguments { max_length, max_length_bytes, .. } = self.arguments;
        max_length.is_some_and(|max| self.ready_count as u64 >= max)
            || max_length_bytes.is_some_and(|max| self.ready_bytes + bytes > max)
    }

    /// Whether it holds more than it may.
    pub(super) fn is_over_full(&self) -> bool {
        let QueueArguments { max_length, max_length_bytes, .. } = self.arguments;
        max_length.is_some_and(|max| self.ready_count as u64 > max)
            || max_length_bytes.is_some_and(|max| self.ready_bytes > max)
    }

    /// Gives a new message its place, without putting it there.
    pub(super) fn admit(&mut self, message: &Arc<Message>, now: Instant) -> Entry {
        let place = self.next_place;
        self.next_place += 1;
        let own = message.expiration_ms.map(Duration::from_millis);
        let ttl = match (own, self.arguments.message_ttl) {
            (Some(own), Some(queue)) => Some(own.min(queue)),
            (own, queue) => own.or(queue),
        };
        let expires_at = ttl.and_then(|ttl| now.checked_add(ttl));
        Entry { place, message: Arc::clone(message), redelivered: false, expires_at }
    }

    /// Puts an entry at its place: a new one behind all others, a requeued one where it was.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.ready_count += 1;
        self.ready_bytes += entry.message.body.bytes() as u64;
        let line = self.line_of(&entry.message);
        let line = &mut self.ready[line];
        match line.back() {
            Some(last) if last.place > entry.place => {
                if line.front().is_some_and(|first| first.place > entry.place) {
                    line.push_front(entry);
                } else {
                    let at = line.partition_point(|other| other.place < entry.place);
                    line.insert(at, entry);
                }
            }
            _ => line.push_back(entry),
        }
    }

    /// Takes an unacknowledged entry back.
    pub(super) fn requeue(&mut self, entry: Entry) {
        self.unacked = self.unacked.saturating_sub(1);
        self.insert(Entry { redelivered: true, ..entry });
    }

    /// The entry to deliver next, or to drop from a queue that is too full: RabbitMQ drops from this end, whatever the
    /// priorities.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let line = self.ready.iter().rposition(|line| !line.is_empty())?;
        self.take(line)
    }

    /// Takes out an entry that is past its time, and stands at a head.
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<Entry> {
        let is_overdue = |entry: &Entry| entry.expires_at.is_some_and(|at| at < now);
        let line = self.ready.iter().position(|line| line.front().is_some_and(is_overdue))?;
        self.take(line)
    }

    /// Takes out an entry that is expired and stands at a head.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Entry> {
        let is_expired = |line: &VecDeque<Entry>| line.front().is_some_and(|entry| entry.is_expired(now));
        let line = self.ready.iter().position(is_expired)?;
        self.take(line)
    }

    /// When the first head expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.ready.iter().filter_map(|line| line.front()?.expires_at).min()
    }

    /// Empties it of what is ready.
    pub(super) fn purge(&mut self) -> usize {
        for line in &mut self.ready {
            line.clear();
        }
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready_count)
    }

    /// Puts a consumer in line behind its equals.
    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        let at = self.consumers.partition_point(|other| other.priority >= consumer.priority);
        self.consumers.insert(at, consumer);
    }

    /// Takes a consumer out of the line.
    pub(super) fn remove_consumer(&mut self, connection: ConnectionId, channel: u16, tag: &[u8]) -> Option<Consumer> {
        let at = self.consumers.iter().position(|consumer| consumer.is(connection, channel, tag))?;
        let removed = self.consumers.remove(at);
        if self.active.as_ref().is_some_and(|(c, n, t)| removed.is(*c, *n, t)) {
            self.active = None;
        }
        Some(removed)
    }

    /// The index of the next consumer that `has_credit`, round robin among the highest priority that has any.
    pub(super) fn next_consumer(&mut self, mut has_credit: impl FnMut(&Consumer) -> bool) -> Option<usize> {
        if !self.arguments.single_active_consumer {
            return self.consumers.iter().position(has_credit);
        }
        let active = match &self.active {
            Some((connection, channel, tag)) => {
                self.consumers.iter().position(|consumer| consumer.is(*connection, *channel, tag))?
            }
            None => {
                let first = self.consumers.first()?;
                self.active = Some((first.connection, first.channel, first.tag.clone()));
                0
            }
        };
        has_credit(&self.consumers[active]).then_some(active)
    }

    /// Sends a consumer that was just served to the end of its equals.
    pub(super) fn rotate(&mut self, at: usize) {
        let priority = self.consumers[at].priority;
        let end = self.consumers.partition_point(|other| other.priority >= priority);
        self.consumers[at..end].rotate_left(1);
    }

    fn take(&mut self, line: usize) -> Option<Entry> {
        let entry = self.ready[line].pop_front()?;
        self.ready_count -= 1;
        self.ready_bytes -= entry.message.body.bytes() as u64;
        Some(entry)
    }

    fn line_of(&self, message: &Message) -> usize {
        usize::from(message.priority).min(self.ready.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::core::message::Body;

    fn message(priority: u8) -> Arc<Message> {
        Arc::new(Message {
            exchange: Bytes::new(),
            routing_key: Bytes::new(),
            properties: Bytes::from_static(&[0, 0]),
            body: Body::One([Bytes::from_static(b"four")]),
            priority,
            expiration_ms: None,
        })
    }

    fn queue(arguments: QueueArguments) -> Queue {
        Queue::new("q".into(), FieldTable::default(), arguments, Instant::now())
    }

    fn push(queue: &mut Queue, priority: u8) -> u64 {
        let entry = queue.admit(&message(priority), Instant::now());
        let place = entry.place;
        queue.insert(entry);
        place
    }

    fn consumer(tag: &'static str, priority: i64) -> Consumer {
        Consumer {
            connection: ConnectionId(1),
            channel: 1,
            tag: Bytes::from_static(tag.as_bytes()),
            slot: 0,
            priority,
            exclusive: false,
        }
    }

    #[test]
    fn requeued_entries_return_to_their_places_in_any_order() {
        let mut queue = queue(QueueArguments::default());
        for _ in 0..5 {
            push(&mut queue, 0);
        }
        let mut taken: Vec<_> = (0..3).filter_map(|_| queue.pop()).collect();
        taken.swap(0, 1);
        for entry in taken {
            queue.requeue(entry);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|entry| (entry.place, entry.redelivered)).collect();
        assert_eq!(order, [(1, true), (2, true), (3, true), (4, false), (5, false)]);
        assert_eq!((queue.ready_count(), queue.ready_bytes), (0, 0));
    }

    #[test]
    fn higher_priorities_come_first_and_above_the_maximum_is_the_maximum() {
        let mut queue = queue(QueueArguments { max_priority: Some(5), ..Default::default() });
        let places: Vec<_> = [0, 9, 5, 1].into_iter().map(|priority| push(&mut queue, priority)).collect();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|entry| entry.place).collect();
        assert_eq!(order, [places[1], places[2], places[3], places[0]]);
    }

    #[test]
    fn consumers_take_turns_within_their_priority() {
        let mut queue = queue(QueueArguments::default());
        for (tag, priority) in [("low", 0), ("a", 1), ("b", 1)] {
            queue.add_consumer(consumer(tag, priority));
        }
        let mut turns = Vec::new();
        for _ in 0..4 {
            let at = queue.next_consumer(|_| true).unwrap();
            turns.push(queue.consumers[at].tag.clone());
            queue.rotate(at);
        }
        assert_eq!(turns, ["a", "b", "a", "b"]);
        let at = queue.next_consumer(|consumer| consumer.priority == 0).unwrap();
        assert_eq!(queue.consumers[at].tag, "low");
    }

    #[test]
    fn the_single_active_consumer_stays_until_it_leaves() {
        let mut queue = queue(QueueArguments { single_active_consumer: true, ..Default::default() });
        queue.add_consumer(consumer("a", 0));
        queue.add_consumer(consumer("b", 0));
        for _ in 0..3 {
            let at = queue.next_consumer(|_| true).unwrap();
            assert_eq!(queue.consumers[at].tag, "a");
            queue.rotate(at);
        }
        assert_eq!(queue.next_consumer(|consumer| consumer.tag == "b"), None, "b waits although a has no credit");
        queue.remove_consumer(ConnectionId(1), 1, b"a");
        let at = queue.next_consumer(|_| true).unwrap();
        assert_eq!(queue.consumers[at].tag, "b");
    }

    #[test]
    fn limits_count_what_is_ready() {
        let mut queue = queue(QueueArguments { max_length_bytes: Some(8), ..Default::default() });
        push(&mut queue, 0);
        push(&mut queue, 0);
        assert!(queue.is_full(1) && !queue.is_over_full());
        push(&mut queue, 0);
        assert!(queue.is_over_full());
        queue.pop();
        assert!(!queue.is_over_full());
    }
}

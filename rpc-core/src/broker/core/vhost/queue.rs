//! One queue: its ready messages in order, and its consumers.
//!
//! An unacknowledged message is held by the channel that it was delivered on. [`Queue::requeue`] returns it to its original
//! place.
//!
//! ```text
//!  push ──► ready[priority]: place 1, 2, 3, … ──pop──► channel's unacked
//!                    ▲                                      │
//!                    └────────── requeue (by place) ◄───────┘
//! ```

mod delayed;
mod line;
mod requeue;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::types::FieldTable;

use crate::{
    broker::core::{
        interface::ConnectionId,
        limits::memory::MESSAGE_OVERHEAD_BYTES,
        profile::QueueFacts,
        vhost::{
            arguments::QueueArguments,
            consumers::{Consumer, ConsumerAt, Consumers},
            message::{Entry, Message},
            stream::Stream,
        },
    },
    wire::PropertyReader,
};

use self::delayed::Delayed;
pub(crate) use self::{line::Line, requeue::RequeueReason};

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) exclusive_to: Option<ConnectionId>,
    pub(crate) table: FieldTable,
    pub(crate) arguments: QueueArguments,
    /// The messages of a stream; `None` for another type of queue.
    pub(crate) stream: Option<Box<Stream>>,
    /// A line for each priority, the highest last; one line for a queue without priorities. A quorum queue has one more
    /// line, for messages that were requeued at its head.
    ready: Vec<Line>,
    ready_count: usize,
    ready_bytes: u64,
    next_place: u64,
    /// Requeued messages that wait before they are ready, if the queue's declaration says so.
    delayed: Option<Box<Delayed>>,
    /// Delivered and neither acknowledged nor requeued.
    pub(crate) unacked: usize,
    pub(crate) consumers: Consumers,
    /// When the queue was last declared, consumed from or got from: `x-expires` counts from here.
    pub(crate) last_used: Instant,
    /// The earliest timer set for the queue.
    pub(crate) timer: Option<Instant>,
    /// Whether the timer goes on with what was begun.
    pub(crate) is_due: bool,
    /// Without a consumer it is named in the log when its messages take so much memory.
    warn_bytes: u64,
}

impl Queue {
    pub(crate) fn new(name: Arc<str>, table: FieldTable, arguments: QueueArguments, now: Instant) -> Self {
        let lines = match arguments.max_priority {
            _ if arguments.is_quorum => usize::from(arguments.quorum_priorities.0) + 2,
            max_priority => max_priority.map_or(1, |max| usize::from(max) + 1),
        };
        let single_active_consumer = arguments.single_active_consumer;
        Self {
            name,
            durable: false,
            auto_delete: false,
            exclusive_to: None,
            table,
            stream: arguments.stream.as_deref().copied().map(Stream::new).map(Box::new),
            delayed: arguments.delayed_retry.as_deref().copied().map(Delayed::new).map(Box::new),
            arguments,
            ready: std::iter::repeat_with(Line::default).take(lines).collect(),
            ready_count: 0,
            ready_bytes: 0,
            next_place: 1,
            unacked: 0,
            consumers: Consumers::new(single_active_consumer),
            last_used: now,
            timer: None,
            is_due: false,
            warn_bytes: u64::MAX,
        }
    }

    /// Has it named in the log when it takes so much memory and nothing consumes from it, and again each time that doubles.
    pub(crate) fn warn_from(self, bytes: u64) -> Self {
        Self { warn_bytes: bytes.max(1), ..self }
    }

    /// The memory of its messages, if it is to be named in the log for it now.
    pub(crate) fn growth_to_warn_of(&mut self) -> Option<u64> {
        let bytes = self.ready_bytes + (self.ready_count * MESSAGE_OVERHEAD_BYTES) as u64;
        if bytes < self.warn_bytes || !self.consumers.is_empty() {
            return None;
        }
        self.warn_bytes = bytes.saturating_mul(2);
        Some(bytes)
    }

    /// Whether its `x-expires` has passed.
    pub(crate) fn is_unused(&self, now: Instant) -> bool {
        self.consumers.is_empty() && self.arguments.expires.is_some_and(|expires| self.last_used + expires <= now)
    }

    /// Whether it is exclusive to another connection.
    pub(crate) fn is_locked_for(&self, connection: ConnectionId) -> bool {
        self.exclusive_to.is_some_and(|owner| owner != connection)
    }

    /// How long a consumer may keep a message, if it says nothing itself: as the queue's declaration says, or else at most
    /// `limit`. `None` where there is no such limit.
    pub(crate) fn consumer_timeout(&self, facts: &QueueFacts, limit: Option<Duration>) -> Option<Duration> {
        let is_limited = facts.has_consumer_timeout && self.arguments.is_quorum;
        self.arguments.consumer_timeout.or(limit).filter(|_| is_limited)
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready_count
    }

    /// Whether another message of so many bytes would exceed `x-max-length` or `x-max-length-bytes`.
    pub(crate) fn is_full(&self, bytes: u64) -> bool {
        let QueueArguments { max_length, max_length_bytes, is_quorum, .. } = self.arguments;
        // RabbitMQ's quorum queues check only after the message was added.
        if is_quorum {
            return self.is_over_full();
        }
        max_length.is_some_and(|max| self.ready_count as u64 >= max)
            || max_length_bytes.is_some_and(|max| self.ready_bytes + bytes > max)
    }

    /// Whether it exceeds its limits.
    pub(crate) fn is_over_full(&self) -> bool {
        let QueueArguments { max_length, max_length_bytes, .. } = self.arguments;
        // In RabbitMQ, too, delayed messages count.
        max_length.is_some_and(|max| (self.ready_count + self.delayed_count()) as u64 > max)
            || max_length_bytes.is_some_and(|max| self.ready_bytes + self.delayed_bytes() > max)
    }

    /// Gives a new message its place in the queue, without inserting it.
    pub(crate) fn admit(&mut self, message: &Arc<Message>, now: Instant) -> Entry {
        let place = self.next_place;
        self.next_place += 1;
        let own = message.expiration_ms.map(Duration::from_millis);
        let ttl = match (own, self.arguments.message_ttl) {
            (Some(own), Some(queue)) => Some(own.min(queue)),
            (own, queue) => own.or(queue),
        };
        let expires_at = ttl.and_then(|ttl| now.checked_add(ttl));
        Entry {
            place,
            message: Arc::clone(message),
            delivery_count: 0,
            failed_count: 0,
            is_failed_letter: false,
            expires_at,
        }
    }

    /// Inserts an entry at its place: a new one behind all others, a requeued one where it was.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.ready_count += 1;
        self.ready_bytes += self.arguments.bytes_of(&entry.message);
        let line = self.line_of(&entry.message);
        self.ready[line].insert(entry);
    }

    /// The entry to deliver next.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let line = self.ready.iter().rposition(|line| !line.is_empty())?;
        self.take(line)
    }

    /// Takes out the entry at the head of a line, if it expires now or has expired.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Entry> {
        self.pop_head(|expires_at| expires_at <= now)
    }

    /// Takes out the entry at the head of a line, if it has expired before now. An entry that expires now may still be
    /// delivered: a message with a time to live of 0 reaches a waiting consumer.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<Entry> {
        self.pop_head(|expires_at| expires_at < now)
    }

    fn pop_head(&mut self, is_expired: impl Fn(Instant) -> bool) -> Option<Entry> {
        let is_expired = |line: &Line| line.front()?.expires_at.map(&is_expired);
        let line = self.ready.iter().position(|line| is_expired(line) == Some(true))?;
        self.take(line)
    }

    /// When the first entry at the head of a line expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.ready.iter().filter_map(|line| line.front()?.expires_at).min()
    }

    /// How many requeued messages are not ready yet.
    pub(crate) fn delayed_count(&self) -> usize {
        self.delayed.as_deref().map_or(0, Delayed::len)
    }

    fn delayed_bytes(&self) -> u64 {
        self.delayed.as_ref().map_or(0, |delayed| delayed.bytes)
    }

    /// When the next of them is ready.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.delayed.as_ref()?.next()
    }

    /// Drops ready messages, except those for which `is_kept` holds.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&Message) -> bool) {
        if let Some(delayed) = &mut self.delayed {
            delayed.retain(&mut is_kept, &self.arguments);
        }
        for line in &mut self.ready {
            line.retain(|entry| is_kept(&entry.message));
        }
        let kept = || self.ready.iter().flat_map(Line::iter);
        self.ready_count = kept().count();
        self.ready_bytes = kept().map(|entry| self.arguments.bytes_of(&entry.message)).sum();
    }

    /// Takes out all messages, and returns the number of those that were ready. The caller drops them, outside of the lock if
    /// they are many.
    pub(crate) fn purge(&mut self) -> (usize, impl Iterator<Item = Line>) {
        self.ready_bytes = 0;
        let delayed = self.delayed.as_mut().map(|delayed| delayed.purge());
        let lines = self.ready.iter_mut().map(std::mem::take).chain(delayed);
        (std::mem::take(&mut self.ready_count), lines)
    }

    /// The next delivery: its consumer, and the entry.
    pub(crate) fn next_delivery(&mut self, has_credit: impl FnMut(&Consumer) -> bool) -> Option<(ConsumerAt, Entry)> {
        let at = self.consumers.next(has_credit)?;
        Some((at, self.pop()?))
    }

    /// Reads the next entry of a stream for a consumer.
    pub(crate) fn read_next(&mut self, at: ConsumerAt) -> Option<Entry> {
        self.stream.as_ref()?.read_next(self.consumers.offset_mut(at)?)
    }

    /// Whether a consumer has read all of the stream.
    pub(crate) fn has_read_all(&self, at: ConsumerAt) -> bool {
        self.stream.as_ref().is_none_or(|stream| self.consumers[at].offset >= stream.end())
    }

    fn take(&mut self, line: usize) -> Option<Entry> {
        let entry = self.ready[line].pop_front()?;
        self.ready_count -= 1;
        self.ready_bytes -= self.arguments.bytes_of(&entry.message);
        Some(entry)
    }

    /// Panics unless the counts are right and the messages in order.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        let entries = || self.ready.iter().flat_map(Line::iter);
        assert_eq!(self.ready_count, entries().count(), "ready messages of '{}'", self.name);
        let bytes: u64 = entries().map(|entry| self.arguments.bytes_of(&entry.message)).sum();
        assert_eq!(self.ready_bytes, bytes, "ready bytes of '{}'", self.name);
        let bytes = self.delayed.as_ref().map_or(0, |delayed| delayed.counted_bytes(&self.arguments));
        assert_eq!(self.delayed_bytes(), bytes, "delayed bytes of '{}'", self.name);
        self.ready.iter().for_each(|line| line.check(&self.name));
        self.consumers.check(&self.name);
    }

    /// The messages that are not delivered.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries().map(|entry| &entry.message)
    }

    /// The places of these messages.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn places(&self) -> impl Iterator<Item = u64> {
        self.entries().map(|entry| entry.place)
    }

    #[cfg(any(test, fuzzing))]
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.ready.iter().flat_map(Line::iter).chain(self.delayed.iter().flat_map(|delayed| delayed.iter()))
    }

    fn line_of(&self, message: &Message) -> usize {
        if self.arguments.is_quorum {
            let (max, default) = self.arguments.quorum_priorities;
            // The usual case, without a look into the properties.
            let priority = |message: &Message| PropertyReader::new(message.properties()).priority().unwrap_or(default);
            return if max == 0 { 0 } else { priority(message).min(max).into() };
        }
        usize::from(message.priority).min(self.ready.len() - 1)
    }
}

#[cfg(test)]
mod tests;

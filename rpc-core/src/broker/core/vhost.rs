//! One virtual host: its exchanges, its queues, and the way of a message through them.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use amq_protocol::types::FieldTable;

pub(super) use crate::routing::QueueId as QueueKey;
use crate::{
    routing::{ExchangeOptions, Headers, Router, Routes, table_bytes},
    wire::PropertyReader,
};

use super::{
    ConnectionId, Limits, Now, WORK_MAX,
    dead_letter::{self, Death, Grave},
    memory::{Held, Memory},
    message::{Entry, Message},
    queue::Queue,
    queue_arguments::Overflow,
    session::{Extra, Sessions, text_of},
};

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A virtual host.
#[derive(Debug)]
pub(super) struct Vhost {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    pub(super) router: Router,
    /// What queues, exchanges and bindings take, without those that are there from the start.
    topology: Held,
    queue_bytes: usize,
    start_bytes: usize,
    pub(super) queues: Map<QueueKey, Queue>,
    /// By name, as it comes in a frame.
    pub(super) names: Map<Arc<[u8]>, QueueKey>,
    next_key: u64,
    timers: BinaryHeap<Reverse<(Instant, QueueKey)>>,
    routes: Routes,
    /// Messages on their way to a dead letter exchange.
    dead: VecDeque<Arc<Message>>,
}

impl Vhost {
    pub(super) fn new(name: &str, limits: Limits, memory: &Arc<Memory>) -> Self {
        let mut router = Router::new();
        router.limit_bindings(limits.bindings_per_exchange_max);
        Self {
            name: name.into(),
            limits,
            start_bytes: router.bytes(),
            router,
            topology: Held::nothing_of(memory),
            queue_bytes: 0,
            queues: Map::default(),
            names: Map::default(),
            next_key: 1,
            timers: BinaryHeap::new(),
            routes: Routes::new(),
            dead: VecDeque::new(),
        }
    }

    pub(super) fn add_queue(&mut self, queue: Queue) -> QueueKey {
        let key = QueueKey(self.next_key);
        self.next_key += 1;
        self.queue_bytes += bytes_of(&queue);
        self.router.add_queue(&queue.name, key);
        self.names.insert(Arc::clone(&queue.name).into(), key);
        self.queues.insert(key, queue);
        self.set_timer(key);
        self.count_topology();
        key
    }

    /// Notes what it takes, after whatever may have changed that.
    pub(super) fn count_topology(&mut self) {
        self.topology.set((self.queue_bytes + self.router.bytes()).saturating_sub(self.start_bytes));
    }

    /// Removes a queue: its consumers are told, its messages are gone. Returns how many were ready.
    pub(super) fn delete_queue(&mut self, key: QueueKey, sessions: &mut Sessions) -> usize {
        let Some(mut queue) = self.queues.remove(&key) else {
            return 0;
        };
        self.names.remove(queue.name.as_bytes());
        self.router.remove_queue(key);
        self.queue_bytes -= bytes_of(&queue);
        self.count_topology();
        if let Some(owner) = queue.exclusive_to.and_then(|owner| sessions.get_mut(owner)) {
            owner.exclusive_queues.remove(&key);
        }
        for consumer in queue.consumers() {
            if let Some(channel) = sessions.channel_mut(consumer.connection, consumer.channel) {
                channel.remove_consumer(consumer.slot);
            }
            sessions.cancel_notify(consumer);
        }
        sessions.garbage.extend(queue.stream.take().into_iter().flat_map(|stream| stream.into_entries()));
        let (ready, entries) = queue.purge();
        sessions.garbage.extend(entries);
        ready
    }

    /// Takes a consumer out of its queue, and the queue away if it was an auto-delete queue's last.
    pub(super) fn remove_consumer(
        &mut self,
        key: QueueKey,
        (connection, channel, tag): (ConnectionId, u16, &[u8]),
        now: Now,
        sessions: &mut Sessions,
    ) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if queue.remove_consumer(connection, channel, tag).is_some() {
            self.note_consumers_gone(key, now, sessions);
        }
    }

    /// As [`Vhost::remove_consumer`], for all consumers of a channel.
    pub(super) fn remove_consumers_of(
        &mut self,
        key: QueueKey,
        (connection, channel): (ConnectionId, u16),
        now: Now,
        sessions: &mut Sessions,
    ) {
        if self.queues.get_mut(&key).is_some_and(|queue| queue.remove_consumers_of(connection, channel)) {
            self.note_consumers_gone(key, now, sessions);
        }
    }

    fn note_consumers_gone(&mut self, key: QueueKey, now: Now, sessions: &mut Sessions) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.last_used = now.instant;
        if queue.auto_delete && queue.consumers().is_empty() {
            self.delete_queue(key, sessions);
        } else {
            self.set_timer(key);
        }
    }

    /// Leaves what survives a restart: durable exchanges and queues, their bindings, and persistent messages in them.
    pub(super) fn drop_transient(&mut self, now: Now, sessions: &mut Sessions) {
        let (kept, dropped): (Vec<_>, Vec<_>) = self.queues.keys().copied().partition(|key| self.queues[key].durable);
        for key in dropped {
            self.delete_queue(key, sessions);
        }
        for key in kept {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.retain(|message| PropertyReader::new(message.properties()).delivery_mode() == Some(PERSISTENT));
                queue.last_used = now.instant;
            }
            self.set_timer(key);
        }
        let transient = |(name, options): (&str, &ExchangeOptions)| (!options.durable).then(|| name.to_owned());
        let names: Vec<_> = self.router.exchanges().filter_map(transient).collect();
        for name in names {
            self.router.delete_exchange(&name);
        }
        self.count_topology();
        self.dead.clear();
    }

    /// The queues a message reaches; `work` is what it costs to find them.
    pub(super) fn route(
        &mut self,
        exchange: &str,
        routing_keys: &[&str],
        headers: &dyn Headers,
        work: &mut usize,
    ) -> Option<&[QueueKey]> {
        self.routes.clear();
        self.router.route_all(exchange, routing_keys, headers, &mut self.routes).ok()?;
        *work += self.routes.looks() / LOOKS_PER_MESSAGE;
        Some(self.routes.queues())
    }

    /// Puts a message into a queue; false when the queue refuses it.
    pub(super) fn enqueue(&mut self, key: QueueKey, message: &Arc<Message>, now: Now, sessions: &mut Sessions) -> bool {
        sessions.work += 1;
        let Some(queue) = self.queues.get_mut(&key) else {
            return true;
        };
        if let Some(stream) = &mut queue.stream {
            if queue.arguments.max_length.is_some_and(|max| stream.len() >= max) {
                return false;
            }
            sessions.garbage.extend(stream.push(message, now.instant));
            self.serve(key, now, sessions);
            return true;
        }
        let overflow = queue.arguments.overflow;
        if overflow != Overflow::DropHead && queue.is_full(message.body_bytes() as u64) {
            if overflow == Overflow::RejectPublishDeadLetter {
                let entry = queue.admit(message, now.instant);
                self.bury(key, &entry, Death::MaxLength, now);
            }
            return false;
        }
        let entry = queue.admit(message, now.instant);
        // Whoever waits for it gets it at once: it need not stand in line.
        if queue.ready_count() == 0
            && sessions.injected.is_none()
            && let Some(at) = queue.next_consumer(|consumer| sessions.has_credit(consumer))
        {
            hand_over(queue, (key, at), entry, sessions);
            return true;
        }
        let expires_at = entry.expires_at;
        queue.insert(entry);
        self.serve(key, now, sessions);
        if overflow == Overflow::DropHead {
            self.drop_over_full(key, now);
        }
        if let Some(expires_at) = expires_at {
            if expires_at <= now.instant {
                self.drop_expired(key, now);
            }
            self.set_timer(key);
        }
        true
    }

    pub(super) fn drop_over_full(&mut self, key: QueueKey, now: Now) {
        while let Some(queue) = self.queues.get_mut(&key)
            && queue.is_over_full()
            && let Some(entry) = queue.pop()
        {
            self.bury(key, &entry, Death::MaxLength, now);
        }
    }

    /// Buries what is due at the heads of a queue.
    pub(super) fn drop_expired(&mut self, key: QueueKey, now: Now) {
        self.drop_some_expired(key, &mut { usize::MAX }, now);
    }

    /// As [`Vhost::drop_expired`], no more of them than are `left`; false when there are.
    fn drop_some_expired(&mut self, key: QueueKey, left: &mut usize, now: Now) -> bool {
        while let Some(entry) = self.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
            self.bury(key, &entry, Death::Expired, now);
            *left -= 1;
            if *left == 0 {
                return false;
            }
        }
        true
    }

    /// Delivers what is ready to consumers that have credit, those included who only just got it.
    pub(super) fn deliver(&mut self, key: QueueKey, now: Now, sessions: &mut Sessions) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.unblock(|consumer| sessions.has_credit(consumer));
        }
        self.serve(key, now, sessions);
    }

    /// Delivers what is ready to consumers that are not blocked.
    fn serve(&mut self, key: QueueKey, now: Now, sessions: &mut Sessions) {
        if sessions.are_deliveries_paused() {
            return;
        }
        loop {
            let Some(queue) = self.queues.get_mut(&key) else { return };
            if queue.stream.is_some() {
                return serve_stream(queue, key, sessions);
            }
            if queue.ready_count() == 0 {
                return;
            }
            if let Some(entry) = queue.pop_overdue(now.instant) {
                self.bury(key, &entry, Death::Expired, now);
                continue;
            }
            let Some(at) = queue.next_consumer(|consumer| sessions.has_credit(consumer)) else { return };
            sessions.work += 1;
            let Some(entry) = queue.pop() else { return };
            if sessions.is_duplicated() {
                queue.insert(entry.clone());
            }
            hand_over(queue, (key, at), entry, sessions);
        }
    }

    /// Takes an acknowledged delivery out of its queue's count, and delivers what the freed window has room for.
    pub(super) fn acknowledged(
        &mut self,
        key: QueueKey,
        (connection, channel): (ConnectionId, u16),
        now: Now,
        sessions: &mut Sessions,
    ) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.unacked = queue.unacked.saturating_sub(1);
        queue.unblock(|consumer| {
            (consumer.connection, consumer.channel) == (connection, channel) && sessions.has_credit(consumer)
        });
        if queue.ready_count() > 0 || queue.stream.is_some() {
            self.serve(key, now, sessions);
        }
    }

    /// Takes a message out of its queue for good, by way of the dead letter exchange if it has one.
    pub(super) fn bury(&mut self, key: QueueKey, entry: &Entry, death: Death, now: Now) {
        let Some(queue) = self.queues.get(&key) else { return };
        let Some(exchange) = &queue.arguments.dead_letter_exchange else { return };
        let routing_key = queue.arguments.dead_letter_routing_key.as_deref();
        let grave = Grave { queue: &queue.name, exchange, routing_key, death };
        let message = dead_letter::dead_letter(&entry.message, &grave, now);
        self.dead.push_back(Arc::new(message));
    }

    /// Routes the dead letters; they may bury others.
    #[inline]
    pub(super) fn route_dead(&mut self, now: Now, sessions: &mut Sessions) {
        if !self.dead.is_empty() {
            self.route_all_dead(now, sessions);
        }
    }

    #[cold]
    fn route_all_dead(&mut self, now: Now, sessions: &mut Sessions) {
        // A message dropped from a full queue may push another one out elsewhere: bounded, so that a ring of full
        // queues cannot keep the broker busy.
        for _ in 0..DEAD_LETTERS_PER_STEP {
            let Some(message) = self.dead.pop_front() else { return };
            let exchange = text_of(message.exchange());
            let key = text_of(message.routing_key());
            let keys: Vec<_> = std::iter::once(&*key).chain(dead_letter::carbon_copies(&message)).collect();
            let headers = MessageHeaders(message.properties());
            let Some(queues) = self.route(&exchange, &keys, &headers, &mut sessions.work) else { continue };
            let queues = queues.to_vec();
            for key in queues {
                let is_cycle = self.queues.get(&key).is_some_and(|queue| dead_letter::is_cycle(&message, &queue.name));
                if !is_cycle {
                    self.enqueue(key, &message, now, sessions);
                }
            }
        }
        self.dead.clear();
    }

    /// Sets the queue's timer to whatever happens to it first.
    pub(super) fn set_timer(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let unused = queue.arguments.expires.filter(|_| queue.consumers().is_empty());
        let expiry = unused.and_then(|expires| queue.last_used.checked_add(expires));
        let Some(at) = [queue.next_expiry(), expiry].into_iter().flatten().min() else { return };
        if queue.timer.is_none_or(|timer| at < timer) {
            queue.timer = Some(at);
            self.timers.push(Reverse((at, key)));
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn topology_bytes(&self) -> usize {
        self.topology.bytes()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn dead_messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.dead.iter()
    }

    /// Does what is due, or as much of it as others can wait for: the rest stays due.
    pub(super) fn tick(&mut self, now: Now, sessions: &mut Sessions) {
        let mut left = WORK_MAX;
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now.instant
        {
            self.timers.pop();
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.timer = None;
            if !self.drop_some_expired(key, &mut left, now) {
                self.set_timer(key);
                break;
            }
            let is_unused = self.queues.get(&key).is_some_and(|queue| {
                queue.consumers().is_empty()
                    && queue.arguments.expires.is_some_and(|expires| queue.last_used + expires <= now.instant)
            });
            if is_unused {
                self.delete_queue(key, sessions);
            } else {
                self.set_timer(key);
            }
        }
        self.route_dead(now, sessions);
    }
}

/// Delivers an entry to the consumer at an index, who then stands at the end of the line.
fn hand_over(queue: &mut Queue, (key, at): (QueueKey, usize), entry: Entry, sessions: &mut Sessions) {
    // RabbitMQ does not tell consumers that it was never.
    let is_counted = queue.arguments.is_quorum && entry.is_redelivered();
    let extra = if is_counted { Extra::DeliveryCount } else { Extra::Nothing };
    if sessions.deliver(&queue.consumers()[at], key, entry, extra) {
        queue.unacked += 1;
    }
    queue.rotate(at);
}

/// What a queue without messages takes, more or less: itself, its places in maps, its name and its arguments.
fn bytes_of(queue: &Queue) -> usize {
    size_of::<Queue>() + QUEUE_OVERHEAD_BYTES + queue.name.len() + table_bytes(&queue.table)
}

/// Delivers what a stream's consumers have not read, as far as they have credit.
fn serve_stream(queue: &mut Queue, key: QueueKey, sessions: &mut Sessions) {
    for at in 0..queue.consumers().len() {
        while sessions.has_credit(&queue.consumers()[at])
            && let Some((consumer, stream)) = queue.consumer_mut(at)
            && let Some(entry) = stream.read_next(consumer)
        {
            sessions.work += 1;
            if sessions.deliver(&queue.consumers()[at], key, entry, Extra::StreamOffset) {
                queue.unacked += 1;
            }
        }
    }
}

/// Headers that are decoded only when a headers exchange asks for them.
pub(super) struct MessageHeaders<'a>(pub(super) &'a [u8]);

impl Headers for MessageHeaders<'_> {
    fn table(&self) -> Option<Cow<'_, FieldTable>> {
        PropertyReader::new(self.0).headers().map(Cow::Owned)
    }
}

/// So many bindings are compared while one message is moved.
const LOOKS_PER_MESSAGE: usize = 16;
const QUEUE_OVERHEAD_BYTES: usize = 300;
/// The delivery mode of what survives a restart.
const PERSISTENT: u8 = 2;
/// More than any sane chain of dead letter exchanges moves at once.
const DEAD_LETTERS_PER_STEP: usize = 100_000;

//! One virtual host: its exchanges, its queues, and the way of a message through them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, LongString};
use bytes::Bytes;

pub(super) use crate::routing::QueueId as QueueKey;
use crate::{
    routing::{Headers, Router, Routes},
    wire::{PropertyReader, PropertyWriter},
};

use super::{
    ConnectionId, Now,
    message::{Body, Entry, Message},
    queue::Queue,
    queue_arguments::Overflow,
    session::{Sessions, name_of},
};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A virtual host.
#[derive(Debug)]
pub(super) struct Vhost {
    pub(super) name: Arc<str>,
    pub(super) router: Router,
    pub(super) queues: Map<QueueKey, Queue>,
    pub(super) names: Map<Arc<str>, QueueKey>,
    next_key: u64,
    timers: BinaryHeap<Reverse<(Instant, QueueKey)>>,
    routes: Routes,
    /// Messages on their way to a dead letter exchange.
    dead: VecDeque<(String, Arc<Message>)>,
}

/// Why a message leaves a queue for a dead letter exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Rejected,
    Expired,
    MaxLength,
}

impl Death {
    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

impl Vhost {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            router: Router::new(),
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
        self.router.add_queue(&queue.name, key);
        self.names.insert(Arc::clone(&queue.name), key);
        self.queues.insert(key, queue);
        self.set_timer(key);
        key
    }

    /// Removes a queue: its consumers are told, its messages are gone. Returns how many were ready.
    pub(super) fn delete_queue(&mut self, key: QueueKey, sessions: &mut Sessions) -> usize {
        let Some(queue) = self.queues.remove(&key) else {
            return 0;
        };
        self.names.remove(&queue.name);
        self.router.remove_queue(key);
        for consumer in &queue.consumers {
            if let Some(channel) = sessions.channel_mut(consumer.connection, consumer.channel) {
                channel.remove_consumer(consumer.slot);
            }
            sessions.cancel_notify(consumer);
        }
        queue.ready_count()
    }

    /// The queues a message reaches.
    pub(super) fn route(
        &mut self,
        exchange: &str,
        routing_keys: &[&str],
        headers: &dyn Headers,
    ) -> Option<&[QueueKey]> {
        self.routes.clear();
        self.router.route_all(exchange, routing_keys, headers, &mut self.routes).ok()?;
        Some(self.routes.queues())
    }

    /// Puts a message into a queue; false when the queue refuses it.
    pub(super) fn enqueue(&mut self, key: QueueKey, message: &Arc<Message>, now: Now, sessions: &mut Sessions) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return true;
        };
        let overflow = queue.arguments.overflow;
        if overflow != Overflow::DropHead && queue.is_full(message.body.bytes() as u64) {
            if overflow == Overflow::RejectPublishDeadLetter {
                let entry = queue.admit(message, now.instant);
                self.bury(key, &entry, Death::MaxLength, now);
            }
            return false;
        }
        let entry = queue.admit(message, now.instant);
        let has_deadline = entry.expires_at.is_some();
        queue.insert(entry);
        self.deliver(key, now, sessions);
        self.drop_over_full(key, now);
        if has_deadline {
            // With a TTL of 0 it is for those who wait already, and nobody else.
            while let Some(entry) = self.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
                self.bury(key, &entry, Death::Expired, now);
            }
            self.set_timer(key);
        }
        true
    }

    /// Drops from the head what is over the queue's limits, unless it is of those that refuse publishes instead.
    pub(super) fn drop_over_full(&mut self, key: QueueKey, now: Now) {
        while let Some(queue) = self.queues.get_mut(&key)
            && queue.arguments.overflow == Overflow::DropHead
            && queue.is_over_full()
            && let Some(entry) = queue.pop()
        {
            self.bury(key, &entry, Death::MaxLength, now);
        }
    }

    /// Delivers what is ready to consumers that have credit.
    pub(super) fn deliver(&mut self, key: QueueKey, now: Now, sessions: &mut Sessions) {
        loop {
            let Some(queue) = self.queues.get_mut(&key) else { return };
            if queue.ready_count() == 0 {
                return;
            }
            if let Some(entry) = queue.pop_overdue(now.instant) {
                self.bury(key, &entry, Death::Expired, now);
                continue;
            }
            let Some(at) = queue.next_consumer(|consumer| sessions.has_credit(consumer)) else { return };
            let Some(entry) = queue.pop() else { return };
            if sessions.deliver(&queue.consumers[at], key, entry) {
                queue.unacked += 1;
            }
            queue.rotate(at);
        }
    }

    /// Gives an entry back to its queue.
    pub(super) fn requeue(&mut self, key: QueueKey, entry: Entry) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.requeue(entry);
            self.set_timer(key);
        }
    }

    /// Takes a message out of its queue for good, by way of the dead letter exchange if it has one.
    pub(super) fn bury(&mut self, key: QueueKey, entry: &Entry, death: Death, now: Now) {
        let Some(queue) = self.queues.get(&key) else { return };
        let Some(exchange) = &queue.arguments.dead_letter_exchange else { return };
        let key = queue.arguments.dead_letter_routing_key.as_deref();
        let message = dead_letter(&entry.message, &queue.name, exchange, key, death, now);
        self.dead.push_back((exchange.clone(), Arc::new(message)));
    }

    /// Routes the dead letters; they may bury others.
    pub(super) fn route_dead(&mut self, now: Now, sessions: &mut Sessions) {
        // A message dropped from a full queue may push another one out elsewhere: bounded, so that a ring of full
        // queues cannot keep the broker busy.
        for _ in 0..DEAD_LETTERS_PER_STEP {
            let Some((exchange, message)) = self.dead.pop_front() else { return };
            let headers = MessageHeaders(&message.properties);
            let copies = copies_of(&message.properties);
            let mut keys = vec![name_of(&message.routing_key)];
            keys.extend(copies.iter().map(String::as_str));
            let Some(queues) = self.route(&exchange, &keys, &headers) else { continue };
            let queues = queues.to_vec();
            for key in queues {
                let is_cycle = self.queues.get(&key).is_some_and(|queue| is_cycle(&message, &queue.name));
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
        let unused = queue.arguments.expires.filter(|_| queue.consumers.is_empty());
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

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Now, sessions: &mut Sessions) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now.instant
        {
            self.timers.pop();
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.timer = None;
            while let Some(entry) = self.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
                self.bury(key, &entry, Death::Expired, now);
            }
            let is_unused = self.queues.get(&key).is_some_and(|queue| {
                queue.consumers.is_empty()
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

    /// The exclusive queues of a connection.
    pub(super) fn exclusive_to(&self, connection: ConnectionId) -> Vec<QueueKey> {
        let mut keys: Vec<_> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.exclusive_to == Some(connection))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }
}

/// Headers that are decoded only when a headers exchange asks for them.
pub(super) struct MessageHeaders<'a>(pub(super) &'a Bytes);

impl Headers for MessageHeaders<'_> {
    fn table(&self) -> Option<std::borrow::Cow<'_, FieldTable>> {
        PropertyReader::new(self.0).headers().map(std::borrow::Cow::Owned)
    }
}

/// The copy that goes to the dead letter exchange.
fn dead_letter(
    message: &Message,
    queue: &str,
    exchange: &str,
    routing_key: Option<&str>,
    death: Death,
    now: Now,
) -> Message {
    let reader = PropertyReader::new(&message.properties);
    let mut headers = reader.headers().unwrap_or_default();
    let mut keys = vec![AMQPValue::LongString(LongString::from(&message.routing_key[..]))];
    for name in ["CC", "BCC"] {
        if let Some(AMQPValue::FieldArray(more)) = headers.inner().get(name) {
            keys.extend(more.as_slice().iter().cloned());
        }
    }
    let text = |text: &str| AMQPValue::LongString(text.as_bytes().into());
    let mut deaths: Vec<FieldTable> = match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().iter().filter_map(as_table).cloned().collect(),
        _ => Vec::new(),
    };
    let is_same = |table: &FieldTable| {
        table.inner().get("queue") == Some(&text(queue)) && table.inner().get("reason") == Some(&text(death.name()))
    };
    let entry = match deaths.iter().position(is_same) {
        Some(at) => {
            let mut entry = deaths.remove(at);
            let count = match entry.inner().get("count") {
                Some(AMQPValue::LongLongInt(count)) => count + 1,
                _ => 1,
            };
            entry.insert("count".into(), AMQPValue::LongLongInt(count));
            entry
        }
        None => {
            let mut entry = FieldTable::default();
            entry.insert("count".into(), AMQPValue::LongLongInt(1));
            entry.insert("reason".into(), text(death.name()));
            entry.insert("queue".into(), text(queue));
            entry.insert("time".into(), AMQPValue::Timestamp(now.unix_s));
            entry.insert("exchange".into(), AMQPValue::LongString(LongString::from(&message.exchange[..])));
            entry.insert("routing-keys".into(), AMQPValue::FieldArray(FieldArray::from(keys)));
            if let Some(expiration) = reader.expiration() {
                entry.insert("original-expiration".into(), AMQPValue::LongString(expiration.into()));
            }
            entry
        }
    };
    deaths.insert(0, entry);
    if routing_key.is_some() {
        // A new key stands for all the old ones.
        headers = without(&headers, "CC");
    }
    if !headers.contains_key("x-death") && !headers.contains_key("x-first-death-queue") {
        headers.insert("x-first-death-exchange".into(), AMQPValue::LongString(LongString::from(&message.exchange[..])));
        headers.insert("x-first-death-queue".into(), text(queue));
        headers.insert("x-first-death-reason".into(), text(death.name()));
    }
    let deaths: Vec<_> = deaths.into_iter().map(AMQPValue::FieldTable).collect();
    headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(deaths)));
    let properties = PropertyWriter::new(&message.properties).headers(Some(headers)).without_expiration().write();
    let mut body = Body::default();
    for part in message.body.parts() {
        body.push(part.clone());
    }
    Message {
        exchange: Bytes::copy_from_slice(exchange.as_bytes()),
        routing_key: routing_key
            .map_or_else(|| message.routing_key.clone(), |key| Bytes::copy_from_slice(key.as_bytes())),
        properties,
        body,
        priority: message.priority,
        expiration_ms: None,
    }
}

/// RabbitMQ: a message that comes back to a queue it died in is dropped, unless a client rejected it on the way.
fn is_cycle(message: &Message, queue: &str) -> bool {
    let Some(headers) = PropertyReader::new(&message.properties).headers() else {
        return false;
    };
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return false;
    };
    let field = |table: &FieldTable, name: &str, wanted: &str| matches!(table.inner().get(name), Some(AMQPValue::LongString(text)) if text.as_bytes() == wanted.as_bytes());
    let deaths: Vec<_> = deaths.as_slice().iter().filter_map(as_table).collect();
    let Some(at) = deaths.iter().position(|death| field(death, "queue", queue)) else {
        return false;
    };
    !deaths[..=at].iter().any(|death| field(death, "reason", Death::Rejected.name()))
}

/// The keys in CC, of a message that was checked when it came in.
fn copies_of(properties: &Bytes) -> Vec<String> {
    let reader = PropertyReader::new(properties);
    let headers = reader.headers().filter(|_| reader.may_have_copies());
    let Some(AMQPValue::FieldArray(keys)) = headers.as_ref().and_then(|headers| headers.inner().get("CC")) else {
        return Vec::new();
    };
    let text = |key: &AMQPValue| match key {
        AMQPValue::LongString(key) => Some(String::from_utf8_lossy(key.as_bytes()).into_owned()),
        _ => None,
    };
    keys.as_slice().iter().filter_map(text).collect()
}

fn without(table: &FieldTable, name: &str) -> FieldTable {
    let mut kept = FieldTable::default();
    for (key, value) in table.inner().iter().filter(|(key, _)| key.as_str() != name) {
        kept.insert(key.clone(), value.clone());
    }
    kept
}

fn as_table(value: &AMQPValue) -> Option<&FieldTable> {
    match value {
        AMQPValue::FieldTable(table) => Some(table),
        _ => None,
    }
}

/// More than any sane chain of dead letter exchanges moves at once.
const DEAD_LETTERS_PER_STEP: usize = 100_000;

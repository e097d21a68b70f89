//! One virtual host: its exchanges, its queues and their timers. It knows no connections: the `delivery` folder does.

pub(crate) mod arguments;
pub(crate) mod dead_letter;
pub(crate) mod field_values;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod stream;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use amq_protocol::types::FieldTable;

use self::{
    dead_letter::{Death, Grave, dead_letter},
    message::{Entry, Message},
    queue::Queue,
};
use super::{
    fault::Fault,
    interface::{ConnectionId, Now},
    limits::memory::{Held, Memory},
    rules::Limits,
};
use crate::{
    routing::{Headers, QueueId, Router, Routes, table_bytes},
    wire::PropertyReader,
};

/// A map whose keys the broker chooses or bounds, so that its hash need not resist attacks.
pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A virtual host.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) router: Router,
    pub(crate) queues: Map<QueueId, Queue>,
    /// By the name's bytes, as they are in a frame.
    pub(crate) names: Map<Arc<[u8]>, QueueId>,
    /// Messages on their way to a dead letter exchange.
    pub(crate) dead: VecDeque<Arc<Message>>,
    /// By time, the earliest first. A queue may have several; [`Queue::timer`] is the one that counts.
    pub(crate) timers: BinaryHeap<Reverse<(Instant, QueueId)>>,
    /// The memory of queues, exchanges and bindings, apart from the exchanges that every vhost has.
    topology: Held,
    queue_bytes: usize,
    start_bytes: usize,
    next_key: u64,
    routes: Routes,
}

impl Vhost {
    pub(crate) fn new(name: &str, limits: Limits, memory: &Arc<Memory>) -> Self {
        let mut router = Router::new();
        router.limit_bindings(limits.bindings_per_exchange_max);
        Self {
            name: name.into(),
            limits,
            start_bytes: router.bytes(),
            router,
            queues: Map::default(),
            names: Map::default(),
            dead: VecDeque::new(),
            timers: BinaryHeap::new(),
            topology: Held::nothing_of(memory),
            queue_bytes: 0,
            next_key: 1,
            routes: Routes::new(),
        }
    }

    pub(crate) fn add_queue(&mut self, queue: Queue) -> QueueId {
        let key = QueueId(self.next_key);
        self.next_key += 1;
        self.queue_bytes += bytes_of(&queue);
        self.router.add_queue(&queue.name, key);
        self.names.insert(Arc::clone(&queue.name).into(), key);
        self.queues.insert(key, queue);
        self.set_timer(key);
        self.count_topology();
        key
    }

    /// Takes out a queue and its bindings.
    pub(crate) fn take_queue(&mut self, key: QueueId) -> Option<Queue> {
        let queue = self.queues.remove(&key)?;
        self.names.remove(queue.name.as_bytes());
        self.router.remove_queue(key);
        self.queue_bytes -= bytes_of(&queue);
        self.count_topology();
        Some(queue)
    }

    /// Counts the topology's memory again, after a method that may have changed it.
    pub(crate) fn count_topology(&mut self) {
        self.topology.set((self.queue_bytes + self.router.bytes()).saturating_sub(self.start_bytes));
    }

    /// The id of a queue that exists and is not exclusive to another connection.
    pub(crate) fn accessible(&self, name: &str, connection: ConnectionId) -> Result<QueueId, Fault> {
        let Some(key) = self.names.get(name.as_bytes()) else {
            return Err(Fault::no_queue(name, &self.name));
        };
        match self.queues.get(key).and_then(|queue| queue.exclusive_to) {
            Some(owner) if owner != connection => Err(Fault::locked(name, &self.name)),
            _ => Ok(*key),
        }
    }

    /// Finds the queues of a message, or `None` without the exchange. Adds the cost of finding them to `work`.
    pub(crate) fn route(
        &mut self,
        exchange: &str,
        routing_keys: &[&str],
        headers: &dyn Headers,
        work: &mut usize,
    ) -> Option<&[QueueId]> {
        self.routes.clear();
        self.router.route_all(exchange, routing_keys, headers, &mut self.routes).ok()?;
        *work += self.routes.looks() / LOOKS_PER_MESSAGE;
        Some(self.routes.queues())
    }

    /// Drops messages from the head of a queue until it is within its limits.
    pub(crate) fn drop_over_full(&mut self, key: QueueId, now: Now) {
        while let Some(queue) = self.queues.get_mut(&key)
            && queue.is_over_full()
            && let Some(entry) = queue.pop()
        {
            self.bury(key, &entry, Death::MaxLength, now);
        }
    }

    /// Drops expired messages from the head of a queue.
    pub(crate) fn drop_expired(&mut self, key: QueueId, now: Now) {
        self.drop_some_expired(key, &mut { usize::MAX }, now);
    }

    /// As [`Vhost::drop_expired`], but at most `left` messages. Returns false if there are more.
    pub(crate) fn drop_some_expired(&mut self, key: QueueId, left: &mut usize, now: Now) -> bool {
        while let Some(entry) = self.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
            self.bury(key, &entry, Death::Expired, now);
            *left -= 1;
            if *left == 0 {
                return false;
            }
        }
        true
    }

    /// Dead-letters a message that was taken out of its queue, if the queue has a dead letter exchange.
    pub(crate) fn bury(&mut self, key: QueueId, entry: &Entry, death: Death, now: Now) {
        let Some(queue) = self.queues.get(&key) else { return };
        let Some(exchange) = &queue.arguments.dead_letter_exchange else { return };
        let routing_key = queue.arguments.dead_letter_routing_key.as_deref();
        let grave = Grave { queue: &queue.name, exchange, routing_key, death };
        let message = dead_letter(&entry.message, &grave, now);
        self.dead.push_back(Arc::new(message));
    }

    /// Sets a queue's timer to its next event: a message expires, or the queue does.
    pub(crate) fn set_timer(&mut self, key: QueueId) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let unused = queue.arguments.expires.filter(|_| queue.consumers().is_empty());
        let expiry = unused.and_then(|expires| queue.last_used.checked_add(expires));
        let Some(at) = [queue.next_expiry(), expiry].into_iter().flatten().min() else { return };
        if queue.timer.is_none_or(|timer| at < timer) {
            queue.timer = Some(at);
            self.timers.push(Reverse((at, key)));
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn topology_bytes(&self) -> usize {
        self.topology.bytes()
    }
}

/// The approximate memory of a queue without its messages: itself, its places in maps, its name and its arguments.
fn bytes_of(queue: &Queue) -> usize {
    size_of::<Queue>() + QUEUE_OVERHEAD_BYTES + queue.name.len() + table_bytes(&queue.table)
}

/// A message's headers, decoded only if a headers exchange asks for them.
pub(crate) struct MessageHeaders<'a>(pub(crate) &'a [u8]);

impl Headers for MessageHeaders<'_> {
    fn table(&self) -> Option<Cow<'_, FieldTable>> {
        PropertyReader::new(self.0).headers().map(Cow::Owned)
    }
}

/// Comparing this many bindings costs as much as moving one message.
const LOOKS_PER_MESSAGE: usize = 16;
const QUEUE_OVERHEAD_BYTES: usize = 300;

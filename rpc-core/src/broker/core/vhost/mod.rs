//! One virtual host: its exchanges, its queues and their timers. It knows no connections: the `delivery` folder does.

pub(crate) mod arguments;
pub(crate) mod consumers;
pub(crate) mod dead_letter;
pub(crate) mod field_values;
pub(crate) mod live_queue;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod route;
pub(crate) mod stream;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use amq_protocol::types::FieldTable;

use self::{
    consumers::Leaving,
    live_queue::{LiveQueue, Timers},
    message::Message,
    queue::Queue,
    route::{PausedSearches, ROUTE_STEPS_MAX},
};
use super::{
    fault::Fault,
    interface::ConnectionId,
    limits::memory::{Held, Memory},
    profile::Facts,
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
    pub(crate) facts: &'static Facts,
    pub(crate) router: Router,
    pub(crate) queues: Map<QueueId, Queue>,
    /// By the name's bytes, as they are in a frame.
    pub(crate) names: Map<Arc<[u8]>, QueueId>,
    /// Messages on their way to a dead letter exchange.
    pub(crate) dead: VecDeque<Arc<Message>>,
    /// When the rest of them is routed, if that has paused.
    pub(crate) dead_due: Option<Instant>,
    /// The queues of the first of them, and how many of these have it, if that has paused.
    pub(crate) dead_targets: Option<(Vec<QueueId>, usize)>,
    /// The consumers of queues that were deleted, which are still to be cancelled.
    pub(crate) cancelling: VecDeque<(QueueId, Leaving)>,
    /// When the rest of the queues and exchanges that were deleted is removed, if that has paused.
    pub(crate) sweep_due: Option<Instant>,
    /// A queue may have several; [`Queue::timer`] is the one that counts.
    pub(crate) timers: Timers,
    /// The memory of queues, exchanges and bindings, apart from the exchanges that every vhost has.
    topology: Held,
    queue_bytes: usize,
    start_bytes: usize,
    next_key: u64,
    routes: Routes,
    pub(crate) paused: PausedSearches,
    pub(crate) route_steps_max: usize,
}

impl Vhost {
    pub(crate) fn new(name: &str, limits: Limits, facts: &'static Facts, memory: &Arc<Memory>) -> Self {
        let mut router = Router::new();
        router.limit_bindings(limits.bindings_per_exchange_max);
        router.limit_hashes(facts.binding_hashes_max);
        router.tell_numbers_apart(!facts.integers_match_floats);
        Self {
            name: name.into(),
            limits,
            facts,
            start_bytes: router.bytes(),
            router,
            queues: Map::default(),
            names: Map::default(),
            dead: VecDeque::new(),
            dead_due: None,
            dead_targets: None,
            cancelling: VecDeque::new(),
            sweep_due: None,
            timers: Timers::new(),
            topology: Held::nothing_of(memory),
            queue_bytes: 0,
            next_key: 1,
            routes: Routes::new(),
            paused: PausedSearches::new(),
            route_steps_max: ROUTE_STEPS_MAX,
        }
    }

    pub(crate) fn add_queue(&mut self, queue: Queue) -> QueueId {
        let mut queue = queue.warn_from(self.limits.memory_high_watermark / QUEUE_SHARE);
        let key = QueueId(self.next_key);
        self.next_key += 1;
        self.queue_bytes += bytes_of(&queue);
        self.router.add_queue(&queue.name, key);
        self.names.insert(Arc::clone(&queue.name).into(), key);
        let (vhost, dead, timers) = (&*self.name, &mut self.dead, &mut self.timers);
        LiveQueue { key, queue: &mut queue, vhost, facts: self.facts, dead, timers }.set_timer();
        self.queues.insert(key, queue);
        self.count_topology();
        key
    }

    /// Takes out a queue. [`Vhost::sweep`] removes its bindings.
    pub(crate) fn take_queue(&mut self, key: QueueId) -> Option<Queue> {
        let queue = self.queues.remove(&key)?;
        self.names.remove(queue.name.as_bytes());
        self.router.begin_remove_queue(key);
        self.queue_bytes -= bytes_of(&queue);
        self.count_topology();
        Some(queue)
    }

    /// Counts the topology's memory again, after a method that may have changed it.
    pub(crate) fn count_topology(&mut self) {
        self.topology.set((self.queue_bytes + self.router.bytes()).saturating_sub(self.start_bytes));
    }

    /// The queue with an id, unless it was deleted.
    #[inline]
    pub(crate) fn live(&mut self, key: QueueId) -> Option<LiveQueue<'_>> {
        let Self { name, facts, queues, dead, timers, .. } = self;
        queues.get_mut(&key).map(|queue| LiveQueue { key, queue, vhost: name, facts, dead, timers })
    }

    /// The queue with a name.
    pub(crate) fn find(&mut self, name: &str) -> Option<LiveQueue<'_>> {
        let key = *self.names.get(name.as_bytes())?;
        self.live(key)
    }

    /// The queue with a name, unless it is exclusive to another connection.
    pub(crate) fn accessible(&mut self, name: &str, connection: ConnectionId) -> Result<LiveQueue<'_>, Fault> {
        let Self { name: vhost, facts, names, queues, dead, timers, .. } = self;
        match names.get(name.as_bytes()).and_then(|key| Some((*key, queues.get_mut(key)?))) {
            None => Err(Fault::no_queue(name, vhost)),
            Some((_, queue)) if queue.is_locked_for(connection) => Err(Fault::locked(name, vhost)),
            Some((key, queue)) => Ok(LiveQueue { key, queue, vhost, facts, dead, timers }),
        }
    }

    /// Moves queues to `held`, the queues that serve no consumer until [`Vhost::resume`]: older messages are still to be requeued.
    pub(crate) fn hold(&mut self, keys: &mut Vec<QueueId>, held: &mut BTreeSet<QueueId>) {
        for key in keys.drain(..) {
            if let Some(queue) = self.queues.get_mut(&key)
                && held.insert(key)
            {
                queue.consumers.hold();
            }
        }
    }

    pub(crate) fn resume(&mut self, held: QueueId) {
        if let Some(queue) = self.queues.get_mut(&held) {
            queue.consumers.resume();
        }
    }

    /// Resumes all queues that are held, and moves them back.
    pub(crate) fn resume_all(&mut self, held: &mut BTreeSet<QueueId>, keys: &mut Vec<QueueId>) {
        for key in std::mem::take(held) {
            self.resume(key);
            keys.push(key);
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let queue = self.timers.peek().map(|Reverse((at, _))| *at);
        queue.into_iter().chain(self.dead_due).chain(self.sweep_due).min()
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

/// A queue without a consumer is named in the log from this part of the memory on.
const QUEUE_SHARE: u64 = 16;
const QUEUE_OVERHEAD_BYTES: usize = 300;

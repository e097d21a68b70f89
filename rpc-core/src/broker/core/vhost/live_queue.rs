//! A queue in its vhost: the operations of a queue that also bury messages or set timers.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::Instant,
};

use crate::{
    broker::core::{
        interface::Now,
        profile::Facts,
        vhost::{
            arguments::Overflow,
            dead_letter::{Death, Grave, dead_letter},
            message::{Entry, Message},
            queue::Queue,
        },
    },
    routing::QueueId,
};

/// Timed events of a vhost's queues, the earliest first.
pub(crate) type Timers = BinaryHeap<Reverse<(Instant, QueueId)>>;

/// A queue that exists, and the parts of its vhost that it works on: found once, so that no step has to find it again.
#[derive(Debug)]
pub(crate) struct LiveQueue<'a> {
    pub(crate) key: QueueId,
    pub(crate) queue: &'a mut Queue,
    /// The vhost's name.
    pub(crate) vhost: &'a str,
    pub(crate) facts: &'static Facts,
    /// The vhost's messages on their way to a dead letter exchange.
    pub(crate) dead: &'a mut VecDeque<Arc<Message>>,
    pub(crate) timers: &'a mut Timers,
}

impl LiveQueue<'_> {
    /// Drops messages from the head until the queue is within its limits. If they are many, the rest is due.
    pub(crate) fn drop_over_full(&mut self, now: Now) {
        self.drop_some_over_full(&mut { DROPPED_AT_ONCE_MAX }, now);
    }

    /// As [`LiveQueue::drop_over_full`], but at most `left` messages.
    pub(crate) fn drop_some_over_full(&mut self, left: &mut usize, now: Now) {
        while self.queue.is_over_full() && self.queue.arguments.overflow == Overflow::DropHead {
            if *left == 0 {
                return self.go_on_at(now);
            }
            let Some(entry) = self.queue.pop() else { return };
            *left -= 1;
            self.bury(&entry, Death::MaxLength, now);
        }
    }

    /// Has the timer go on with what was begun, as soon as others have had the lock.
    pub(crate) fn go_on_at(&mut self, now: Now) {
        self.queue.is_due = true;
        self.queue.timer = Some(now.instant);
        self.timers.push(Reverse((now.instant, self.key)));
    }

    /// Drops expired messages from the head.
    pub(crate) fn drop_expired(&mut self, now: Now) {
        self.drop_some_expired(&mut { usize::MAX }, now);
    }

    /// As [`LiveQueue::drop_expired`], but at most `left` messages.
    pub(crate) fn drop_some_expired(&mut self, left: &mut usize, now: Now) {
        while *left > 0
            && let Some(entry) = self.queue.pop_expired(now.instant)
        {
            self.bury(&entry, Death::Expired, now);
            *left -= 1;
        }
    }

    /// Dead-letters a message that was taken out of the queue, if the queue has a dead letter exchange.
    pub(crate) fn bury(&mut self, entry: &Entry, death: Death, now: Now) {
        let arguments = &self.queue.arguments;
        if let Some(exchange) = &arguments.dead_letter_exchange {
            let routing_key = arguments.dead_letter_routing_key.as_deref();
            let grave = Grave { queue: &self.queue.name, exchange, routing_key, death, facts: &self.facts.letters };
            self.dead.push_back(Arc::new(dead_letter(entry, &grave, now)));
        }
    }

    /// Sets the timer to the next event: a message expires, one that was delayed is ready, or the queue expires.
    pub(crate) fn set_timer(&mut self) {
        let queue = &mut *self.queue;
        let unused = queue.arguments.expires.filter(|_| queue.consumers.is_empty());
        let expiry = unused.and_then(|expires| queue.last_used.checked_add(expires));
        if let Some(at) = [queue.next_expiry(), queue.next_return(), expiry].into_iter().flatten().min()
            && queue.timer.is_none_or(|timer| at < timer)
        {
            queue.timer = Some(at);
            self.timers.push(Reverse((at, self.key)));
        }
    }
}

const DROPPED_AT_ONCE_MAX: usize = 1_024;

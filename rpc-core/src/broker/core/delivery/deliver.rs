//! Messages enter queues and are delivered to consumers.

use std::sync::Arc;

use crate::{
    broker::core::{
        interface::Now,
        session::{output::Extra, sessions::Sessions},
        vhost::{
            Vhost,
            arguments::Overflow,
            consumers::{ConsumerAt, Regained},
            dead_letter::Death,
            live_queue::LiveQueue,
            message::{Entry, Message},
            queue::{Line, Queue},
        },
    },
    printable::printable,
    routing::QueueId,
};

impl Vhost {
    /// Puts a message into a queue. Returns false if the queue refuses it.
    pub(crate) fn enqueue(&mut self, key: QueueId, message: &Arc<Message>, now: Now, sessions: &mut Sessions) -> bool {
        sessions.work += 1;
        self.live(key).is_none_or(|mut live| live.enqueue(message, now, sessions))
    }

    /// Delivers ready messages to consumers with credit, including those that have only just got it.
    pub(crate) fn deliver(&mut self, key: QueueId, regained: Regained, now: Now, sessions: &mut Sessions) {
        if let Some(mut live) = self.live(key) {
            live.queue.consumers.unblock(regained, |consumer| sessions.has_credit(consumer));
            live.serve(now, sessions);
        }
    }

    /// As [`Vhost::deliver`], for several queues, and routes the dead letters.
    pub(crate) fn deliver_all(&mut self, keys: Vec<QueueId>, regained: Regained, now: Now, sessions: &mut Sessions) {
        for key in keys {
            self.deliver(key, regained, now, sessions);
        }
        self.route_dead(now, sessions);
    }

    /// Subtracts an acknowledged delivery from its queue, and delivers as much as the freed window has room for.
    pub(crate) fn acknowledged(&mut self, key: QueueId, regained: Regained, now: Now, sessions: &mut Sessions) {
        let Some(mut live) = self.live(key) else { return };
        live.queue.unacked = live.queue.unacked.saturating_sub(1);
        live.queue.consumers.unblock(regained, |consumer| sessions.has_credit(consumer));
        if live.queue.ready_count() > 0 || live.queue.stream.is_some() {
            live.serve(now, sessions);
        }
    }
}

impl LiveQueue<'_> {
    /// As [`Vhost::enqueue`].
    fn enqueue(&mut self, message: &Arc<Message>, now: Now, sessions: &mut Sessions) -> bool {
        let queue = &mut *self.queue;
        if let Some(stream) = &mut queue.stream {
            if queue.arguments.max_length.is_some_and(|max| stream.len() >= max) {
                return false;
            }
            sessions.garbage.extend(stream.push(message, now.instant).into_iter().map(Line::from));
            queue.consumers.wake();
            self.serve(now, sessions);
            return true;
        }
        let overflow = queue.arguments.overflow;
        if overflow != Overflow::DropHead && queue.is_full(message.body_bytes() as u64) {
            if overflow == Overflow::RejectPublishDeadLetter {
                let entry = queue.admit(message, now.instant);
                self.bury(&entry, Death::MaxLength, now);
            }
            return false;
        }
        let entry = queue.admit(message, now.instant);
        // The usual case: a consumer is waiting, so the message need not be stored in the queue.
        if queue.ready_count() == 0
            && sessions.injected.is_none()
            && let Some(at) = queue.consumers.next(|consumer| sessions.has_credit(consumer))
        {
            hand_over(queue, (self.key, at), entry, now, sessions);
            return true;
        }
        self.store(entry, now, sessions);
        true
    }

    /// Stores an entry in the queue, and delivers from it.
    fn store(&mut self, mut entry: Entry, now: Now, sessions: &mut Sessions) {
        entry.is_failed_letter = entry.message.failed_before > 0;
        let expires_at = entry.expires_at;
        self.queue.insert(entry);
        if let Some(bytes) = self.queue.growth_to_warn_of() {
            let (queue, vhost, messages) =
                (printable(&*self.queue.name), printable(self.vhost), self.queue.ready_count());
            tracing::warn!(%queue, %vhost, messages, bytes, "a queue without a consumer fills the memory");
        }
        self.serve(now, sessions);
        if self.queue.arguments.overflow == Overflow::DropHead {
            self.drop_over_full(now);
        }
        if let Some(expires_at) = expires_at {
            if expires_at <= now.instant {
                self.drop_expired(now);
            }
            self.set_timer();
        }
    }

    /// Delivers ready messages to consumers that are not blocked.
    pub(crate) fn serve(&mut self, now: Now, sessions: &mut Sessions) {
        if sessions.injected.as_deref().is_some_and(|injected| injected.are_deliveries_paused) {
            return;
        }
        if self.queue.stream.is_some() {
            return self.serve_stream(now, sessions);
        }
        let mut left = SERVED_AT_ONCE_MAX;
        while self.queue.ready_count() > 0 {
            if left == 0 {
                return self.go_on_at(now);
            }
            left -= 1;
            if let Some(entry) = self.queue.pop_overdue(now.instant) {
                self.bury(&entry, Death::Expired, now);
                sessions.work += 1;
                continue;
            }
            let delivery = self.queue.next_delivery(|consumer| sessions.has_credit(consumer));
            let Some((at, entry)) = delivery else { return };
            sessions.work += 1;
            if sessions.injected.as_deref_mut().is_some_and(|injected| injected.duplicates_delivery()) {
                self.queue.insert(entry.clone());
            }
            hand_over(self.queue, (self.key, at), entry, now, sessions);
        }
    }

    /// Delivers a stream's entries to the consumers that have not read them, as far as they have credit. Those that have read
    /// all rest until the next message, so that no other step has to look at them.
    fn serve_stream(&mut self, now: Now, sessions: &mut Sessions) {
        let mut left = SERVED_AT_ONCE_MAX;
        while let Some(at) = self.queue.consumers.next(|consumer| sessions.has_credit(consumer)) {
            if left == 0 {
                return self.go_on_at(now);
            }
            left -= 1;
            sessions.work += 1;
            if let Some(entry) = self.queue.read_next(at)
                && sessions.deliver(&self.queue.consumers[at], self.key, entry, Extra::StreamOffset, now)
            {
                self.queue.unacked += 1;
            }
            match self.queue.has_read_all(at) {
                true if self.queue.consumers.rest() => {}
                true => return,
                false => self.queue.consumers.rotate(),
            }
        }
    }
}

/// Delivers an entry to the next consumer, which moves behind its equals.
fn hand_over(queue: &mut Queue, (key, at): (QueueId, ConsumerAt), entry: Entry, now: Now, sessions: &mut Sessions) {
    let extra = Extra::of_delivery(&queue.arguments, &entry);
    if sessions.deliver(&queue.consumers[at], key, entry, extra, now) {
        queue.unacked += 1;
    }
    queue.consumers.rotate();
}

/// More deliveries of one queue follow when others have had the lock.
const SERVED_AT_ONCE_MAX: usize = 2_048;

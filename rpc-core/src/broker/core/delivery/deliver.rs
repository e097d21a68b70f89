//! Messages enter queues and are delivered to consumers.

use std::sync::Arc;

use crate::{
    broker::core::{
        interface::{ConnectionId, Now},
        session::{output::Extra, sessions::Sessions},
        vhost::{
            Vhost,
            arguments::Overflow,
            dead_letter::Death,
            message::{Entry, Message},
            queue::Queue,
        },
    },
    routing::QueueId,
};

impl Vhost {
    /// Puts a message into a queue. Returns false if the queue refuses it.
    pub(crate) fn enqueue(&mut self, key: QueueId, message: &Arc<Message>, now: Now, sessions: &mut Sessions) -> bool {
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
        // The usual case: a consumer is waiting, so the message need not be stored in the queue.
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

    /// Delivers ready messages to consumers with credit, including those that have only just got it.
    pub(crate) fn deliver(&mut self, key: QueueId, now: Now, sessions: &mut Sessions) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.unblock(|consumer| sessions.has_credit(consumer));
        }
        self.serve(key, now, sessions);
    }

    /// As [`Vhost::deliver`], for several queues, and routes the dead letters.
    pub(crate) fn deliver_all(&mut self, keys: Vec<QueueId>, now: Now, sessions: &mut Sessions) {
        for key in keys {
            self.deliver(key, now, sessions);
        }
        self.route_dead(now, sessions);
    }

    /// Delivers ready messages to consumers that are not blocked.
    fn serve(&mut self, key: QueueId, now: Now, sessions: &mut Sessions) {
        if sessions.injected.as_deref().is_some_and(|injected| injected.are_deliveries_paused) {
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
            if sessions.injected.as_deref_mut().is_some_and(|injected| injected.duplicates_delivery()) {
                queue.insert(entry.clone());
            }
            hand_over(queue, (key, at), entry, sessions);
        }
    }

    /// Subtracts an acknowledged delivery from its queue, and delivers as much as the freed window has room for.
    pub(crate) fn acknowledged(
        &mut self,
        key: QueueId,
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
}

/// Delivers an entry to the consumer at an index, which moves behind its equals.
fn hand_over(queue: &mut Queue, (key, at): (QueueId, usize), entry: Entry, sessions: &mut Sessions) {
    // RabbitMQ omits `x-delivery-count` on the first delivery.
    let is_counted = queue.arguments.is_quorum && entry.is_redelivered();
    let extra = if is_counted { Extra::DeliveryCount } else { Extra::Nothing };
    if sessions.deliver(&queue.consumers()[at], key, entry, extra) {
        queue.unacked += 1;
    }
    queue.rotate(at);
}

/// Delivers a stream's entries to the consumers that have not read them, as far as they have credit.
fn serve_stream(queue: &mut Queue, key: QueueId, sessions: &mut Sessions) {
    for at in 0..queue.consumers().len() {
        while sessions.has_credit(&queue.consumers()[at])
            && let Some(entry) = queue.read_next(at)
        {
            sessions.work += 1;
            if sessions.deliver(&queue.consumers()[at], key, entry, Extra::StreamOffset) {
                queue.unacked += 1;
            }
        }
    }
}

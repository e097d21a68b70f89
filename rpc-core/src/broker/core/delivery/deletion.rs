//! Queues lose their consumers, and vhosts their queues.

use crate::{
    broker::core::{
        interface::{ConnectionId, Now},
        session::sessions::Sessions,
        vhost::{
            Vhost,
            consumers::{Leaving, Place},
            live_queue::LiveQueue,
            message::Message,
            queue::Line,
        },
    },
    routing::{ExchangeOptions, Progress, QueueId},
    wire::{PERSISTENT, PropertyReader},
};

impl Vhost {
    /// Deletes a queue with its messages, and notifies its consumers. Returns how many messages were ready. The bindings
    /// and the consumers of a queue that has many are removed later.
    pub(crate) fn delete_queue(&mut self, key: QueueId, now: Now, sessions: &mut Sessions) -> usize {
        let Some((ready, consumers)) = self.begin_delete(key, sessions) else { return 0 };
        self.cancel_all(key, consumers);
        self.sweep(now, sessions);
        ready
    }

    /// Deletes a queue. Returns how many messages were ready, and its consumers. [`Vhost::sweep`] removes its bindings.
    pub(crate) fn begin_delete(&mut self, key: QueueId, sessions: &mut Sessions) -> Option<(usize, Leaving)> {
        let mut queue = self.take_queue(key)?;
        sessions.work += 1;
        if let Some(owner) = queue.exclusive_to.and_then(|owner| sessions.get_mut(owner)) {
            owner.exclusive_queues.remove(&key);
        }
        sessions
            .garbage
            .extend(queue.stream.take().into_iter().flat_map(|stream| stream.into_entries()).map(Line::from));
        let (ready, lines) = queue.purge();
        sessions.garbage.extend(lines.filter(|line| !line.is_empty()));
        Some((ready, queue.consumers.into_leaving()))
    }

    /// Has the consumers of a deleted queue cancelled.
    pub(crate) fn cancel_all(&mut self, key: QueueId, consumers: Leaving) {
        if !consumers.is_empty() {
            self.cancelling.push_back((key, consumers));
        }
    }

    /// Removes the bindings of queues and exchanges that were deleted, then cancels the consumers. When it pauses, the
    /// rest is due: those who need it call again.
    pub(crate) fn sweep(&mut self, now: Now, sessions: &mut Sessions) -> Progress {
        let mut progress = self.sweep_bindings(now, sessions);
        while progress == Progress::Done
            && let Some((key, consumers)) = self.cancelling.front_mut()
        {
            match consumers.next() {
                Some(consumer) => sessions.cancel(*key, &consumer),
                None => drop(self.cancelling.pop_front()),
            }
            if sessions.has_worked_enough() {
                progress = Progress::Paused;
            }
        }
        self.sweep_due = (progress == Progress::Paused).then_some(now.instant);
        progress
    }

    /// Removes the bindings of queues and exchanges that were deleted.
    pub(crate) fn sweep_bindings(&mut self, now: Now, sessions: &mut Sessions) -> Progress {
        if self.router.is_swept() {
            return Progress::Done;
        }
        let before = sessions.work_left();
        let mut left = before;
        let progress = self.router.sweep(&mut left, &mut Vec::new());
        sessions.work += before - left;
        self.count_topology();
        self.sweep_due = (progress == Progress::Paused).then_some(now.instant);
        progress
    }

    /// Removes a consumer from its queue. An auto-delete queue is deleted with its last consumer.
    pub(crate) fn remove_consumer(&mut self, key: QueueId, place: Place, now: Now, sessions: &mut Sessions) {
        let Some(mut live) = self.live(key) else { return };
        let is_removed = live.queue.consumers.remove(place).is_some();
        if is_removed && live.is_left_for_deletion(now) {
            self.delete_queue(key, now, sessions);
        }
    }

    /// As [`Vhost::remove_consumer`], for all consumers of a channel. Returns how many.
    pub(crate) fn remove_consumers_of(
        &mut self,
        key: QueueId,
        (connection, channel): (ConnectionId, u16),
        now: Now,
        sessions: &mut Sessions,
    ) -> usize {
        let Some(mut live) = self.live(key) else { return 0 };
        let removed = live.queue.consumers.remove_of(connection, channel);
        if removed > 0 && live.is_left_for_deletion(now) {
            self.delete_queue(key, now, sessions);
        }
        removed
    }

    /// Keeps only the state that survives a restart: durable exchanges and queues, their bindings, and persistent
    /// messages.
    pub(crate) fn drop_transient(&mut self, now: Now, sessions: &mut Sessions) {
        let (kept, dropped): (Vec<_>, Vec<_>) = self.queues.keys().copied().partition(|key| self.queues[key].durable);
        for key in dropped {
            self.delete_queue(key, now, sessions);
        }
        for key in kept {
            if let Some(mut live) = self.live(key) {
                let is_persistent =
                    |message: &Message| PropertyReader::new(message.properties()).delivery_mode() == Some(PERSISTENT);
                live.queue.retain(is_persistent);
                live.queue.last_used = now.instant;
                live.set_timer();
            }
        }
        let transient = |(name, options): (&str, &ExchangeOptions)| (!options.durable).then(|| name.to_owned());
        let names: Vec<_> = self.router.exchanges().filter_map(transient).collect();
        for name in names {
            self.router.delete_exchange(&name);
        }
        self.count_topology();
        self.dead.clear();
        self.dead_due = None;
        self.dead_targets = None;
        self.paused.clear();
    }
}

impl LiveQueue<'_> {
    /// Notes that consumers have left. Returns whether the queue is to be deleted with the last of them.
    fn is_left_for_deletion(&mut self, now: Now) -> bool {
        self.queue.last_used = now.instant;
        let is_over = self.queue.auto_delete && self.queue.consumers.is_empty();
        if !is_over {
            self.set_timer();
        }
        is_over
    }
}

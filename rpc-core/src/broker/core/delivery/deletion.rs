//! Queues lose their consumers, and vhosts their queues.

use crate::{
    broker::core::{
        interface::{ConnectionId, Now},
        session::sessions::Sessions,
        vhost::{Vhost, consumers::Place, live_queue::LiveQueue, message::Message},
    },
    routing::{ExchangeOptions, QueueId},
    wire::{PERSISTENT, PropertyReader},
};

impl Vhost {
    /// Deletes a queue with its messages, and notifies its consumers. Returns how many messages were ready.
    pub(crate) fn delete_queue(&mut self, key: QueueId, sessions: &mut Sessions) -> usize {
        let Some(mut queue) = self.take_queue(key) else {
            return 0;
        };
        if let Some(owner) = queue.exclusive_to.and_then(|owner| sessions.get_mut(owner)) {
            owner.exclusive_queues.remove(&key);
        }
        for consumer in queue.consumers.iter() {
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

    /// Removes a consumer from its queue. An auto-delete queue is deleted with its last consumer.
    pub(crate) fn remove_consumer(&mut self, key: QueueId, place: Place, now: Now, sessions: &mut Sessions) {
        let Some(mut live) = self.live(key) else { return };
        let is_removed = live.queue.consumers.remove(place).is_some();
        if is_removed && live.is_left_for_deletion(now) {
            self.delete_queue(key, sessions);
        }
    }

    /// As [`Vhost::remove_consumer`], for all consumers of a channel.
    pub(crate) fn remove_consumers_of(
        &mut self,
        key: QueueId,
        (connection, channel): (ConnectionId, u16),
        now: Now,
        sessions: &mut Sessions,
    ) {
        let Some(mut live) = self.live(key) else { return };
        let are_removed = live.queue.consumers.remove_of(connection, channel);
        if are_removed && live.is_left_for_deletion(now) {
            self.delete_queue(key, sessions);
        }
    }

    /// Keeps only the state that survives a restart: durable exchanges and queues, their bindings, and persistent
    /// messages.
    pub(crate) fn drop_transient(&mut self, now: Now, sessions: &mut Sessions) {
        let (kept, dropped): (Vec<_>, Vec<_>) = self.queues.keys().copied().partition(|key| self.queues[key].durable);
        for key in dropped {
            self.delete_queue(key, sessions);
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

//! Queues lose their consumers, and vhosts their queues.

use crate::{
    broker::core::{
        interface::{ConnectionId, Now},
        session::sessions::Sessions,
        vhost::Vhost,
    },
    routing::{ExchangeOptions, QueueId},
    wire::PropertyReader,
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

    /// Removes a consumer from its queue. An auto-delete queue is deleted with its last consumer.
    pub(crate) fn remove_consumer(
        &mut self,
        key: QueueId,
        (connection, channel, tag): (ConnectionId, u16, &[u8]),
        now: Now,
        sessions: &mut Sessions,
    ) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if queue.remove_consumer(connection, channel, tag).is_some() {
            self.note_consumers_removed(key, now, sessions);
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
        if self.queues.get_mut(&key).is_some_and(|queue| queue.remove_consumers_of(connection, channel)) {
            self.note_consumers_removed(key, now, sessions);
        }
    }

    fn note_consumers_removed(&mut self, key: QueueId, now: Now, sessions: &mut Sessions) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.last_used = now.instant;
        if queue.auto_delete && queue.consumers().is_empty() {
            self.delete_queue(key, sessions);
        } else {
            self.set_timer(key);
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
}

/// The delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;

//! The faults that a test can ask for. [`Injected`] holds them.

use crate::broker::core::{
    interface::{ConnectionId, Now},
    probes::injected::{ConfirmTiming, Injected},
    session::Stage,
    state::Core,
    vhost::{Vhost, consumers::Regained},
};

impl Core {
    fn injected(&mut self) -> &mut Injected {
        self.sessions.injected.get_or_insert_default()
    }

    /// Forgets connections as if their sockets had failed. The owners close the sockets, and then [`Core::close`] the
    /// connections.
    pub(crate) fn cut(&mut self, ids: &[ConnectionId], now: Now) {
        for id in ids {
            self.release_all(*id, now);
        }
    }

    /// The connections with this client name or peer address; all connections for `None`.
    pub(crate) fn find_connections(&self, name: Option<&str>) -> Vec<ConnectionId> {
        let is_meant = |id: &ConnectionId| {
            self.sessions.get(*id).is_some_and(|session| {
                session.stage != Stage::Closed
                    && name.is_none_or(|name| session.client_name == name || session.peer.address == name)
            })
        };
        self.sessions.ids().filter(is_meant).collect()
    }

    pub(crate) fn pause_deliveries(&mut self) {
        self.injected().are_deliveries_paused = true;
    }

    pub(crate) fn resume_deliveries(&mut self, now: Now) {
        self.injected().are_deliveries_paused = false;
        for vhost in &mut self.vhosts {
            let keys: Vec<_> = vhost.queues.keys().copied().collect();
            vhost.deliver_all(keys, Regained::Everybody, now, &mut self.sessions);
        }
    }

    pub(crate) fn duplicate_delivery(&mut self) {
        self.injected().duplicates += 1;
    }

    pub(crate) fn return_publish(&mut self) {
        self.injected().returns += 1;
    }

    pub(crate) fn nack_publish(&mut self) {
        self.injected().nacks += 1;
    }

    /// Sets when confirms are sent from now on. With [`ConfirmTiming::AtOnce`], held confirms are sent too.
    pub(crate) fn time_confirms(&mut self, timing: ConfirmTiming, now: Now) {
        self.injected().time_confirms(timing, now);
        if timing == ConfirmTiming::AtOnce {
            self.sessions.send_held_confirms(now);
        }
    }

    /// Cancels the consumers for whose queue name and consumer tag `is_meant` holds, and notifies their clients. Returns
    /// how many.
    pub(crate) fn cancel_consumers(&mut self, is_meant: impl Fn(&str, &[u8]) -> bool, now: Now) -> usize {
        let mut cancelled = 0;
        for vhost in &mut self.vhosts {
            let meant: Vec<_> = vhost
                .queues
                .iter()
                .flat_map(|(key, queue)| {
                    let consumers = queue.consumers.iter().filter(|consumer| is_meant(&queue.name, &consumer.tag));
                    consumers.map(|consumer| (*key, consumer.clone()))
                })
                .collect();
            for (key, consumer) in meant {
                if let Some(channel) = self.sessions.channel_mut(consumer.connection, consumer.channel) {
                    channel.remove_consumer(consumer.slot);
                }
                self.sessions.cancel_notify(&consumer);
                vhost.remove_consumer(key, consumer.place(), now, &mut self.sessions);
                vhost.deliver(key, Regained::Nobody, now, &mut self.sessions);
                cancelled += 1;
            }
            vhost.route_dead(now, &mut self.sessions);
        }
        cancelled
    }

    /// Restarts the broker: its connections are dropped, and durable state is kept, or no state at all.
    pub(crate) fn restart(&mut self, keeps_durable: bool, now: Now) {
        let were_paused = self.injected().are_deliveries_paused;
        // Requeued messages must not be delivered to connections that are about to be cut.
        self.pause_deliveries();
        let ids: Vec<_> = self.sessions.ids().collect();
        self.cut(&ids, now);
        self.injected().are_deliveries_paused = were_paused;
        for vhost in &mut self.vhosts {
            if keeps_durable {
                vhost.drop_transient(now, &mut self.sessions);
            } else {
                *vhost = Vhost::new(&vhost.name, vhost.limits, vhost.facts, &self.globals.memory);
            }
        }
    }
}

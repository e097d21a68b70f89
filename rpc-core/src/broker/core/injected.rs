//! Faults that tests ask for. Nothing of this exists until the first one is: each hook on the way of a message is one
//! look at an `Option`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    ConnectionId, Core, Now,
    confirms::Confirm,
    queue::Consumer,
    session::{Sessions, Stage},
    vhost::Vhost,
};

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Injected {
    are_deliveries_paused: bool,
    /// Deliveries to be made twice.
    duplicates: usize,
    /// Mandatory publishes to return.
    returns: usize,
    /// Publishes to nack.
    nacks: usize,
    confirms: ConfirmTiming,
    held: VecDeque<HeldConfirm>,
}

/// When publishers hear that their messages were taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfirmTiming {
    #[default]
    AtOnce,
    After(Duration),
    Never,
}

/// A confirm that is not sent yet. It goes with its channel.
#[derive(Debug)]
struct HeldConfirm {
    connection: ConnectionId,
    channel: u16,
    confirm: Confirm,
    due: Option<Instant>,
}

/// What happens to a publish instead of being routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublishFault {
    Return,
    Nack,
}

impl Injected {
    /// What happens to the publish at hand.
    pub(super) fn publish_fault(&mut self, is_mandatory: bool, is_confirmed: bool) -> Option<PublishFault> {
        if is_mandatory && self.returns > 0 {
            self.returns -= 1;
            return Some(PublishFault::Return);
        }
        if is_confirmed && self.nacks > 0 {
            self.nacks -= 1;
            return Some(PublishFault::Nack);
        }
        None
    }

    /// Keeps a confirm back; false when it goes out now.
    pub(super) fn hold(&mut self, connection: ConnectionId, channel: u16, confirm: Confirm, now: Now) -> bool {
        let due = match self.confirms {
            // Behind those that wait, or it would overtake them.
            ConfirmTiming::AtOnce if self.held.is_empty() => return false,
            ConfirmTiming::AtOnce => Some(now.instant),
            ConfirmTiming::After(delay) => now.instant.checked_add(delay),
            ConfirmTiming::Never => None,
        };
        self.held.push_back(HeldConfirm { connection, channel, confirm, due });
        true
    }

    /// Forgets what a channel that is gone would have been told.
    pub(super) fn forget(&mut self, connection: ConnectionId, channel: u16) {
        self.held.retain(|held| (held.connection, held.channel) != (connection, channel));
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.held.front()?.due
    }

    fn pop_due(&mut self, now: Now) -> Option<HeldConfirm> {
        let is_due = self.held.front()?.due.is_some_and(|due| due <= now.instant);
        if is_due { self.held.pop_front() } else { None }
    }
}

impl Sessions {
    pub(super) fn are_deliveries_paused(&self) -> bool {
        self.injected.as_deref().is_some_and(|injected| injected.are_deliveries_paused)
    }

    /// Whether the delivery at hand is made twice.
    pub(super) fn is_duplicated(&mut self) -> bool {
        match self.injected.as_deref_mut() {
            Some(Injected { duplicates, .. }) if *duplicates > 0 => {
                *duplicates -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Core {
    fn injected(&mut self) -> &mut Injected {
        self.sessions.injected.get_or_insert_default()
    }

    /// Forgets connections as if their sockets had failed. Their owners close the sockets, and then [`Core::close`] them.
    pub(crate) fn cut(&mut self, ids: &[ConnectionId], now: Now) {
        for id in ids {
            self.release(*id, now);
            if let Some(session) = self.sessions.get_mut(*id) {
                session.stage = Stage::Closed;
            }
        }
    }

    /// The connections whose client's name, or peer's address, is this one; all of them without one.
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
            for key in keys {
                vhost.deliver(key, now, &mut self.sessions);
            }
            vhost.route_dead(now, &mut self.sessions);
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

    /// When confirms are sent from now on. Those that were held back go out when they are to be sent at once.
    pub(crate) fn time_confirms(&mut self, timing: ConfirmTiming, now: Now) {
        let injected = self.injected();
        injected.confirms = timing;
        if timing == ConfirmTiming::AtOnce {
            injected.held.iter_mut().for_each(|held| held.due = Some(now.instant));
            self.send_held(now);
        }
    }

    /// Sends the confirms that have been held back long enough.
    pub(super) fn send_held(&mut self, now: Now) {
        while let Some(held) = self.sessions.injected.as_deref_mut().and_then(|injected| injected.pop_due(now)) {
            self.sessions.write_confirm(held.connection, held.channel, held.confirm);
        }
    }

    /// Takes consumers away from their clients, and tells those. Which ones is asked with the queue's name and the
    /// consumer's tag. Returns how many.
    pub(crate) fn cancel_consumers(&mut self, is_meant: impl Fn(&str, &[u8]) -> bool, now: Now) -> usize {
        let mut cancelled = 0;
        for vhost in &mut self.vhosts {
            let meant: Vec<_> = vhost
                .queues
                .iter()
                .flat_map(|(key, queue)| {
                    let consumers = queue.consumers().iter().filter(|consumer| is_meant(&queue.name, &consumer.tag));
                    consumers.map(|consumer| (*key, consumer.clone()))
                })
                .collect();
            for (key, consumer) in meant {
                if let Some(channel) = self.sessions.channel_mut(consumer.connection, consumer.channel) {
                    channel.remove_consumer(consumer.slot);
                }
                self.sessions.cancel_notify(&consumer);
                let Consumer { connection, channel, tag, .. } = &consumer;
                vhost.remove_consumer(key, (*connection, *channel, tag), now, &mut self.sessions);
                vhost.deliver(key, now, &mut self.sessions);
                cancelled += 1;
            }
            vhost.route_dead(now, &mut self.sessions);
        }
        cancelled
    }

    /// As after a restart: without connections, and with what is durable, or with nothing.
    pub(crate) fn restart(&mut self, keeps_durable: bool, now: Now) {
        let were_paused = self.sessions.are_deliveries_paused();
        // What goes back must not be handed to those who are about to be cut, too.
        self.pause_deliveries();
        let ids: Vec<_> = self.sessions.ids().collect();
        self.cut(&ids, now);
        self.injected().are_deliveries_paused = were_paused;
        for vhost in &mut self.vhosts {
            if keeps_durable {
                vhost.drop_transient(now, &mut self.sessions);
            } else {
                *vhost = Vhost::new(&vhost.name, vhost.limits, &self.memory);
            }
        }
    }
}

//! The alarm: why publishers are blocked, and blocking them.

use std::sync::Arc;

use amq_protocol::protocol::{
    AMQPClass,
    connection::{AMQPMethod, Blocked, Unblocked},
};

use crate::broker::core::{
    interface::ConnectionId,
    limits::memory::Memory,
    names::short,
    session::{Stage, sessions::Sessions},
};

/// Why publishers are blocked, if they are. Either cause is enough.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// The reason that an operator or a test gave.
    requested: Option<Arc<str>>,
    is_memory_high: bool,
}

impl Alarm {
    pub(crate) fn is_on(&self) -> bool {
        self.is_memory_high || self.requested.is_some()
    }

    /// Switches the alarm on or off when memory crosses a watermark. Returns whether publishers may be read again. Two
    /// numbers are compared while nothing changes.
    pub(crate) fn watch(&mut self, memory: &Memory, sessions: &mut Sessions) -> bool {
        if !memory.crosses() {
            return false;
        }
        self.is_memory_high = !self.is_memory_high;
        memory.set_high(self.is_memory_high);
        // As in RabbitMQ, a publisher is blocked by its next publish: until then it may acknowledge deliveries.
        self.unblock_all(sessions);
        !self.is_on()
    }

    /// Blocks connections that have published at once, and others when they publish.
    pub(crate) fn request(&mut self, reason: &str, sessions: &mut Sessions) {
        self.requested = Some(reason.into());
        let ids: Vec<_> = sessions.ids().collect();
        for id in ids {
            if sessions.get(id).is_some_and(|session| session.has_published) {
                self.block(id, sessions);
            }
        }
    }

    /// Withdraws the request. Publishers are unblocked unless memory is high.
    pub(crate) fn withdraw(&mut self, sessions: &mut Sessions) {
        self.requested = None;
        self.unblock_all(sessions);
    }

    /// Blocks a connection that is about to publish: the rest of its batch is not handled.
    pub(crate) fn block_publisher(&self, id: ConnectionId, sessions: &mut Sessions) {
        self.block(id, sessions);
        sessions.work = usize::MAX / 2;
    }

    /// Stops reading from a connection, and sends `connection.blocked`.
    fn block(&self, id: ConnectionId, sessions: &mut Sessions) {
        let Some(reason) = self.reason() else { return };
        let Some(session) = sessions.get_mut(id) else { return };
        if session.stage != Stage::Open || session.is_held() {
            return;
        }
        session.set_held(true);
        if session.capabilities.connection_blocked {
            let blocked = AMQPMethod::Blocked(Blocked { reason: short(&reason) });
            sessions.send(id, 0, &AMQPClass::Connection(blocked));
        }
    }

    fn unblock_all(&self, sessions: &mut Sessions) {
        if self.is_on() {
            return;
        }
        let ids: Vec<_> = sessions.ids().collect();
        ids.into_iter().for_each(|id| unblock(id, sessions));
    }

    fn reason(&self) -> Option<Arc<str>> {
        self.requested.clone().or_else(|| self.is_memory_high.then(|| LOW_ON_MEMORY.into()))
    }
}

fn unblock(id: ConnectionId, sessions: &mut Sessions) {
    let Some(session) = sessions.get_mut(id).filter(|session| session.is_held()) else { return };
    session.set_held(false);
    if session.capabilities.connection_blocked && session.stage == Stage::Open {
        sessions.send(id, 0, &AMQPClass::Connection(AMQPMethod::Unblocked(Unblocked {})));
    }
}

/// RabbitMQ's reason.
const LOW_ON_MEMORY: &str = "low on memory";

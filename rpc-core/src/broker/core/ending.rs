//! Channels and connections end: closed by the client, over a fault, or because the socket has failed.

use amq_protocol::protocol::{AMQPClass, channel as channel_class, connection as connection_class};

use crate::{
    broker::core::{
        fault::Fault,
        interface::{ConnectionId, Now},
        names::short,
        session::{
            Stage,
            channel::{Channel, Mode},
            sessions::Sessions,
        },
        state::Core,
        vhost::{Vhost, consumers::Regained, queue::RequeueReason},
    },
    routing::QueueId,
};

impl Core {
    /// Removes a connection whose socket is closed.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Now) {
        self.release(id, now);
        self.sessions.remove(id);
    }

    /// Requeues a connection's unacknowledged deliveries, then deletes its exclusive queues.
    pub(crate) fn release(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let exclusive_queues = std::mem::take(&mut session.exclusive_queues);
        let Some(vhost) = session.vhost.and_then(|at| self.vhosts.get_mut(at)) else { return };
        vhost.forget_search(id);
        let freed = end_channels(id, vhost, &mut self.sessions, now);
        for key in exclusive_queues {
            vhost.delete_queue(key, &mut self.sessions);
        }
        vhost.deliver_all(freed, Regained::Nobody, now, &mut self.sessions);
    }

    /// Sends `connection.close` because the broker shuts down.
    pub(crate) fn shut_down_one(&mut self, id: ConnectionId, now: Now) {
        if self.sessions.get(id).is_some_and(|session| !matches!(session.stage, Stage::Closing | Stage::Closed)) {
            let text = "broker forced connection closure with reason 'shutdown'";
            self.fail(id, 0, &Fault::connection_forced(text), now);
        }
    }

    /// Closes a channel or its connection over a fault.
    pub(crate) fn fail(&mut self, id: ConnectionId, number: u16, fault: &Fault, now: Now) {
        tracing::debug!(connection = id.0, channel = number, text = fault.reply_text(), "fault");
        self.sessions.flush_confirms(id, now);
        if fault.is_hard {
            self.close_connection(id, fault, now);
        } else {
            self.close_channel(id, number, fault, now);
        }
    }

    fn close_connection(&mut self, id: ConnectionId, fault: &Fault, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.stage = Stage::Closing;
        let vhost = session.vhost;
        let close = connection_class::AMQPMethod::Close(connection_class::Close {
            reply_code: fault.code.number(),
            reply_text: short(&fault.reply_text()),
            class_id: fault.class_id,
            method_id: fault.method_id,
        });
        self.sessions.send(id, 0, &AMQPClass::Connection(close));
        // A connection that fails during its handshake has neither a vhost nor channels.
        if let Some(vhost) = vhost.and_then(|at| self.vhosts.get_mut(at)) {
            let freed = end_channels(id, vhost, &mut self.sessions, now);
            vhost.deliver_all(freed, Regained::Nobody, now, &mut self.sessions);
        }
    }

    fn close_channel(&mut self, id: ConnectionId, number: u16, fault: &Fault, now: Now) {
        let vhost = self.sessions.get(id).and_then(|session| session.vhost).and_then(|at| self.vhosts.get_mut(at));
        let Some(vhost) = vhost else { return };
        let freed = end_channel((id, number), vhost, &mut self.sessions, now);
        if let Some(channel) = self.sessions.channel_mut(id, number) {
            *channel = Channel::closing();
        }
        let close = channel_class::AMQPMethod::Close(channel_class::Close {
            reply_code: fault.code.number(),
            reply_text: short(&fault.reply_text()),
            class_id: fault.class_id,
            method_id: fault.method_id,
        });
        self.sessions.send(id, number, &AMQPClass::Channel(close));
        vhost.deliver_all(freed, Regained::Nobody, now, &mut self.sessions);
    }
}

/// Removes a channel's consumers from their queues and requeues its unacknowledged deliveries. Returns the queues that
/// may have messages to deliver now.
pub(crate) fn end_channel(
    (id, number): (ConnectionId, u16),
    vhost: &mut Vhost,
    sessions: &mut Sessions,
    now: Now,
) -> Vec<QueueId> {
    let Some(channel) = sessions.channel_mut(id, number) else { return Vec::new() };
    // An idle channel takes its place, so that no delivery below can reach it.
    let mut channel = std::mem::take(channel);
    if let Some(injected) = &mut sessions.injected {
        injected.forget(id, number);
    }
    let consumed_queues = channel.consumed_queues();
    let unacked = channel.take_all();
    // The acknowledgements of an uncommitted transaction are undone.
    let held = match channel.mode {
        Mode::Transaction(transaction) => transaction.settlements,
        Mode::Plain | Mode::Confirm => Vec::new(),
    };
    let lost = unacked.into_deliveries().chain(held.into_iter().map(|(delivered, _)| delivered));
    let mut freed = vhost.requeue_all(lost, RequeueReason::ChannelClosed, now);
    for queue in consumed_queues {
        freed.push(queue);
        vhost.remove_consumers_of(queue, (id, number), now, sessions);
    }
    freed.sort_unstable();
    freed.dedup();
    freed
}

/// As [`end_channel`], for all channels of a connection.
fn end_channels(id: ConnectionId, vhost: &mut Vhost, sessions: &mut Sessions, now: Now) -> Vec<QueueId> {
    let Some(session) = sessions.get(id) else { return Vec::new() };
    let numbers: Vec<_> = session.channels.iter().map(|(number, _)| number).collect();
    let mut freed = Vec::new();
    for number in numbers {
        freed.extend(end_channel((id, number), vhost, sessions, now));
    }
    if let Some(session) = sessions.get_mut(id) {
        session.channels.clear();
    }
    freed.sort_unstable();
    freed.dedup();
    freed
}

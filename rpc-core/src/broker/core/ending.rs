//! Channels and connections end: closed by the client, over a fault, or because the socket has failed.

use amq_protocol::protocol::{AMQPClass, channel as channel_class, connection as connection_class};

use crate::{
    broker::core::{
        fault::Fault,
        interface::{ConnectionId, Now},
        names::short,
        session::{
            Session, Stage,
            channel::{Channel, Mode},
            sessions::Sessions,
        },
        state::Core,
        vhost::{Vhost, consumers::Regained, queue::RequeueReason},
    },
    printable::printable,
    routing::QueueId,
};

impl Core {
    /// Removes a connection whose socket is closed.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Now) {
        self.release(id, now);
        if let Some(session) = self.sessions.get(id) {
            log_end(session);
        }
        self.sessions.remove(id);
    }

    /// Notes the reason why a connection ends, unless there is one already.
    pub(crate) fn note_end(&mut self, id: ConnectionId, reason: &str) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.end_reason.get_or_insert_with(|| reason.to_owned());
        }
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
        let user = self.sessions.get(id).map(|session| session.user.clone()).unwrap_or_default();
        let (user, reason) = (printable(&user), fault.reply_text());
        if fault.is_hard {
            tracing::info!(connection = id.0, %user, reason = %printable(&reason), "connection error");
        } else {
            tracing::info!(connection = id.0, %user, channel = number, reason = %printable(&reason), "channel error");
        }
        self.sessions.flush_confirms(id, now);
        if fault.is_hard {
            self.note_end(id, &reason);
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

fn log_end(session: &Session) {
    let (user, name) = (printable(&session.user), printable(&session.client_name));
    let reason = printable(session.end_reason.as_deref().unwrap_or("the socket was closed"));
    let address = &session.peer.address;
    match session.vhost {
        Some(_) => tracing::info!(%address, %user, %name, %reason, "connection closed"),
        None => tracing::debug!(%address, %user, %name, %reason, "connection closed before it was open"),
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

//! Channels and connections end: closed by the client, over a fault, or because the socket has failed.

use std::collections::BTreeSet;

use amq_protocol::protocol::{AMQPClass, channel as channel_class, connection as connection_class};

use crate::{
    broker::core::{
        classes::connection::CLOSE_OK_PAUSE,
        context::{Context, Unfinished},
        fault::Fault,
        interface::{ConnectionId, Now},
        names::short,
        session::{
            Session, Stage,
            channel::{Channel, Mode, Settle},
            channels::Channels,
            sessions::PendingCloseOk,
            unacked::{Delivered, Taken},
        },
        state::Core,
        vhost::{Vhost, consumers::Regained, queue::RequeueReason},
    },
    printable::printable,
    routing::{Progress, QueueId},
};

impl Core {
    /// Removes a connection whose socket is closed, at once or when all that it leaves behind is released.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Now) {
        self.sessions.work = 0;
        let Some(session) = self.sessions.get_mut(id) else { return };
        log_end(session);
        session.is_gone = true;
        if self.release(id, Last::Nothing, now) == Progress::Done {
            self.remove(id);
        } else {
            self.leave_behind(id, now);
        }
    }

    /// Notes the reason why a connection ends, unless there is one already.
    pub(crate) fn note_end(&mut self, id: ConnectionId, reason: &str) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.end_reason.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Requeues a connection's unacknowledged deliveries, then deletes its exclusive queues. Channels that wait come first.
    pub(crate) fn release(&mut self, id: ConnectionId, last: Last, now: Now) -> Progress {
        let Some(session) = self.sessions.get_mut(id) else { return Progress::Done };
        session.stage = Stage::Closed;
        let ending = Ending { deletes_queues: true, ..Ending::of_connection(last) };
        self.leave(id, 0, ending);
        self.go_on(id, now)
    }

    /// As [`Core::release`], to its end, however long that takes. Frames that were set aside are lost.
    pub(crate) fn release_all(&mut self, id: ConnectionId, now: Now) {
        self.forget_all_frames(id);
        let mut progress = self.release(id, Last::Nothing, now);
        while progress == Progress::Paused {
            self.sessions.work = 0;
            progress = self.go_on(id, now);
        }
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
        let ending = if fault.is_hard { 0 } else { number };
        if fault.is_hard {
            self.note_end(id, &reason);
            self.forget_frames(id, number);
            self.close_connection(id, fault);
        } else {
            self.close_channel(id, number, fault);
        }
        if self.has_unfinished(id) && self.go_on_to_end(id, ending, now) == Progress::Paused {
            self.leave_behind(id, now);
        }
    }

    fn close_connection(&mut self, id: ConnectionId, fault: &Fault) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.stage = Stage::Closing;
        // A connection that fails during its handshake has neither a vhost nor channels.
        if session.vhost.is_some() {
            self.leave(id, 0, Ending::of_connection(Last::Nothing));
        }
        let close = connection_class::AMQPMethod::Close(connection_class::Close {
            reply_code: fault.code.number(),
            reply_text: short(&fault.reply_text()),
            class_id: fault.class_id,
            method_id: fault.method_id,
        });
        self.sessions.send(id, 0, &AMQPClass::Connection(close));
    }

    fn close_channel(&mut self, id: ConnectionId, number: u16, fault: &Fault) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| session.vhost.is_some()) else { return };
        let Some(channel) = session.channels.get_mut(number) else { return };
        let channel = std::mem::replace(channel, Channel::closing());
        if let Some(vhost) = self.vhost_of(id) {
            vhost.forget_searches(id, number..=number);
        }
        let close = channel_class::AMQPMethod::Close(channel_class::Close {
            reply_code: fault.code.number(),
            reply_text: short(&fault.reply_text()),
            class_id: fault.class_id,
            method_id: fault.method_id,
        });
        let ending = Ending::of_channel(number, channel, Last::Answer(AMQPClass::Channel(close)));
        self.leave(id, number, ending);
    }

    fn leave(&mut self, id: ConnectionId, number: u16, ending: Ending) {
        self.unfinished.entry(id).or_default().push(number, Box::new(ending));
    }

    pub(crate) fn vhost_of(&mut self, id: ConnectionId) -> Option<&mut Vhost> {
        let at = self.sessions.get(id)?.vhost?;
        self.vhosts.get_mut(at)
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

/// Channels that end: their unacknowledged deliveries are requeued, their consumers are removed, and with a connection
/// its exclusive queues are deleted. Then the queues that were freed deliver.
#[derive(Debug)]
pub(crate) struct Ending {
    channels: Channels,
    /// Whether all channels of the connection end. They are taken when it is their turn, because methods that are to be
    /// done before need them.
    takes_all: bool,
    current: Option<Lost>,
    deletes_queues: bool,
    last: Last,
    /// The queues that may have messages to deliver.
    freed: Vec<QueueId>,
    /// Those that serve no consumer until all is requeued.
    held: BTreeSet<QueueId>,
}

/// The step behind the last requeued message.
#[derive(Debug)]
pub(crate) enum Last {
    Nothing,
    /// A method is sent on the channel.
    Answer(AMQPClass),
    /// The channel was closed by its client: it is answered and removed.
    ChannelCloseOk,
    /// The connection was closed by its client: it is answered after a pause.
    ConnectionCloseOk,
}

/// The deliveries and consumers of one channel.
#[derive(Debug)]
struct Lost {
    number: u16,
    unacked: Taken,
    /// Deliveries that an uncommitted transaction has settled: that is undone.
    settled: std::vec::IntoIter<(Delivered, Settle)>,
    consumed: std::vec::IntoIter<QueueId>,
}

impl Lost {
    fn of(number: u16, mut channel: Channel) -> Self {
        let consumed = channel.consumed_queues().into_iter();
        let unacked = channel.take_all();
        let settled = match channel.mode {
            Mode::Transaction(transaction) => transaction.settlements,
            Mode::Plain | Mode::Confirm => Vec::new(),
        };
        Self { number, unacked, settled: settled.into_iter(), consumed }
    }

    fn next(&mut self) -> Option<Delivered> {
        self.unacked.next().or_else(|| Some(self.settled.next()?.0))
    }
}

impl Ending {
    /// The channel is a new or a closing one now, so that no delivery can reach the old one.
    pub(crate) fn of_channel(number: u16, channel: Channel, last: Last) -> Self {
        let mut ending = Self { takes_all: false, ..Self::of_connection(last) };
        ending.channels.insert(number, channel);
        ending
    }

    fn of_connection(last: Last) -> Self {
        let (channels, freed, held) = Default::default();
        Self { channels, takes_all: true, current: None, deletes_queues: false, last, freed, held }
    }

    fn next_channel(&mut self, context: &mut Context<'_>) -> Option<Lost> {
        let (number, channel) = self.channels.pop_first()?;
        context.sessions.work += 1;
        if let Some(injected) = &mut context.sessions.injected {
            injected.forget(context.id, number);
        }
        context.sessions.forget_timer(context.id, number, channel.timer);
        Some(Lost::of(number, channel))
    }
    /// Requeues what a channel held, then removes its consumers.
    fn let_go(&mut self, lost: &mut Lost, context: &mut Context<'_>) -> Progress {
        let Context { id, now, vhost, sessions, .. } = context;
        loop {
            let piece: Vec<_> = std::iter::from_fn(|| lost.next()).take(sessions.work_left()).collect();
            if piece.is_empty() {
                break;
            }
            sessions.work += piece.len();
            self.freed.extend(vhost.requeue_all(piece.into_iter(), RequeueReason::ChannelClosed, *now));
        }
        while !sessions.has_worked_enough() {
            let Some(queue) = lost.consumed.next() else { return Progress::Done };
            sessions.work += vhost.remove_consumers_of(queue, (*id, lost.number), *now, sessions);
            self.freed.push(queue);
        }
        vhost.hold(&mut self.freed, &mut self.held);
        Progress::Paused
    }

    fn do_last(&mut self, context: &mut Context<'_>) {
        let last = std::mem::replace(&mut self.last, Last::Nothing);
        let (id, number) = context.place();
        match last {
            Last::Nothing => {}
            Last::Answer(method) => context.send(&method),
            Last::ChannelCloseOk => {
                let ok = channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {});
                context.send(&AMQPClass::Channel(ok));
                context.session_mut().channels.remove(number);
            }
            Last::ConnectionCloseOk => {
                let (due, nonce) = (context.now.instant + CLOSE_OK_PAUSE, context.session().nonce);
                context.sessions.pending_close_oks.push_back(PendingCloseOk { due, connection: id, nonce });
            }
        }
    }

    fn deliver(&mut self, context: &mut Context<'_>) -> Progress {
        let Context { now, vhost, sessions, .. } = context;
        vhost.hold(&mut self.freed, &mut self.held);
        // The queue with the lowest number first.
        while let Some(key) = self.held.pop_first() {
            sessions.work += 1;
            vhost.resume(key);
            vhost.deliver(key, Regained::Nobody, *now, sessions);
            if sessions.has_worked_enough() && !self.held.is_empty() {
                return Progress::Paused;
            }
        }
        vhost.route_dead(*now, sessions);
        Progress::Done
    }
}

impl Unfinished for Ending {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        if std::mem::take(&mut self.takes_all) {
            self.channels = std::mem::take(&mut context.session_mut().channels);
        }
        while let Some(mut lost) = self.current.take().or_else(|| self.next_channel(context)) {
            if self.let_go(&mut lost, context) == Progress::Paused {
                self.current = Some(lost);
                return Ok(Progress::Paused);
            }
        }
        if self.deletes_queues && delete_exclusive(context) == Progress::Paused {
            return Ok(Progress::Paused);
        }
        self.do_last(context);
        Ok(self.deliver(context))
    }
}

/// Deletes the exclusive queues of a connection.
fn delete_exclusive(context: &mut Context<'_>) -> Progress {
    while let Some(key) = context.session_mut().exclusive_queues.pop_first() {
        context.vhost.delete_queue(key, context.now, context.sessions);
        if context.sessions.has_worked_enough() {
            return Progress::Paused;
        }
    }
    context.vhost.sweep(context.now, context.sessions)
}

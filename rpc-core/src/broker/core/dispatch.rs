//! From frames to methods: which class a frame is for, or which fault it is.

use std::{sync::Arc, time::Duration};

use amq_protocol::protocol::{AMQPClass, access, channel::AMQPMethod, connection::Tune};

use crate::{
    broker::core::{
        classes::{
            basic, channel, confirm,
            connection::{self, Step},
            content, exchange, publish, queue, settle, tx,
        },
        context::Context,
        ending::Last,
        fault::Fault,
        globals::Globals,
        interface::{ConnectionId, Flow, Now, Peer, Traffic},
        rules::Limits,
        session::{
            REFUSED_PAUSE, Session, Stage,
            channel::{Incoming, Settle},
            sessions::PendingVerdict,
        },
        state::Core,
        vhost::Vhost,
    },
    routing::Progress,
    wire::{Batch, FrameError, FrameKind, Frames, Method, MethodError, RawFrame, Role, method_ids, read_method},
};

impl Core {
    /// Registers a connection whose protocol header was valid, and sends `connection.start`. `None` if there are too many
    /// connections.
    pub(crate) fn open(&mut self, peer: Peer, traffic: Arc<Traffic>, version_0_8: bool) -> Option<ConnectionId> {
        let rules = &self.globals.rules;
        if self.sessions.len() >= rules.connections_max {
            return None;
        }
        let start = connection::start(rules.facts, &peer, version_0_8);
        let id = self.sessions.add(peer, traffic, self.globals.random.nonce(), rules.frame_max);
        self.sessions.send(id, 0, &start);
        Some(id)
    }

    /// Handles a batch of a connection's frames, and the error that followed them. Frames of a channel that waits for the
    /// rest of a method are set aside.
    pub(crate) fn batch(&mut self, id: ConnectionId, batch: &Batch, error: Option<&FrameError>, now: Now) -> Flow {
        self.sessions.work = 0;
        let mut frames = batch.frames();
        let is_waiting = self.has_unfinished(id);
        if is_waiting {
            let may_be_handled = self.go_on_before(batch, id, now);
            if self.sessions.get(id).is_some_and(|session| session.is_silenced) {
                return Flow::Close;
            }
            if !may_be_handled {
                return self.pause(id, frames.bytes_left(), now);
            }
        }
        while let Some(frame) = frames.next() {
            let left = frames.bytes_left() + frame.bytes();
            if is_waiting && self.waits(id, frame.channel) {
                self.set_aside(id, frame.channel, batch.between(left, frames.bytes_left()));
                if self.is_full(id) {
                    return self.pause(id, frames.bytes_left(), now);
                }
                continue;
            }
            let flow = match self.whole_publish(id, &frame, &mut frames, now) {
                Some(flow) => flow,
                None => self.frame(id, &frame, now),
            };
            match flow {
                Flow::Continue => {}
                Flow::Paused(_) => {
                    self.set_aside(id, frame.channel, batch.between(left, frames.bytes_left()));
                    return self.pause(id, frames.bytes_left(), now);
                }
                flow => return flow,
            }
            if self.sessions.has_worked_enough() {
                return self.pause(id, frames.bytes_left(), now);
            }
        }
        self.sessions.flush_confirms(id, now);
        let flow = match error {
            Some(error) => self.bad_frame(id, error, now),
            None => Flow::Continue,
        };
        if flow == Flow::Continue && self.has_unfinished(id) { Flow::Unfinished(0) } else { flow }
    }

    /// Handles the next frame, or the message that it begins. With [`Flow::Paused`] it is to be handled again.
    pub(crate) fn next<'a>(
        &mut self,
        id: ConnectionId,
        frame: &RawFrame<'a>,
        frames: &mut Frames<'a>,
        now: Now,
    ) -> Flow {
        match self.whole_publish(id, frame, frames, now) {
            Some(flow) => flow,
            None => self.frame(id, frame, now),
        }
    }

    /// Handles a frame of a channel whose connection has ended since it was sent.
    pub(crate) fn late_frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>, now: Now) -> Flow {
        let Some(mut context) = self.late_context(id, frame.channel, now) else { return Flow::Continue };
        match frame_of_open_channel(&mut context, frame) {
            Ok(Progress::Done) => {}
            Ok(Progress::Paused) => return Flow::Paused(frame.bytes()),
            Err(fault) if fault.is_hard => return Flow::Close,
            Err(fault) => self.fail(id, frame.channel, &fault, now),
        }
        Flow::Continue
    }

    /// Lets others have the lock before the rest of a batch is handled.
    fn pause(&mut self, id: ConnectionId, bytes_left: usize, now: Now) -> Flow {
        self.sessions.flush_confirms(id, now);
        match self.has_unfinished(id) {
            true => Flow::Unfinished(bytes_left),
            false => Flow::Paused(bytes_left),
        }
    }

    /// Publishes the message that `frame` begins, if its frames are complete and valid. Otherwise nothing has happened,
    /// and `frame` is for [`Core::frame`]. If the search for its queues pauses, its frames are handled again.
    #[inline]
    fn whole_publish<'a>(
        &mut self,
        id: ConnectionId,
        frame: &RawFrame<'a>,
        frames: &mut Frames<'a>,
        now: Now,
    ) -> Option<Flow> {
        if frame.kind != FrameKind::Method {
            return None;
        }
        let mut ahead = frames.clone();
        let (publish, content) = content::read_whole(frame, &mut ahead, &self.globals)?;
        let mut context = self.context(id, frame.channel, now)?;
        if context.globals.alarm.is_on() || context.channel().incoming.is_some() {
            return None;
        }
        context.session_mut().has_published = true;
        let published = publish::publish(&mut context, &publish, &content);
        *frames = ahead;
        match published {
            Ok(Progress::Done) => {}
            Ok(Progress::Paused) => return Some(Flow::Paused(frame.bytes())),
            Err(fault) => self.fail(id, frame.channel, &fault.at_unless_set(content::PUBLISH), now),
        }
        Some(Flow::Continue)
    }

    /// Handles one frame of a connection. With [`Flow::Paused`], it is handled again.
    fn frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>, now: Now) -> Flow {
        let number = frame.channel;
        if let Some(mut context) = self.context(id, number, now) {
            match frame_of_open_channel(&mut context, frame) {
                Ok(Progress::Done) => {}
                Ok(Progress::Paused) => return Flow::Paused(frame.bytes()),
                Err(fault) => return self.fail_frame(id, number, &fault, now),
            }
            return Flow::Continue;
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return Flow::Close;
        };
        let stage = session.stage;
        match stage {
            Stage::Closing | Stage::Closed => return self.closing_frame(id, stage, frame),
            Stage::Open if number != 0 => match frame_of_other_channel(session, &self.globals, frame) {
                Ok(None) => {}
                Ok(Some(answer)) => self.sessions.send(id, number, &AMQPClass::Channel(answer)),
                Err(fault) => return self.fail_frame(id, number, &fault, now),
            },
            _ => match connection_frame(session, &mut self.globals, &self.vhosts, frame, now) {
                Ok(step) => return self.step(id, step, now),
                Err(fault) => return self.fail_frame(id, 0, &fault.hardened(), now),
            },
        }
        Flow::Continue
    }

    /// Reacts to a fault of a frame. As in RabbitMQ, some close the socket without a word.
    fn fail_frame(&mut self, id: ConnectionId, number: u16, fault: &Fault, now: Now) -> Flow {
        if fault.is_silent {
            self.note_end(id, &fault.reply_text());
            return Flow::Close;
        }
        self.fail(id, number, fault, now);
        Flow::Continue
    }

    /// Handles bytes that are not a frame.
    fn bad_frame(&mut self, id: ConnectionId, error: &FrameError, now: Now) -> Flow {
        match self.sessions.get(id).map(|session| session.stage) {
            Some(Stage::Closing | Stage::Closed) => Flow::Continue,
            Some(Stage::Open) => {
                let fault = match error {
                    FrameError::UnknownKind { kind, payload } => Fault::unknown_frame(*kind, payload),
                    FrameError::TooLarge { kind, payload_bytes, limit_bytes } => {
                        Fault::frame_too_large(*kind, *payload_bytes, *limit_bytes)
                    }
                    FrameError::BadEnd { kind, payload, end } => Fault::bad_frame_end(*kind, payload, *end),
                };
                self.fail(id, 0, &fault, now);
                Flow::Continue
            }
            // As in RabbitMQ, a client that has not logged in gets no explanation.
            Some(Stage::AwaitStartOk | Stage::AwaitVerdict | Stage::AwaitTuneOk | Stage::AwaitOpen) => {
                Flow::ClosePaused(REFUSED_PAUSE)
            }
            None => Flow::Close,
        }
    }

    /// Handles a frame of a connection that is closing. After our `connection.close` only its answer and the client's own
    /// close matter. After the client's close only another one does: threads that close a connection together all wait
    /// for an answer, so the client is the one to hang up.
    fn closing_frame(&mut self, id: ConnectionId, stage: Stage, frame: &RawFrame<'_>) -> Flow {
        if frame.kind != FrameKind::Method || frame.channel != 0 {
            return Flow::Continue;
        }
        match method_ids(frame.payload) {
            Some(connection::CLOSE_OK) if stage == Stage::Closing => Flow::Close,
            Some(connection::CLOSE) => {
                self.sessions.send(id, 0, &connection::close_ok());
                if stage == Stage::Closed { Flow::Continue } else { Flow::Close }
            }
            _ => Flow::Continue,
        }
    }

    /// Does what a method of the connection class calls for.
    fn step(&mut self, id: ConnectionId, step: Step, now: Now) -> Flow {
        match step {
            Step::Ignore => {}
            Step::Send(method) => self.sessions.send(id, 0, &AMQPClass::Connection(method)),
            Step::Answer(pause, verdict) => self.answer_login(id, pause, verdict, now),
            Step::Refuse => return Flow::ClosePaused(REFUSED_PAUSE),
            Step::Close => {
                self.sessions.flush_confirms(id, now);
                self.release(id, Last::ConnectionCloseOk, now);
            }
        }
        Flow::Continue
    }

    /// Answers a login, now or after a pause.
    fn answer_login(&mut self, id: ConnectionId, pause: Option<Duration>, verdict: Result<Tune, Fault>, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(pause) = pause else { return self.send_verdict(id, verdict, now) };
        session.stage = Stage::AwaitVerdict;
        let (due, nonce) = (now.instant + pause, session.nonce);
        self.sessions.pending_verdicts.push_back(PendingVerdict { due, connection: id, nonce, verdict });
    }

    /// Sends the answer to a login.
    pub(crate) fn send_verdict(&mut self, id: ConnectionId, verdict: Result<Tune, Fault>, now: Now) {
        match verdict {
            Ok(tune) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.stage = Stage::AwaitTuneOk;
                    self.sessions.send(id, 0, &connection::tune(tune));
                }
            }
            Err(fault) => self.fail(id, 0, &fault, now),
        }
    }

    /// The context of a frame; `None` unless its connection and its channel are open.
    #[inline]
    fn context(&mut self, id: ConnectionId, number: u16, now: Now) -> Option<Context<'_>> {
        self.sessions.get(id).filter(|session| session.stage == Stage::Open)?;
        self.late_context(id, number, now)
    }

    /// As [`Core::context`], also when the connection has ended since the frame was sent.
    #[inline]
    fn late_context(&mut self, id: ConnectionId, number: u16, now: Now) -> Option<Context<'_>> {
        let session = self.sessions.get(id)?;
        session.channels.get(number).filter(|channel| !channel.is_closing)?;
        let vhost = self.vhosts.get_mut(session.vhost?)?;
        let (sessions, globals, unfinished) = (&mut self.sessions, &mut self.globals, &mut self.unfinished);
        Some(Context { id, number, now, vhost, sessions, globals, unfinished })
    }
}

/// A frame on channel 0, or one before the connection is open.
fn connection_frame(
    session: &mut Session,
    globals: &mut Globals,
    vhosts: &[Vhost],
    frame: &RawFrame<'_>,
    now: Now,
) -> Result<Step, Fault> {
    match frame.kind {
        FrameKind::Heartbeat if frame.channel == 0 => return Ok(Step::Ignore),
        FrameKind::Method => {}
        kind => return Err(Fault::unexpected_kind(kind.octet(), frame.payload)),
    }
    let ids = method_ids(frame.payload).unwrap_or_default();
    match read_method(frame.payload, Role::Client, globals.rules.limits.table_depth_max) {
        Ok(Method::Other(class)) if frame.channel == 0 => match *class {
            AMQPClass::Connection(method) => connection::method(session, globals, vhosts, method, now),
            _ => connection::unexpected_method(session),
        },
        Ok(_) | Err(MethodError::Foreign { .. }) => connection::unexpected_method(session),
        Err(MethodError::Unknown { class_id, method_id }) => Err(Fault::unknown_method(class_id, method_id)),
        // As in RabbitMQ, a client that has not logged in gets no explanation.
        Err(_) if !matches!(session.stage, Stage::Open | Stage::AwaitOpen) => Ok(Step::Refuse),
        // On channel 0 RabbitMQ names the method, on other channels it does not.
        Err(MethodError::NotUtf8 { .. }) => Err(Fault::malformed_utf8().at(ids)),
        Err(error) => Err(unreadable(frame, error)),
    }
    .map_err(|fault| fault.at_unless_set(ids))
}

fn frame_of_open_channel(context: &mut Context<'_>, frame: &RawFrame<'_>) -> Result<Progress, Fault> {
    match frame.kind {
        FrameKind::Method => channel_method(context, frame).map(|()| Progress::Done),
        FrameKind::Header => content::header(context, frame),
        FrameKind::Body => content::body(context, frame),
        FrameKind::Heartbeat => Err(Fault::unexpected_kind(frame.kind.octet(), frame.payload)),
    }
}

/// A frame of a channel that is closed, or waits for `channel.close-ok`. Returns the answer.
fn frame_of_other_channel(
    session: &mut Session,
    globals: &Globals,
    frame: &RawFrame<'_>,
) -> Result<Option<AMQPMethod>, Fault> {
    if frame.kind == FrameKind::Heartbeat {
        return Err(Fault::unexpected_kind(frame.kind.octet(), frame.payload));
    }
    if frame.kind == FrameKind::Method
        && let Err(MethodError::Unknown { class_id, method_id }) = method_of(frame, &globals.rules.limits)
    {
        return Err(Fault::unknown_method(class_id, method_id));
    }
    match session.channels.get(frame.channel) {
        None => open_channel(session, globals, frame).map(Some),
        Some(_) => channel::frame_of_closing(session, frame),
    }
}

fn channel_method(context: &mut Context<'_>, frame: &RawFrame<'_>) -> Result<(), Fault> {
    match context.channel().incoming {
        None => {}
        Some(Incoming { has_header: false, .. }) => {
            return Err(Fault::expected_header("non content header frame").at(content::PUBLISH));
        }
        Some(Incoming { has_header: true, .. }) => return Err(Fault::expected_body().at(content::PUBLISH)),
    }
    let ids = method_ids(frame.payload).unwrap_or_default();
    call_method(context, frame).map_err(|fault| fault.at_unless_set(ids))
}

fn call_method(context: &mut Context<'_>, frame: &RawFrame<'_>) -> Result<(), Fault> {
    match read(frame, &context.globals.rules.limits)? {
        Method::Publish(publish) => content::begin(context, &publish),
        Method::Ack(ack) => settle::settle(context, ack.delivery_tag, ack.multiple, Settle::Ack),
        Method::Other(class) => match *class {
            AMQPClass::Channel(method) => channel::method(context, method),
            AMQPClass::Exchange(method) => exchange::method(context, method),
            AMQPClass::Queue(method) => queue::method(context, method),
            AMQPClass::Basic(method) => basic::method(context, method, frame.payload),
            AMQPClass::Confirm(method) => confirm::method(context, &method),
            AMQPClass::Tx(method) => tx::method(context, &method),
            AMQPClass::Connection(_) => Err(Fault::unimplemented_method()),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                // AMQP 0-9-1 keeps this method of 0-8 only so that clients may still send it.
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                context.send(&AMQPClass::Access(ok));
                Ok(())
            }
            AMQPClass::Access(access::AMQPMethod::RequestOk(_)) => Err(Fault::unimplemented_method()),
        },
    }
}

/// A frame of a closed channel: only `channel.open` is valid.
fn open_channel(session: &mut Session, globals: &Globals, frame: &RawFrame<'_>) -> Result<AMQPMethod, Fault> {
    if frame.kind != FrameKind::Method {
        return Err(Fault::expected_method());
    }
    let ids = method_ids(frame.payload).unwrap_or_default();
    if ids != channel::OPEN {
        return Err(Fault::channel_error("expected 'channel.open'").at(ids));
    }
    read(frame, &globals.rules.limits)?;
    channel::open(session, frame.channel, &globals.memory)
}

/// The method of a method frame, or the fault of its bytes.
fn read<'a>(frame: &RawFrame<'a>, limits: &Limits) -> Result<Method<'a>, Fault> {
    method_of(frame, limits).map_err(|error| unreadable(frame, error))
}

fn method_of<'a>(frame: &RawFrame<'a>, limits: &Limits) -> Result<Method<'a>, MethodError> {
    read_method(frame.payload, Role::Client, limits.table_depth_max)
}

/// The fault of a payload that is no method of a client.
fn unreadable(frame: &RawFrame<'_>, error: MethodError) -> Fault {
    match error {
        MethodError::Truncated => Fault::unknown_frame(frame.kind.octet(), frame.payload),
        MethodError::Unknown { class_id, method_id } => Fault::unknown_method(class_id, method_id),
        MethodError::Foreign { class_id, method_id } => Fault::unimplemented_method().at((class_id, method_id)),
        MethodError::NotUtf8 { .. } => Fault::malformed_utf8(),
        MethodError::Malformed { class_id, method_id } => {
            Fault::undecodable(frame.payload.get(4..).unwrap_or_default()).at((class_id, method_id))
        }
    }
}

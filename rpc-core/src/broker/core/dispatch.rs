//! From frames to methods: which part of the core a frame is for, and what happens when it is for none.

use amq_protocol::protocol::{AMQPClass, access, channel as channel_class, connection as connection_class};

use super::{
    ConnectionId, Core, Fault, Flow, Limits, Now,
    channel::{Channel, Incoming, Settle},
    connection::REFUSED_PAUSE,
    session::{Stage, short},
};
use crate::wire::{FrameError, FrameKind, Method, MethodError, RawFrame, method_ids, read_method};

impl Core {
    /// Handles one frame of a connection.
    pub(super) fn frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>, now: Now) -> Flow {
        let Some(stage) = self.sessions.get(id).map(|session| session.stage) else {
            return Flow::Close;
        };
        if matches!(stage, Stage::Closing | Stage::Closed) {
            return self.closing_frame(id, stage, frame);
        }
        if stage == Stage::Open && frame.channel != 0 {
            return match self.channel_frame(id, frame, now) {
                Ok(()) => Flow::Continue,
                Err(fault) => self.fail(id, frame.channel, &fault, now),
            };
        }
        match self.connection_frame(id, frame, now) {
            Ok(flow) => flow,
            Err(fault) => self.fail(id, 0, &fault.hardened(), now),
        }
    }

    /// Bytes that are no frame.
    pub(super) fn bad_frame(&mut self, id: ConnectionId, error: &FrameError, now: Now) -> Flow {
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
                self.fail(id, 0, &fault, now)
            }
            // Those who have not introduced themselves get no explanation.
            Some(Stage::AwaitStartOk | Stage::AwaitTuneOk | Stage::AwaitOpen) => Flow::ClosePaused(REFUSED_PAUSE),
            None => Flow::Close,
        }
    }

    /// Closes a channel or the connection over a fault.
    pub(super) fn fail(&mut self, id: ConnectionId, number: u16, fault: &Fault, now: Now) -> Flow {
        tracing::debug!(connection = id.0, channel = number, text = fault.reply_text(), "fault");
        self.end_batch(id, now);
        let (reply_code, reply_text) = (fault.code.number(), short(&fault.reply_text()));
        let Fault { class_id, method_id, .. } = *fault;
        let freed = if fault.is_hard {
            let close = connection_class::Close { reply_code, reply_text, class_id, method_id };
            self.sessions.send(id, 0, &AMQPClass::Connection(connection_class::AMQPMethod::Close(close)));
            if let Some(session) = self.sessions.get_mut(id) {
                session.stage = Stage::Closing;
            }
            self.end_channels(id, now)
        } else {
            let freed = self.end_channel(id, number, now);
            if let Some(channel) = self.sessions.channel_mut(id, number) {
                *channel = Channel::closing();
            }
            let close = channel_class::Close { reply_code, reply_text, class_id, method_id };
            self.sessions.send(id, number, &AMQPClass::Channel(channel_class::AMQPMethod::Close(close)));
            freed
        };
        self.deliver_all(id, freed, now);
        Flow::Continue
    }

    /// After our `connection.close` only its answer, and the client's own close, mean anything. After the client's, only
    /// another one does: threads that close a connection together all wait for an answer, so the client ends it.
    fn closing_frame(&mut self, id: ConnectionId, stage: Stage, frame: &RawFrame<'_>) -> Flow {
        if frame.kind != FrameKind::Method || frame.channel != 0 {
            return Flow::Continue;
        }
        match method_ids(frame.payload) {
            Some(CLOSE_OK) if stage == Stage::Closing => Flow::Close,
            Some(CLOSE) => {
                self.send_close_ok(id);
                if stage == Stage::Closed { Flow::Continue } else { Flow::Close }
            }
            _ => Flow::Continue,
        }
    }

    /// A frame on channel 0, or one before the connection is open.
    fn connection_frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>, now: Now) -> Result<Flow, Fault> {
        match frame.kind {
            FrameKind::Heartbeat if frame.channel == 0 => return Ok(Flow::Continue),
            FrameKind::Method => {}
            kind => return Err(Fault::unexpected_kind(kind.octet(), frame.payload)),
        }
        let ids = method_ids(frame.payload).unwrap_or_default();
        match read(frame, &self.rules.limits)? {
            Method::Other(class) if frame.channel == 0 => match *class {
                AMQPClass::Connection(method) => self.connection_method(id, method, now),
                _ => self.unexpected_method(id),
            },
            _ => self.unexpected_method(id),
        }
        .map_err(|fault| fault.at_unless_set(ids))
    }

    fn channel_frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>, now: Now) -> Result<(), Fault> {
        let number = frame.channel;
        if frame.kind == FrameKind::Heartbeat {
            return Err(Fault::unexpected_kind(frame.kind.octet(), frame.payload));
        }
        let Some(channel) = self.sessions.channel_mut(id, number) else {
            return self.unopened_channel(id, frame);
        };
        if channel.is_closing {
            return self.closing_channel_frame(id, frame);
        }
        match frame.kind {
            FrameKind::Header => self.content_header(id, number, frame, now),
            FrameKind::Body => self.content_body(id, number, frame, now),
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Method => {
                match channel.incoming {
                    None => {}
                    Some(Incoming { has_header: false, .. }) => {
                        return Err(Fault::expected_header("non content header frame").at(PUBLISH));
                    }
                    Some(Incoming { has_header: true, .. }) => return Err(Fault::expected_body().at(PUBLISH)),
                }
                let ids = method_ids(frame.payload).unwrap_or_default();
                self.channel_method(id, number, frame, now).map_err(|fault| fault.at_unless_set(ids))
            }
        }
    }

    fn channel_method(&mut self, id: ConnectionId, number: u16, frame: &RawFrame<'_>, now: Now) -> Result<(), Fault> {
        match read(frame, &self.rules.limits)? {
            Method::Publish(publish) => self.begin_publish(id, number, &publish),
            Method::Ack(ack) => self.settle(id, number, ack.delivery_tag, ack.multiple, Settle::Ack, now),
            Method::Other(class) => match *class {
                AMQPClass::Channel(method) => self.channel_class(id, number, method, now),
                AMQPClass::Exchange(method) => {
                    let result = self.exchange_method(id, number, method);
                    self.count_topology(id);
                    result
                }
                AMQPClass::Queue(method) => {
                    let result = self.queue_method(id, number, method, now);
                    self.count_topology(id);
                    result
                }
                AMQPClass::Basic(method) => self.basic_method(id, number, method, frame.payload, now),
                AMQPClass::Confirm(method) => self.confirm_method(id, number, &method),
                AMQPClass::Tx(method) => self.tx_method(id, number, &method, now),
                AMQPClass::Connection(_) => Err(Fault::unimplemented_method()),
                AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                    // Of AMQP 0-8: there is nothing to ask for any more.
                    let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                    self.sessions.send(id, number, &AMQPClass::Access(ok));
                    Ok(())
                }
                AMQPClass::Access(access::AMQPMethod::RequestOk(_)) => Err(Fault::unimplemented_method()),
            },
        }
    }

    fn unopened_channel(&mut self, id: ConnectionId, frame: &RawFrame<'_>) -> Result<(), Fault> {
        if frame.kind != FrameKind::Method {
            return Err(Fault::expected_method());
        }
        let ids = method_ids(frame.payload).unwrap_or_default();
        if ids != CHANNEL_OPEN {
            return Err(Fault::channel_error("expected 'channel.open'").at(ids));
        }
        read(frame, &self.rules.limits)?;
        let channel = Channel::open(&self.memory);
        let session = self.session_mut(id)?;
        let (open, max) = (session.channels.len(), session.channel_max);
        if open >= usize::from(max) {
            return Err(Fault::too_many_channels(open, max));
        }
        session.channels.insert(frame.channel, channel);
        let open_ok = channel_class::AMQPMethod::OpenOk(channel_class::OpenOk {});
        self.sessions.send(id, frame.channel, &AMQPClass::Channel(open_ok));
        Ok(())
    }

    /// After our `channel.close` everything is ignored until its answer; the client's own close, which crossed ours, is
    /// answered all the same.
    fn closing_channel_frame(&mut self, id: ConnectionId, frame: &RawFrame<'_>) -> Result<(), Fault> {
        if frame.kind != FrameKind::Method {
            return Ok(());
        }
        match method_ids(frame.payload) {
            Some(CHANNEL_CLOSE) => {
                let close_ok = channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {});
                self.sessions.send(id, frame.channel, &AMQPClass::Channel(close_ok));
            }
            Some(CHANNEL_CLOSE_OK) => drop(self.session_mut(id)?.channels.remove(frame.channel)),
            Some(CHANNEL_OPEN) => return Err(Fault::second_channel_open().at(CHANNEL_OPEN)),
            _ => {}
        }
        Ok(())
    }

    fn channel_class(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: channel_class::AMQPMethod,
        now: Now,
    ) -> Result<(), Fault> {
        use channel_class::{AMQPMethod, CloseOk, FlowOk};
        match method {
            AMQPMethod::Open(_) => Err(Fault::second_channel_open()),
            AMQPMethod::Flow(flow) if !flow.active => Err(Fault::not_implemented("active=false")),
            AMQPMethod::Flow(_) => {
                let ok = AMQPMethod::FlowOk(FlowOk { active: true });
                self.sessions.send(id, number, &AMQPClass::Channel(ok));
                Ok(())
            }
            AMQPMethod::Close(_) => {
                self.end_batch(id, now);
                let freed = self.end_channel(id, number, now);
                self.sessions.send(id, number, &AMQPClass::Channel(AMQPMethod::CloseOk(CloseOk {})));
                self.session_mut(id)?.channels.remove(number);
                self.deliver_all(id, freed, now);
                Ok(())
            }
            AMQPMethod::CloseOk(_) | AMQPMethod::OpenOk(_) | AMQPMethod::FlowOk(_) => {
                Err(Fault::unimplemented_method())
            }
        }
    }
}

/// A method frame's method, or the fault its bytes are.
fn read<'a>(frame: &RawFrame<'a>, limits: &Limits) -> Result<Method<'a>, Fault> {
    read_method(frame.payload, limits.table_depth_max).map_err(|error| match error {
        MethodError::Truncated => Fault::unknown_frame(frame.kind.octet(), frame.payload),
        MethodError::Unknown { class_id, method_id } => {
            Fault::not_implemented(format!("method {method_id} of class {class_id}")).at((class_id, method_id))
        }
        MethodError::Malformed { class_id, method_id } => {
            Fault::undecodable(frame.payload.get(4..).unwrap_or_default()).at((class_id, method_id))
        }
    })
}

const CLOSE: (u16, u16) = (10, 50);
const CLOSE_OK: (u16, u16) = (10, 51);
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
const PUBLISH: (u16, u16) = (60, 40);

//! The broker without its sockets: frames in, output out. Pure: time and randomness are arguments.
//!
//! ```text
//!  open ─► ConnectionId
//!  frame ─► Session ─► Channel ─► Vhost: Router, Queue ─► Sessions' output ─► take_output
//!  tick(now): expiry                                                    (any connection's)
//! ```
//!
//! One value for the whole broker: whoever holds it locks it for a batch of frames, and never across an await.

mod basic;
mod channel;
mod channel_methods;
mod connection;
mod exchange;
mod fault;
mod message;
mod publish;
mod queue;
mod queue_arguments;
mod queue_methods;
mod session;
#[cfg(test)]
mod tests;
mod vhost;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use amq_protocol::protocol::{AMQPClass, channel as channel_class, connection as connection_class};

pub(crate) use self::fault::Fault;
use self::{
    channel::Channel,
    session::{Session, Sessions, Stage},
    vhost::Vhost,
};
use crate::wire::{FrameError, FrameKind, Method, MethodError, OutBuffer, RawFrame, method_ids, read_method};

/// Names a connection while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) usize);

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Seconds since 1970, for `x-death`.
    pub(crate) unix_s: u64,
}

/// What the core enforces.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) users: HashMap<String, String>,
    pub(crate) vhosts: Vec<String>,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) message_max_bytes: u64,
    pub(crate) connections_max: usize,
}

/// What the owner of the socket does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// Write what there is, then close the socket.
    Close,
    /// As `Close`, but not before a pause: RabbitMQ makes those who guess passwords wait.
    ClosePaused(Duration),
}

/// What was negotiated, for the owner of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) is_open: bool,
    /// How long to wait for the answer, after we sent `connection.close`.
    pub(crate) closing_limit: Option<Duration>,
}

/// The broker's state.
#[derive(Debug)]
pub(crate) struct Core {
    rules: Rules,
    vhosts: HashMap<Arc<str>, Vhost>,
    sessions: Sessions,
    random: u64,
}

impl Core {
    /// An empty broker. `seed` drives generated names.
    pub(crate) fn new(rules: Rules, seed: u64) -> Self {
        let vhosts = rules.vhosts.iter().map(|name| (Arc::from(name.as_str()), Vhost::new(name))).collect();
        Self { rules, vhosts, sessions: Sessions::default(), random: seed }
    }

    /// A new connection, whose protocol header was good. `backlog` is what its writer has not written yet.
    pub(crate) fn open(&mut self, backlog: Arc<AtomicUsize>, version_0_8: bool) -> Option<ConnectionId> {
        if self.sessions.len() >= self.rules.connections_max {
            return None;
        }
        let nonce = self.random();
        let id = self.sessions.add(backlog, nonce, self.rules.frame_max);
        self.send_start(id, version_0_8);
        Some(id)
    }

    /// Handles one frame of a connection.
    pub(crate) fn frame(&mut self, id: ConnectionId, frame: &RawFrame, now: Now) -> Flow {
        let stage = match self.sessions.get(id) {
            Some(session) => session.stage,
            None => return Flow::Close,
        };
        match stage {
            Stage::Closing => self.closing_frame(id, frame),
            _ if frame.kind == FrameKind::Heartbeat && frame.payload.is_empty() && frame.channel == 0 => Flow::Continue,
            _ if frame.kind == FrameKind::Heartbeat => {
                let fault = match frame.payload.is_empty() {
                    true => Fault::unexpected_octets(frame),
                    false => Fault::unknown_frame(frame.kind.octet(), &frame.payload),
                };
                self.fail(id, 0, &fault, now)
            }
            Stage::Open if frame.channel != 0 => {
                if let Err(fault) = self.channel_frame(id, frame, now) {
                    return self.fail(id, frame.channel, &fault, now);
                }
                Flow::Continue
            }
            _ => match self.connection_frame(id, frame, now) {
                Ok(flow) => flow,
                Err(fault) => self.fail(id, 0, &Fault { is_hard: true, ..fault }, now),
            },
        }
    }

    /// Bytes that are no frame.
    pub(crate) fn bad_frame(&mut self, id: ConnectionId, error: &FrameError, now: Now) -> Flow {
        match self.sessions.get(id).map(|session| session.stage) {
            // RabbitMQ: those who have not introduced themselves get no explanation.
            Some(Stage::AwaitStartOk | Stage::AwaitTuneOk | Stage::AwaitOpen) => {
                return Flow::ClosePaused(connection::REFUSED_PAUSE);
            }
            Some(Stage::Open) => {}
            // What came before the answer to our close is of no interest.
            Some(Stage::Closing) => return Flow::Continue,
            None => return Flow::Close,
        }
        let text = match error {
            FrameError::UnknownKind { kind, payload } => {
                return self.fail(id, 0, &Fault::unknown_frame(*kind, payload), now);
            }
            FrameError::TooLarge { kind, payload_bytes, limit_bytes } => {
                format!("type {kind}, all octets = <<>>: {{frame_too_large,{payload_bytes},{limit_bytes}}}")
            }
            FrameError::BadEnd { kind, payload, end } => {
                let octets = fault::octets(payload);
                // Erlang breaks lines at 80 columns; the break and the indentation are RabbitMQ's.
                let space = if payload.is_empty() { String::new() } else { format!("\n{}", " ".repeat(53)) };
                format!("type {kind}, all octets = {octets}: {{invalid_frame_end_marker,{space}{end}}}")
            }
        };
        self.fail(id, 0, &Fault::frame_error(text), now)
    }

    /// Ends a batch: confirms that were merged go out.
    pub(crate) fn end_batch(&mut self, id: ConnectionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let confirms: Vec<_> = session
            .channels
            .iter_mut()
            .filter_map(|(number, channel)| channel.confirms.flush().map(|confirm| (*number, confirm)))
            .collect();
        for (number, confirm) in confirms {
            self.send_confirm(id, number, confirm);
        }
    }

    /// Forgets a connection: what it had not acknowledged goes back, then its exclusive queues go.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Now) {
        let mut channels: Vec<_> = match self.sessions.get(id) {
            Some(session) => session.channels.keys().copied().collect(),
            None => return,
        };
        channels.sort_unstable();
        let mut freed = Vec::new();
        for number in channels {
            freed.extend(self.end_channel(id, number, now));
        }
        let vhost = self.sessions.vhost_of(id);
        self.sessions.remove(id);
        if let Some(vhost) = self.vhosts.get_mut(&vhost) {
            for key in vhost.exclusive_to(id) {
                vhost.delete_queue(key, &mut self.sessions);
            }
            for key in freed {
                vhost.deliver(key, now, &mut self.sessions);
            }
            vhost.route_dead(now, &mut self.sessions);
        }
    }

    /// Asks a client to leave.
    pub(crate) fn shut_down_one(&mut self, id: ConnectionId, now: Now) {
        if self.sessions.get(id).is_some_and(|session| session.stage != Stage::Closing) {
            let text = "broker forced connection closure with reason 'shutdown'";
            self.fail(id, 0, &Fault::connection_forced(text), now);
        }
    }

    /// A client reads again: its queues may deliver.
    pub(crate) fn resume(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let mut keys: Vec<_> = session
            .channels
            .values()
            .flat_map(|channel| channel.consumers.iter().flatten().map(|consumer| consumer.queue))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if let Some(vhost) = self.vhosts.get_mut(&self.sessions.vhost_of(id)) {
            for key in keys {
                vhost.deliver(key, now, &mut self.sessions);
            }
            vhost.route_dead(now, &mut self.sessions);
        }
    }

    /// When something happens by itself.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.vhosts.values().filter_map(Vhost::next_timer).min()
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Now) {
        for vhost in self.vhosts.values_mut() {
            vhost.tick(now, &mut self.sessions);
        }
    }

    /// Hands every connection's output to `write`, which takes it.
    pub(crate) fn take_output(&mut self, write: impl FnMut(ConnectionId, &mut OutBuffer)) {
        self.sessions.take_output(write);
    }

    pub(crate) fn heartbeat(&mut self, id: ConnectionId) {
        if let Some(out) = self.sessions.out(id) {
            out.heartbeat();
        }
    }

    pub(crate) fn negotiated(&self, id: ConnectionId) -> Option<Negotiated> {
        let session = self.sessions.get(id)?;
        let is_closing = session.stage == Stage::Closing;
        let is_open = is_closing || session.stage == Stage::Open;
        let closing_limit = is_closing.then_some(match session.user.is_empty() {
            true => connection::REFUSED_PAUSE,
            false => CLOSE_OK_TIMEOUT,
        });
        Some(Negotiated { frame_max: session.frame_max, heartbeat_s: session.heartbeat_s, is_open, closing_limit })
    }

    fn closing_frame(&mut self, id: ConnectionId, frame: &RawFrame) -> Flow {
        if frame.kind != FrameKind::Method || frame.channel != 0 {
            return Flow::Continue;
        }
        match method_ids(&frame.payload) {
            Some(CLOSE_OK) => Flow::Close,
            Some(CLOSE) => {
                let close_ok = connection_class::AMQPMethod::CloseOk(connection_class::CloseOk {});
                self.sessions.send(id, 0, &AMQPClass::Connection(close_ok));
                Flow::Close
            }
            _ => Flow::Continue,
        }
    }

    /// A frame on channel 0, or one before the connection is open.
    fn connection_frame(&mut self, id: ConnectionId, frame: &RawFrame, now: Now) -> Result<Flow, Fault> {
        if frame.kind != FrameKind::Method {
            return Err(Fault::unexpected_octets(frame));
        }
        if frame.channel != 0 {
            return Err(Fault::channel_error("a channel was used before the connection was open"));
        }
        let ids = method_ids(&frame.payload).unwrap_or_default();
        if let Method::Other(class) = read(frame)?
            && let AMQPClass::Connection(method) = *class
        {
            return self.connection_method(id, method, ids, now);
        }
        self.unexpected_method(id, ids)
    }

    fn channel_frame(&mut self, id: ConnectionId, frame: &RawFrame, now: Now) -> Result<(), Fault> {
        let number = frame.channel;
        let Some(channel) = self.sessions.channel_mut(id, number) else {
            return self.unopened_channel(id, frame);
        };
        if channel.is_closing {
            self.closing_channel_frame(id, frame);
            return Ok(());
        }
        match frame.kind {
            FrameKind::Header => self.content_header(id, number, &frame.payload, now),
            FrameKind::Body => self.content_body(id, number, &frame.payload, now),
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Method => {
                let ids = method_ids(&frame.payload).unwrap_or_default();
                if let Some(incoming) = &channel.incoming {
                    let text = match incoming.properties {
                        None => "expected content header for class 60, got non content header frame instead",
                        Some(_) => "expected content body, got non content body frame instead",
                    };
                    return Err(Fault::unexpected_frame(text).at(PUBLISH));
                }
                self.channel_method(id, number, frame, now).map_err(|fault| match fault.class_id {
                    0 => fault.at(ids),
                    _ => fault,
                })
            }
        }
    }

    fn channel_method(&mut self, id: ConnectionId, number: u16, frame: &RawFrame, now: Now) -> Result<(), Fault> {
        match read(frame)? {
            Method::Publish(publish) => self.begin_publish(id, number, publish),
            Method::Ack(ack) => self.settle(id, number, ack.delivery_tag, ack.multiple, channel::Settle::Ack, now),
            Method::Other(class) => match *class {
                AMQPClass::Channel(method) => self.channel_class(id, number, method, now),
                AMQPClass::Exchange(method) => self.exchange_method(id, number, method, now),
                AMQPClass::Queue(method) => self.queue_method(id, number, method, now),
                AMQPClass::Basic(method) => self.basic_method(id, number, method, &frame.payload, now),
                AMQPClass::Confirm(method) => self.confirm_method(id, number, method),
                AMQPClass::Tx(method) => self.tx_method(id, number, &method, now),
                AMQPClass::Connection(_) => Err(Fault::unimplemented()),
                AMQPClass::Access(_) => {
                    let ok = amq_protocol::protocol::access::RequestOk {};
                    let ok = amq_protocol::protocol::access::AMQPMethod::RequestOk(ok);
                    self.sessions.send(id, number, &AMQPClass::Access(ok));
                    Ok(())
                }
            },
        }
    }

    /// Closes a channel or the connection over a fault.
    fn fail(&mut self, id: ConnectionId, number: u16, fault: &Fault, now: Now) -> Flow {
        tracing::debug!(connection = id.0, channel = number, text = fault.reply_text(), "fault");
        self.end_batch(id);
        let (reply_code, reply_text) = (fault.code.number(), fault.reply_text().into());
        let Fault { class_id, method_id, .. } = *fault;
        if !fault.is_hard {
            let freed = self.end_channel(id, number, now);
            if let Some(channel) = self.sessions.channel_mut(id, number) {
                *channel = Channel::closing();
            }
            let close = channel_class::Close { reply_code, reply_text, class_id, method_id };
            self.sessions.send(id, number, &AMQPClass::Channel(channel_class::AMQPMethod::Close(close)));
            self.deliver_all(id, freed, now);
            return Flow::Continue;
        }
        let close = connection_class::Close { reply_code, reply_text, class_id, method_id };
        self.sessions.send(id, 0, &AMQPClass::Connection(connection_class::AMQPMethod::Close(close)));
        if let Some(session) = self.sessions.get_mut(id) {
            session.stage = Stage::Closing;
        }
        Flow::Continue
    }

    /// Takes a channel's consumers out of their queues and requeues what it had not acknowledged. Returns the queues
    /// that may have something to deliver now.
    fn end_channel(&mut self, id: ConnectionId, number: u16, now: Now) -> Vec<vhost::QueueKey> {
        let name = self.sessions.vhost_of(id);
        let Some(vhost) = self.vhosts.get_mut(&name) else { return Vec::new() };
        let Some(channel) = self.sessions.channel_mut(id, number) else { return Vec::new() };
        let unacked = channel.settle_all();
        // A transaction that is not committed un-acks what it settled.
        let held = match std::mem::take(&mut channel.mode) {
            channel::Mode::Transaction(transaction) => transaction.settlements,
            _ => Vec::new(),
        };
        let consumers: Vec<_> = channel.consumers.drain(..).flatten().collect();
        channel.direct_replies = None;
        let mut freed: Vec<_> = Vec::new();
        for delivered in unacked.into_iter().chain(held.into_iter().map(|(delivered, _)| delivered)) {
            freed.push(delivered.queue);
            vhost.requeue(delivered.queue, delivered.entry);
        }
        for consumer in consumers {
            freed.push(consumer.queue);
            self.remove_from_queue(id, number, &consumer.tag, consumer.queue, now);
        }
        freed.sort_unstable();
        freed.dedup();
        freed
    }

    /// Takes a consumer out of its queue, and the queue away if it was an auto-delete queue's last.
    fn remove_from_queue(&mut self, id: ConnectionId, number: u16, tag: &[u8], key: vhost::QueueKey, now: Now) {
        let name = self.sessions.vhost_of(id);
        let Some(vhost) = self.vhosts.get_mut(&name) else { return };
        let Some(queue) = vhost.queues.get_mut(&key) else { return };
        if queue.remove_consumer(id, number, tag).is_none() {
            return;
        }
        queue.last_used = now.instant;
        if queue.auto_delete && queue.consumers.is_empty() {
            vhost.delete_queue(key, &mut self.sessions);
        } else {
            vhost.set_timer(key);
        }
    }

    fn deliver_all(&mut self, id: ConnectionId, keys: Vec<vhost::QueueKey>, now: Now) {
        if let Some(vhost) = self.vhosts.get_mut(&self.sessions.vhost_of(id)) {
            for key in keys {
                vhost.deliver(key, now, &mut self.sessions);
            }
            vhost.route_dead(now, &mut self.sessions);
        }
    }

    /// The vhost of a connection, and everything else of the core that goes with it.
    fn vhost(&mut self, id: ConnectionId) -> Result<(&mut Vhost, &mut Sessions), Fault> {
        let name = self.sessions.vhost_of(id);
        match self.vhosts.get_mut(&name) {
            Some(vhost) => Ok((vhost, &mut self.sessions)),
            None => Err(Fault::not_allowed(format!("vhost {name} not found"))),
        }
    }

    fn session_mut(&mut self, id: ConnectionId) -> Result<&mut Session, Fault> {
        self.sessions.get_mut(id).ok_or_else(|| Fault::connection_forced("the connection is gone"))
    }

    fn channel_mut(&mut self, id: ConnectionId, number: u16) -> Result<&mut Channel, Fault> {
        self.sessions.channel_mut(id, number).ok_or_else(|| Fault::channel_error("expected 'channel.open'"))
    }

    /// xorshift64*: names need to differ, not to be secret.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `prefix` and 22 characters of url-safe base64.
    fn generated_name(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut name = String::with_capacity(prefix.len() + 22);
        name.push_str(prefix);
        for _ in 0..2 {
            let mut bits = self.random();
            for _ in 0..11 {
                name.push(char::from(ALPHABET[(bits >> 58) as usize]));
                bits = bits.rotate_left(5);
            }
        }
        name
    }
}

/// A method frame's method, or the fault its bytes are.
fn read(frame: &RawFrame) -> Result<Method, Fault> {
    read_method(&frame.payload).map_err(|error| match error {
        MethodError::Truncated => Fault::unknown_frame(frame.kind.octet(), &frame.payload),
        MethodError::Unknown { class_id, method_id } => {
            Fault::not_implemented(format!("no method {method_id} of class {class_id}")).at((class_id, method_id))
        }
        MethodError::Malformed { class_id, method_id } => {
            let octets = fault::octets(frame.payload.get(4..).unwrap_or_default());
            Fault::frame_error(format!("cannot decode {octets}")).at((class_id, method_id))
        }
    })
}

/// For clients busy with something else when we close; who has not logged in gets less.
const CLOSE_OK_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE: (u16, u16) = (10, 50);
const CLOSE_OK: (u16, u16) = (10, 51);
const PUBLISH: (u16, u16) = (60, 40);

//! The broker without its sockets: frames in, output out. Pure: time and randomness are arguments.
//!
//! ```text
//!  open ─► ConnectionId
//!  batch ─► Session ─► Channel ─► Vhost: Router, Queue ─► Sessions' output ─► take_output
//!  tick(now): expiry, deliveries kept too long                          (any connection's)
//! ```
//!
//! One value for the whole broker: whoever holds it locks it for a batch of frames, and never across an await.

mod access;
mod basic;
mod channel;
mod channels;
mod confirms;
mod connection;
mod dead_letter;
mod dispatch;
mod exchange;
mod fault;
mod incoming;
mod injected;
mod inspect;
#[cfg(any(test, fuzzing))]
mod invariants;
mod limits;
mod memory;
mod message;
mod overdue;
mod publish;
mod queue;
mod queue_arguments;
mod queue_methods;
mod reply_address;
mod session;
mod settle;
mod settled;
mod stream;
#[cfg(test)]
mod tests;
mod tx;
mod unacked;
mod vhost;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::{Duration, Instant},
};

pub use self::inspect::{BindingInfo, ConnectionInfo, ExchangeInfo, QueueInfo};
pub(crate) use self::limits::Limits;
pub(crate) use self::{
    access::{Grants, Pattern, Permissions, TopicPermissions, User},
    fault::Fault,
    injected::ConfirmTiming,
    memory::Memory,
};
use self::{
    channel::Channel,
    injected::Injected,
    message::Entry,
    queue::Comeback,
    session::{Session, Sessions, Stage},
    vhost::{QueueKey, Vhost},
};
use crate::wire::{Batch, FrameError, OutBuffer};

/// Names a connection while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) usize);

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// `host:port`.
    pub(crate) address: String,
    /// Whether it is on this machine.
    pub(crate) is_loopback: bool,
    /// The name in its certificate, when it showed one that was verified.
    pub(crate) certificate_name: Option<String>,
}

/// What the core and the owner of a socket tell each other without a lock.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes handed to the writer and not written yet.
    pub(crate) backlog: AtomicUsize,
    /// Nothing more is handled that the client sends: it is blocked.
    pub(crate) is_held: AtomicBool,
}

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
    pub(crate) users: HashMap<String, User>,
    pub(crate) vhosts: Vec<String>,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) message_max_bytes: u64,
    pub(crate) connections_max: usize,
    pub(crate) limits: Limits,
}

/// What is left to be dropped.
#[derive(Debug)]
pub(crate) struct Garbage(Vec<VecDeque<Entry>>);

impl Garbage {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the owner of the socket does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// So many bytes at the end of the batch are for later: the connection is blocked now, or others have waited long
    /// enough for the lock.
    Paused(usize),
    /// Write what there is, then close the socket.
    Close,
    /// As `Close`, but not before a pause: RabbitMQ makes those who guess passwords wait.
    ClosePaused(Duration),
}

/// How far a connection is, for the owner of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) frame_max: u32,
    pub(crate) heartbeat_s: u16,
    pub(crate) is_open: bool,
    /// How long to wait for the client's last word, after a `connection.close`.
    pub(crate) closing_limit: Option<Duration>,
}

/// The broker's state.
#[derive(Debug)]
pub(crate) struct Core {
    rules: Rules,
    vhosts: Vec<Vhost>,
    sessions: Sessions,
    memory: Arc<Memory>,
    random: u64,
    /// When channels are looked at for what they have kept too long.
    next_look: Option<Instant>,
}

impl Core {
    /// An empty broker. `seed`, which is not 0, drives generated names.
    pub(crate) fn new(rules: Rules, seed: u64) -> Self {
        let memory = Arc::new(Memory::new(rules.limits.memory_high_watermark));
        let vhosts = rules.vhosts.iter().map(|name| Vhost::new(name, rules.limits, &memory)).collect();
        let sessions = Sessions::new(Arc::clone(&memory), rules.limits.outbox_max_bytes);
        Self { rules, vhosts, sessions, memory, random: seed, next_look: None }
    }

    /// A new connection, whose protocol header was good.
    pub(crate) fn open(&mut self, peer: Peer, traffic: Arc<Traffic>, version_0_8: bool) -> Option<ConnectionId> {
        if self.sessions.len() >= self.rules.connections_max {
            return None;
        }
        let nonce = u128::from(self.random()) << 64 | u128::from(self.random());
        let id = self.sessions.add(peer, traffic, nonce, self.rules.frame_max);
        self.send_start(id, version_0_8);
        Some(id)
    }

    /// The password of a user; `None` when there is no such user or vhost.
    pub(crate) fn login(&self, vhost: &str, user: &str) -> Option<&str> {
        let is_known = self.vhosts.iter().any(|known| &*known.name == vhost);
        self.rules.users.get(user).filter(|_| is_known).map(|user| user.password.as_str())
    }

    /// Handles a batch of frames of a connection, and what followed them when that was no frame.
    pub(crate) fn batch(&mut self, id: ConnectionId, batch: &Batch, error: Option<&FrameError>, now: Now) -> Flow {
        self.sessions.work = 0;
        let mut frames = batch.frames();
        while let Some(frame) = frames.next() {
            let flow = match self.whole_publish(id, &frame, &mut frames, now) {
                Some(flow) => flow,
                None => self.frame(id, &frame, now),
            };
            if flow != Flow::Continue {
                return flow;
            }
            if self.sessions.work > WORK_MAX {
                self.end_batch(id, now);
                return Flow::Paused(frames.bytes_left());
            }
        }
        self.end_batch(id, now);
        match error {
            Some(error) => self.bad_frame(id, error, now),
            None => Flow::Continue,
        }
    }

    /// Forgets a connection: what it had not acknowledged goes back, then its exclusive queues go.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Now) {
        self.release(id, now);
        self.sessions.remove(id);
    }

    /// Gives back everything a connection holds.
    fn release(&mut self, id: ConnectionId, now: Now) {
        let freed = self.end_channels(id, now);
        let Some(session) = self.sessions.get_mut(id) else { return };
        let exclusive_queues = std::mem::take(&mut session.exclusive_queues);
        let Some(vhost) = session.vhost.and_then(|at| self.vhosts.get_mut(at)) else { return };
        for key in exclusive_queues {
            vhost.delete_queue(key, &mut self.sessions);
        }
        for key in freed {
            vhost.deliver(key, now, &mut self.sessions);
        }
        vhost.route_dead(now, &mut self.sessions);
    }

    /// Asks a client to leave.
    pub(crate) fn shut_down_one(&mut self, id: ConnectionId, now: Now) {
        if self.sessions.get(id).is_some_and(|session| !matches!(session.stage, Stage::Closing | Stage::Closed)) {
            let text = "broker forced connection closure with reason 'shutdown'";
            self.fail(id, 0, &Fault::connection_forced(text), now);
        }
    }

    /// A client reads again: its queues may deliver.
    pub(crate) fn resume(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let mut keys: Vec<_> = session.channels.values_mut().flat_map(Channel::consumed_queues).collect();
        keys.sort_unstable();
        keys.dedup();
        self.deliver_all(id, keys, now);
    }

    /// When something happens by itself that may be earlier than [`Core::tick`] said.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let held = self.sessions.injected.as_deref().and_then(Injected::next_timer);
        let farewell = self.sessions.farewells.front().map(|(due, ..)| *due);
        self.vhosts.iter().filter_map(Vhost::next_timer).chain(held).chain(farewell).min()
    }

    /// Does what is due by now. Says when something is next, as far as that is known yet.
    pub(crate) fn tick(&mut self, now: Now) -> Option<Instant> {
        for vhost in &mut self.vhosts {
            vhost.tick(now, &mut self.sessions);
        }
        self.send_held(now);
        self.send_farewells(now);
        let next_look = self.close_overdue(now);
        self.next_timer().into_iter().chain(next_look).min()
    }

    /// Messages that nobody has any more. Dropping them takes a while, and needs no lock.
    pub(crate) fn take_garbage(&mut self) -> Garbage {
        Garbage(std::mem::take(&mut self.sessions.garbage))
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
        let closing_limit = match session.stage {
            Stage::Closing if session.user.is_empty() => Some(connection::REFUSED_PAUSE),
            Stage::Closing | Stage::Closed => Some(CLOSE_OK_TIMEOUT),
            _ => None,
        };
        Some(Negotiated {
            frame_max: session.frame_max,
            heartbeat_s: session.heartbeat_s,
            is_open: matches!(session.stage, Stage::Open | Stage::Closing),
            closing_limit,
        })
    }

    /// Sends confirms that were merged.
    fn end_batch(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.confirming.is_empty()) else { return };
        for number in std::mem::take(&mut session.confirming) {
            self.sessions.send_confirms(id, number, now);
        }
    }

    /// Takes a channel's consumers out of their queues and requeues what it had not acknowledged. Returns the queues
    /// that may have something to deliver now.
    fn end_channel(&mut self, id: ConnectionId, number: u16, now: Now) -> Vec<QueueKey> {
        let Some(at) = self.sessions.get(id).and_then(|session| session.vhost) else { return Vec::new() };
        let Some(vhost) = self.vhosts.get_mut(at) else { return Vec::new() };
        let Some(channel) = self.sessions.channel_mut(id, number) else { return Vec::new() };
        // Left behind is a channel that does nothing, so that nothing below can reach it.
        let mut channel = std::mem::take(channel);
        if let Some(injected) = &mut self.sessions.injected {
            injected.forget(id, number);
        }
        let consumed_queues = channel.consumed_queues();
        let unacked = channel.take_all();
        // A transaction that is not committed un-acks what it settled.
        let held = match channel.mode {
            channel::Mode::Transaction(transaction) => transaction.settlements,
            channel::Mode::Plain | channel::Mode::Confirm => Vec::new(),
        };
        let lost = unacked.into_deliveries().chain(held.into_iter().map(|(delivered, _)| delivered));
        let mut freed = vhost.requeue_all(lost, Comeback::Lost, now);
        for queue in consumed_queues {
            freed.push(queue);
            if let Some(vhost) = self.vhosts.get_mut(at) {
                vhost.remove_consumers_of(queue, (id, number), now, &mut self.sessions);
            }
        }
        freed.sort_unstable();
        freed.dedup();
        freed
    }

    /// As [`Core::end_channel`], for all channels.
    fn end_channels(&mut self, id: ConnectionId, now: Now) -> Vec<QueueKey> {
        let Some(session) = self.sessions.get(id) else { return Vec::new() };
        let numbers: Vec<_> = session.channels.iter().map(|(number, _)| number).collect();
        let mut freed = Vec::new();
        for number in numbers {
            freed.extend(self.end_channel(id, number, now));
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.channels.clear();
        }
        freed.sort_unstable();
        freed.dedup();
        freed
    }

    fn deliver_all(&mut self, id: ConnectionId, keys: Vec<QueueKey>, now: Now) {
        let Ok((vhost, sessions)) = self.vhost(id) else { return };
        for key in keys {
            vhost.deliver(key, now, sessions);
        }
        vhost.route_dead(now, sessions);
    }

    /// The vhost of a connection, and everything else of the core that goes with it.
    fn vhost(&mut self, id: ConnectionId) -> Result<(&mut Vhost, &mut Sessions), Fault> {
        let at = self.sessions.get(id).and_then(|session| session.vhost);
        match at.and_then(|at| self.vhosts.get_mut(at)) {
            Some(vhost) => Ok((vhost, &mut self.sessions)),
            None => Err(Fault::connection_forced("the connection is not open")),
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
        for _ in 0..3 {
            let mut bits = self.random();
            // Eight characters of six bits each, 22 in all.
            for _ in 0..8.min(prefix.len() + 22 - name.len()) {
                name.push(char::from(ALPHABET[(bits >> 58) as usize]));
                bits <<= 6;
            }
        }
        name
    }
}

/// Messages put into queues, taken out and settled before others get the lock: about ten milliseconds. A publish to a
/// thousand queues is a thousand of them.
const WORK_MAX: usize = 10_000;
/// For clients busy with something else when we close; who has not logged in gets less.
const CLOSE_OK_TIMEOUT: Duration = Duration::from_secs(10);

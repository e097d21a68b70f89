//! Fuzz target of the core: several connections, byte for byte, without sockets.
//!
//! ```text
//!  data ──► step: (kind, client, arguments) ──► bytes of a connection ──► Decoder ──► Core ──► output, read as frames
//!                    └─ time, a full backlog, a lost connection ─────────────────► Core::check after every step
//! ```
//!
//! Some steps are raw bytes, some are frames with a correct length, and some are valid methods: only valid methods reach
//! deep into the core.

mod frames;
mod seeds;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use self::frames::{handshake, method, put_frame};
pub use self::seeds::connection_seeds;
use super::core::{ConnectionId, Core, Flow, Limits, Now, Peer, Profile, Rules, Traffic, User};
use crate::wire::{Decoder, FrameKind, method_ids, table::TableWriter};

/// Runs the steps encoded in `data`, and checks the core after each.
pub fn connections(data: &[u8]) {
    // Seeds and their mutations are of either length.
    let mut world = World::new(if data.len().is_multiple_of(2) { Profile::default() } else { Profile::RabbitMq4_3 });
    let mut input = Input(data);
    for _ in 0..STEPS_MAX {
        let Some(what) = input.octet() else { break };
        let who = usize::from(input.octet().unwrap_or(0)) % CLIENTS;
        world.step(what, who, &mut input);
        world.core.check();
    }
    world.end();
}

/// The unread rest of the data.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next octet; 0 at the end.
    fn small(&mut self) -> u8 {
        self.octet().unwrap_or(0)
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.small()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

/// A client, reduced to its socket.
struct Client {
    id: ConnectionId,
    decoder: Decoder,
    buffer: BytesMut,
    traffic: Arc<Traffic>,
    is_open: bool,
}

struct World {
    core: Core,
    now: Now,
    clients: [Option<Client>; CLIENTS],
    /// Methods in the output to any client.
    methods_received: usize,
}

impl World {
    fn new(profile: Profile) -> Self {
        let user = User::with_password("guest");
        let rules = Rules {
            facts: profile.facts(),
            warn_as: Some(Profile::RabbitMq4_3.facts()),
            users: [("guest".to_owned(), user)].into(),
            vhosts: vec!["/".to_owned()],
            channel_max: 7,
            frame_max: profile.facts().frame_min,
            heartbeat_s: 60,
            message_max_bytes: 10_000,
            connections_max: CLIENTS,
            // Low, so that histories of a few hundred steps reach them.
            limits: Limits {
                memory_high_watermark: 40_000,
                table_depth_max: TABLE_DEPTH_MAX,
                consumer_timeout: Some(Duration::from_secs(2)),
                ..Limits::default()
            },
        };
        let now = Now { instant: Instant::now(), unix_s: 1_700_000_000 };
        let mut core = Core::new(rules, [1; 32]);
        core.sessions.work_max = WORK_MAX;
        Self { core, now, clients: [const { None }; CLIENTS], methods_received: 0 }
    }

    fn step(&mut self, what: u8, who: usize, input: &mut Input<'_>) {
        match what % 24 {
            0 => self.feed(who, input.bytes()),
            1 => {
                let kind = input.small();
                let channel = input.small() % 3;
                self.frame(who, kind, channel, input.bytes());
            }
            2 => {
                let ids = METHODS[usize::from(input.small()) % METHODS.len()];
                let channel = input.small() % 3;
                let payload = [&method(ids).0[..], input.bytes()].concat();
                self.frame(who, 1, channel, &payload);
            }
            3 => {
                self.now.instant += Duration::from_millis(u64::from(input.small()) * 4);
                self.tick();
            }
            4 => self.lose(who),
            5 => {
                self.lose(who);
                self.open(who);
            }
            6 => self.choke(who, input.small()),
            7 => {
                if let Some(id) = self.client(who).map(|client| client.id) {
                    self.core.shut_down_one(id, self.now);
                    self.core.finish_behind(self.now);
                    self.collect();
                }
            }
            8..=11 => self.publish(who, input),
            what => {
                let channel = 1 + input.small() % 2;
                let payload = meaningful(what, input);
                self.frame(who, 1, channel, &payload);
            }
        }
    }

    /// A client that has sent its handshake. Raw bytes before may have spoilt it.
    fn client(&mut self, who: usize) -> Option<&mut Client> {
        if self.clients[who].is_none() {
            self.open(who);
            let frame_max = self.core.globals.rules.frame_max;
            self.feed(who, &handshake(frame_max));
        }
        self.clients[who].as_mut()
    }

    fn open(&mut self, who: usize) {
        let traffic = Arc::new(Traffic::default());
        let Some(id) = self.core.open(Peer::default(), Arc::clone(&traffic), false) else { return };
        let decoder = Decoder::new(HANDSHAKE_FRAME_MAX);
        self.clients[who] = Some(Client { id, decoder, buffer: BytesMut::new(), traffic, is_open: false });
        self.collect();
    }

    /// Feeds bytes to the core as the reader of a socket does.
    fn feed(&mut self, who: usize, bytes: &[u8]) {
        let now = self.now;
        let Some(client) = self.client(who) else { return };
        client.buffer.extend_from_slice(bytes);
        loop {
            let Some(client) = &mut self.clients[who] else { return };
            let (batch, error) = client.decoder.cut(&mut client.buffer, if client.is_open { 512 } else { 1 });
            if batch.is_empty() && error.is_none() {
                return;
            }
            let id = client.id;
            let mut flow = self.core.batch(id, &batch, error.as_ref(), now);
            let mut batch = batch;
            while let Flow::Paused(bytes) | Flow::Unfinished(bytes) = flow {
                self.core.finish_behind(self.now);
                self.collect();
                batch = batch.end(bytes);
                flow = self.core.batch(id, &batch, error.as_ref(), now);
            }
            self.core.finish_behind(self.now);
            if let (Some(negotiated), Some(client)) = (self.core.negotiated(id), &mut self.clients[who]) {
                client.decoder.set_frame_max(negotiated.frame_max);
                client.is_open = negotiated.is_open;
            }
            self.collect();
            if flow != Flow::Continue {
                self.lose(who);
                return;
            }
        }
    }

    fn frame(&mut self, who: usize, kind: u8, channel: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        put_frame(&mut bytes, kind, channel.into(), payload);
        self.feed(who, &bytes);
    }

    fn publish(&mut self, who: usize, input: &mut Input<'_>) {
        let channel = 1 + input.small() % 2;
        let exchange = EXCHANGES[usize::from(input.small()) % EXCHANGES.len()];
        let shape = input.small();
        let key = if shape & 0x40 != 0 { KEYS[usize::from(shape) % KEYS.len()] } else { queue_name(shape) };
        let body = input.bytes();
        let payload = method((60, 40)).short(0).text(exchange).text(key).octet(shape >> 4 & 1).0;
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, channel.into(), &payload);
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(PROPERTIES[usize::from(shape >> 2 & 7)]);
        put_frame(&mut bytes, 2, channel.into(), &header);
        for piece in body.chunks(40) {
            put_frame(&mut bytes, 3, channel.into(), piece);
        }
        self.feed(who, &bytes);
    }

    /// Makes a client stop or resume reading.
    fn choke(&mut self, who: usize, how: u8) {
        let Some(client) = self.client(who) else { return };
        let id = client.id;
        let bytes = if how.is_multiple_of(2) { 0 } else { 1 << (20 + how % 8) };
        // Whenever the backlog has shrunk, as the task that writes to the socket does.
        if bytes < client.traffic.backlog.swap(bytes, Ordering::Relaxed) {
            self.core.resume(id, self.now);
        }
        self.collect();
    }

    /// Ends a client as a failed socket does.
    fn lose(&mut self, who: usize) {
        if let Some(client) = self.clients[who].take() {
            self.core.close(client.id, self.now);
            self.core.finish_behind(self.now);
            self.collect();
        }
    }

    /// Does all that is due.
    fn tick(&mut self) {
        for _ in 0..TICKS_MAX {
            self.core.tick(self.now);
            self.core.finish_behind(self.now);
            self.collect();
            if self.core.next_timer().is_none_or(|at| at > self.now.instant) {
                return;
            }
        }
        panic!("the work that is due never ends");
    }

    /// Checks that the output consists of whole, readable frames.
    fn collect(&mut self) {
        drop(self.core.take_garbage());
        self.core.watch_memory();
        let received = &mut self.methods_received;
        self.core.take_output(|_, out| {
            let mut segments = VecDeque::new();
            out.take_into(&mut segments);
            let mut buffer = BytesMut::new();
            segments.iter().for_each(|segment| buffer.extend_from_slice(segment));
            let (batch, error) = Decoder::new(1 << 20).cut(&mut buffer, usize::MAX);
            assert!(buffer.is_empty() && error.is_none(), "output is not whole frames: {error:?}");
            for frame in batch.frames().filter(|frame| frame.kind == FrameKind::Method) {
                assert!(method_ids(frame.payload).is_some(), "a method without ids");
                *received += 1;
            }
        });
    }

    /// Ends all clients. Nothing of theirs may remain, and every timer must be in the future.
    fn end(mut self) {
        for who in 0..CLIENTS {
            self.lose(who);
            self.core.check();
        }
        let (_, unacked) = self.core.message_counts();
        assert_eq!(unacked, 0, "unacknowledged messages without a consumer");
        self.now.instant += Duration::from_secs(3_600);
        self.tick();
        assert!(self.core.next_timer().is_none_or(|at| at > self.now.instant), "a timer is overdue");
        self.core.check();
    }
}

/// Methods with valid arguments.
fn meaningful(what: u8, input: &mut Input<'_>) -> Vec<u8> {
    let bits = input.small();
    let queue = queue_name(bits);
    match what {
        12 => {
            let payload = method((50, 10)).short(0).text(queue).octet(bits >> 2 & 0b1_1110);
            payload.table(&queue_arguments(input.small())).0
        }
        13 | 14 => {
            let tag = ["", "t", "u"][usize::from(bits >> 2 & 3) % 3];
            let queue = if bits & 0x80 != 0 { "amq.rabbitmq.reply-to" } else { queue };
            let mut arguments = TableWriter::new();
            if bits & 0x40 != 0 {
                arguments.integer("x-priority", i64::from(input.small()) - 3);
            }
            // The bits are no_local, no_ack, exclusive and nowait.
            method((60, 20)).short(0).text(queue).text(tag).octet(bits >> 4 & 0b1111).table(&arguments.finish()).0
        }
        15 => method((60, 10)).long(0).short(u16::from(bits) % 4).octet(bits >> 7).0,
        16 => method((60, 80)).longlong(u64::from(bits >> 2)).octet(bits & 1).0,
        17 => method((60, 120)).longlong(u64::from(bits >> 2)).octet(bits & 3).0,
        18 => method((60, 70)).short(0).text(queue).octet(bits >> 2 & 1).0,
        19 => exchange_method(bits, input.small()),
        20 => match bits >> 2 & 3 {
            0 => method((50, 40)).short(0).text(queue).octet(bits >> 4).0,
            1 => method((50, 30)).short(0).text(queue).octet(0).0,
            _ => method((60, 30)).text(["t", "u"][usize::from(bits & 1)]).octet(bits >> 7).0,
        },
        21 => {
            let key = KEYS[usize::from(bits >> 2) % KEYS.len()];
            let exchange = EXCHANGES[usize::from(input.small()) % EXCHANGES.len()];
            let is_unbind = bits & 0x80 != 0;
            let ids = if is_unbind { (50, 50) } else { (50, 20) };
            let payload = method(ids).short(0).text(queue).text(exchange).text(key);
            let payload = if is_unbind { payload } else { payload.octet(0) };
            payload.table(&TableWriter::new().finish()).0
        }
        22 => match bits % 8 {
            0 => method((90, 10)).0,
            1 | 2 => method((90, 20)).0,
            3 => method((90, 30)).0,
            4 => method((85, 10)).octet(bits >> 7).0,
            5 => method((60, 110)).octet(bits >> 7).0,
            6 => method((60, 90)).longlong(u64::from(bits >> 4)).octet(bits >> 3 & 1).0,
            _ => method((20, 20)).octet(bits >> 7).0,
        },
        _ => match bits % 4 {
            0 | 1 => method((20, 10)).text("").0,
            2 => method((20, 41)).0,
            _ => method((20, 40)).short(200).text("bye").short(0).short(0).0,
        },
    }
}

fn exchange_method(bits: u8, more: u8) -> Vec<u8> {
    let exchange = EXCHANGES[usize::from(bits >> 2) % EXCHANGES.len()];
    let other = EXCHANGES[usize::from(more) % EXCHANGES.len()];
    match bits & 3 {
        0 | 1 => {
            let kind = ["direct", "fanout", "topic", "headers"][usize::from(more & 3)];
            let mut arguments = TableWriter::new();
            if more & 0x80 != 0 {
                arguments.text("alternate-exchange", other.as_bytes());
            }
            let payload = method((40, 10)).short(0).text(exchange).text(kind).octet(more >> 2 & 0b1_1111);
            payload.table(&arguments.finish()).0
        }
        2 if bits & 0x80 == 0 => {
            let payload =
                method((40, 30)).short(0).text(exchange).text(other).text(KEYS[usize::from(more) % KEYS.len()]);
            payload.octet(0).table(&TableWriter::new().finish()).0
        }
        _ => method((40, 20)).short(0).text(exchange).octet(more & 3).0,
    }
}

/// Bits of `which` choose the arguments.
fn queue_arguments(which: u8) -> Vec<u8> {
    let mut table = TableWriter::new();
    if which & 1 != 0 {
        table.integer("x-message-ttl", i64::from(which >> 4));
    }
    if which & 2 != 0 {
        table.integer("x-max-length", i64::from(which >> 5));
    }
    if which & 4 != 0 {
        table.text("x-dead-letter-exchange", b"").text("x-dead-letter-routing-key", queue_name(which >> 3).as_bytes());
    }
    match which >> 3 & 7 {
        1 => table.integer("x-max-priority", 3),
        2 => table.text("x-overflow", b"reject-publish"),
        3 => table.text("x-overflow", b"reject-publish-dlx"),
        4 => table.text("x-queue-type", b"quorum").integer("x-delivery-limit", 1),
        5 => table.integer("x-expires", 50),
        _ => &mut table,
    };
    if which & 0x40 != 0 {
        table.integer("x-max-length-bytes", 20);
    }
    if which & 0x80 != 0 {
        table.text("x-single-active-consumer", b"").integer("x-expires", 200);
    }
    table.finish()
}

fn queue_name(bits: u8) -> &'static str {
    ["q", "r", "s", ""][usize::from(bits & 3)]
}

const EXCHANGES: [&str; 6] = ["", "amq.topic", "amq.fanout", "amq.headers", "e", "f"];
const KEYS: [&str; 8] = ["q", "r", "a.b", "a.*", "#", "", "*.b.#", "x"];

/// Property flags and values, encoded.
const PROPERTIES: [&[u8]; 8] = [
    b"\0\0",
    b"\x01\0\x010",
    b"\x01\0\x013",
    b"\x08\0\x02",
    b"\x20\0\0\0\0\x0c\x02CCA\0\0\0\x04S\0\0\0\0",
    b"\x20\0\0\0\0\x0a\x02CCA\0\0\0\0\x01at\x01",
    b"\x02\0\x15amq.rabbitmq.reply-to",
    b"\0\x10\x05guest",
];

/// All methods that a client may send, and some that only a broker may send.
const METHODS: [(u16, u16); 40] = [
    (10, 10),
    (10, 11),
    (10, 20),
    (10, 21),
    (10, 30),
    (10, 31),
    (10, 40),
    (10, 50),
    (10, 51),
    (10, 60),
    (10, 70),
    (20, 10),
    (20, 20),
    (20, 21),
    (20, 40),
    (20, 41),
    (30, 10),
    (40, 10),
    (40, 20),
    (40, 30),
    (40, 40),
    (50, 10),
    (50, 20),
    (50, 30),
    (50, 40),
    (50, 50),
    (60, 10),
    (60, 20),
    (60, 30),
    (60, 31),
    (60, 40),
    (60, 60),
    (60, 70),
    (60, 80),
    (60, 90),
    (60, 100),
    (60, 110),
    (60, 120),
    (85, 10),
    (90, 10),
];

const CLIENTS: usize = 3;
const STEPS_MAX: usize = 200;
const TICKS_MAX: usize = 10_000;
/// So low that most methods with something to do are done in pieces.
const WORK_MAX: usize = 3;
/// Low, so that an input has room for a deeper table.
const TABLE_DEPTH_MAX: usize = 8;
/// The limit that `connection::reader` has.
const HANDSHAKE_FRAME_MAX: u32 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_opens_a_connection() {
        for profile in [Profile::RabbitMq3_10, Profile::RabbitMq4_3] {
            let mut world = World::new(profile);
            assert!(world.client(0).is_some_and(|client| client.is_open), "otherwise the target sees no method");
        }
    }
}

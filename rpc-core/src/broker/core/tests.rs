//! The core without sockets: tests send it frames, and read its output as frames.

mod access;
mod batches;
mod confirms;
mod consumer_timeout;
mod delayed_retry;
mod directions;
mod histories;
mod limits;
mod logins;
mod memory;
mod overdue;
mod pieces;
mod searches;
mod streams;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, basic, channel as channel_class, confirm, connection, gen_class, queue},
    types::{AMQPValue, FieldTable},
};
use bytes::BytesMut;
use proptest::prelude::*;

use super::{profile::Profile, *};
use crate::routing::Destination;
use crate::wire::{Batch, Decoder, FrameError, FrameKind, Method, RawFrame, Role, read_method, table::DEPTH_MAX};

/// A broker, its clock, and the output of each client that no test has read yet.
struct Bench {
    core: Core,
    now: Now,
    received: HashMap<ConnectionId, BytesMut>,
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_users<const N: usize>(users: [(&str, User); N]) -> Self {
        Self::with(users, Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        Self::with([("guest", User::with_password("guest"))], limits)
    }

    fn with<const N: usize>(users: [(&str, User); N], limits: Limits) -> Self {
        Self::as_version(Profile::default(), users, limits)
    }

    fn as_version<const N: usize>(profile: Profile, users: [(&str, User); N], limits: Limits) -> Self {
        let rules = Rules {
            facts: profile.facts(),
            warn_as: None,
            users: users.into_iter().map(|(name, user)| (name.to_owned(), user)).collect(),
            vhosts: vec!["/".to_owned()],
            channel_max: 2_047,
            frame_max: 131_072,
            heartbeat_s: 60,
            message_max_bytes: 1 << 20,
            connections_max: 100,
            limits,
        };
        let now = Now { instant: Instant::now(), unix_s: 1_700_000_000 };
        Self { core: Core::new(rules, [1; 32]), now, received: HashMap::new() }
    }

    /// A client past the handshake, with channel 1 open.
    fn connect(&mut self) -> ConnectionId {
        let id = self.log_in(Peer::default(), "PLAIN", "\0guest\0guest").unwrap();
        self.open_vhost(id);
        id
    }

    /// A client that has sent `connection.start-ok`; `None` if the broker refuses it.
    fn log_in(&mut self, peer: Peer, mechanism: &str, response: &str) -> Option<ConnectionId> {
        let id = self.core.open(peer, Arc::default(), false)?;
        let start_ok = connection::StartOk {
            client_properties: client_properties(),
            mechanism: mechanism.into(),
            response: response.into(),
            locale: "en_US".into(),
        };
        let flow = self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)));
        (flow == Flow::Continue).then_some(id)
    }

    /// The rest of the handshake, with channel 1 open.
    fn open_vhost(&mut self, id: ConnectionId) {
        self.send(id, 0, tune_ok());
        let open = connection::Open { virtual_host: "/".into() };
        self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Open(open)));
        self.send(id, 1, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
        self.received(id);
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn send(&mut self, id: ConnectionId, channel: u16, class: AMQPClass) -> Flow {
        let payload = gen_class(&class)(WriteContext::from(Vec::new())).unwrap().write;
        self.frame(id, FrameKind::Method, channel, &payload)
    }

    fn frame(&mut self, id: ConnectionId, kind: FrameKind, channel: u16, payload: &[u8]) -> Flow {
        let mut bytes = vec![kind.octet()];
        bytes.extend(channel.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xCE);
        self.bytes(id, &bytes)
    }

    /// Handles bytes as a socket would deliver them.
    fn bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> Flow {
        let (batch, error) = Decoder::new(131_072).cut(&mut BytesMut::from(bytes), usize::MAX);
        self.batch(id, batch, error.as_ref())
    }

    /// Handles all of a batch, however often the broker pauses.
    fn batch(&mut self, id: ConnectionId, mut batch: Batch, error: Option<&FrameError>) -> Flow {
        loop {
            let flow = self.core.batch(id, &batch, error, self.now);
            self.collect();
            self.core.finish_behind(self.now);
            let (Flow::Paused(bytes) | Flow::Unfinished(bytes)) = flow else { return flow };
            batch = batch.end(bytes);
        }
    }

    fn collect(&mut self) {
        drop(self.core.take_garbage());
        self.core.watch_memory();
        let received = &mut self.received;
        self.core.take_output(|id, out| {
            let mut segments = VecDeque::new();
            out.take_into(&mut segments);
            for segment in segments {
                received.entry(id).or_default().extend_from_slice(&segment);
            }
        });
    }

    /// The output of a client since the last call: methods by name, bodies as text.
    fn received(&mut self, id: ConnectionId) -> Vec<String> {
        let mut buffer = self.received.remove(&id).unwrap_or_default();
        let (batch, error) = Decoder::new(131_072).cut(&mut buffer, usize::MAX);
        assert!(buffer.is_empty() && error.is_none());
        let mut lines = Vec::new();
        for frame in batch.frames() {
            lines.push(match frame.kind {
                FrameKind::Method => name_of(&frame),
                FrameKind::Body => String::from_utf8(frame.payload.to_vec()).unwrap(),
                FrameKind::Header | FrameKind::Heartbeat => continue,
            });
        }
        lines
    }

    fn declare(&mut self, id: ConnectionId, name: &str, exclusive: bool) {
        let declare = queue::Declare {
            queue: name.into(),
            passive: false,
            durable: false,
            exclusive,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.send(id, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    }

    /// Binds a queue, as another client would.
    fn bind(&mut self, exchange: &str, queue: &str, routing_key: &str) {
        let vhost = &mut self.core.vhosts[0];
        let destination = Destination::Queue(vhost.names[queue.as_bytes()]);
        vhost.router.bind(exchange, destination, routing_key, &FieldTable::default()).unwrap();
        vhost.count_topology();
    }

    fn publish(&mut self, id: ConnectionId, queue: &str, body: &str) {
        self.publish_expiring(id, queue, body, None);
    }

    fn publish_expiring(&mut self, id: ConnectionId, queue: &str, body: &str, expiration_ms: Option<u64>) {
        self.publish_with(id, ("", queue), body, expiration_ms);
    }

    fn publish_to(&mut self, id: ConnectionId, exchange: &str, routing_key: &str, body: &str) {
        self.publish_with(id, (exchange, routing_key), body, None);
    }

    fn publish_with(
        &mut self,
        id: ConnectionId,
        (exchange, routing_key): (&str, &str),
        body: &str,
        expiration_ms: Option<u64>,
    ) {
        let (exchange, routing_key) = (exchange.into(), routing_key.into());
        let publish = basic::Publish { exchange, routing_key, mandatory: false, immediate: false };
        self.send(id, 1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        match expiration_ms.map(|ms| ms.to_string()) {
            None => header.extend([0, 0]),
            Some(expiration) => {
                header.extend([1, 0, expiration.len() as u8]);
                header.extend(expiration.as_bytes());
            }
        }
        self.frame(id, FrameKind::Header, 1, &header);
        if !body.is_empty() {
            self.frame(id, FrameKind::Body, 1, body.as_bytes());
        }
    }

    fn consume(&mut self, id: ConnectionId, queue: &str, prefetch_count: u16) {
        self.consume_as(id, queue, "t", prefetch_count);
    }

    fn consume_as(&mut self, id: ConnectionId, queue: &str, consumer_tag: &str, prefetch_count: u16) {
        let qos = basic::Qos { prefetch_count, global: false };
        self.send(id, 1, AMQPClass::Basic(basic::AMQPMethod::Qos(qos)));
        let consume = basic::Consume {
            queue: queue.into(),
            consumer_tag: consumer_tag.into(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.send(id, 1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    }

    fn ack(&mut self, id: ConnectionId, delivery_tag: u64, multiple: bool) {
        self.send(id, 1, AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })));
    }

    fn close(&mut self, id: ConnectionId) {
        self.core.close(id, self.now);
        self.core.finish_behind(self.now);
        self.collect();
    }
}

/// The capabilities of RabbitMQ's own clients.
fn client_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in ["connection.blocked", "consumer_cancel_notify"] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}

fn tune_ok() -> AMQPClass {
    let tune_ok = connection::TuneOk { channel_max: 2_047, frame_max: 131_072, heartbeat: 60 };
    AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok))
}

/// A method, with the arguments that tests compare.
fn name_of(frame: &RawFrame<'_>) -> String {
    match read_method(frame.payload, Role::Server, DEPTH_MAX).unwrap() {
        Method::Other(class) => match *class {
            AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)) => {
                format!("deliver {}{}", deliver.delivery_tag, if deliver.redelivered { " again" } else { "" })
            }
            AMQPClass::Basic(basic::AMQPMethod::GetOk(got)) => {
                format!("get-ok {}{}", got.delivery_tag, if got.redelivered { " again" } else { "" })
            }
            AMQPClass::Channel(channel_class::AMQPMethod::Close(close)) => {
                format!("channel.close {}", close.reply_code)
            }
            AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked)) => format!("blocked: {}", blocked.reason),
            AMQPClass::Connection(connection::AMQPMethod::Unblocked(_)) => "unblocked".to_owned(),
            AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
                format!("connection.close {}", close.reply_code)
            }
            other => format!("{:?}", (other.get_amqp_class_id(), other.get_amqp_method_id())),
        },
        other => format!("{other:?}"),
    }
}

#[test]
fn a_dying_consumers_messages_go_to_the_next_one_in_their_order() {
    let mut bench = Bench::new();
    let (publisher, first, second) = (bench.connect(), bench.connect(), bench.connect());
    bench.declare(publisher, "q", false);
    bench.consume(first, "q", 2);
    for body in ["a", "b", "c"] {
        bench.publish(publisher, "q", body);
    }
    let received = bench.received(first);
    assert_eq!(received[received.len() - 4..], ["deliver 1", "a", "deliver 2", "b"], "c waits: the window is full");
    bench.consume(second, "q", 10);
    bench.received(second);
    bench.close(first);
    assert_eq!(bench.received(second), ["deliver 2 again", "a", "deliver 3 again", "b"]);
}

#[test]
fn an_ack_makes_room_for_the_next_message() {
    let mut bench = Bench::new();
    let client = bench.connect();
    bench.declare(client, "q", false);
    bench.consume(client, "q", 1);
    for body in ["a", "b", "c"] {
        bench.publish(client, "q", body);
    }
    bench.received(client);
    bench.ack(client, 1, false);
    assert_eq!(bench.received(client), ["deliver 2", "b"]);
    bench.ack(client, 7, false);
    assert_eq!(bench.received(client), ["channel.close 406"]);
}

#[test]
fn exclusive_queues_are_deleted_with_their_connection() {
    let mut bench = Bench::new();
    let (owner, other) = (bench.connect(), bench.connect());
    bench.declare(owner, "mine", true);
    bench.received(owner);
    bench.declare(other, "mine", false);
    assert_eq!(bench.received(other), ["channel.close 405"]);
    bench.close(owner);
    assert!(bench.core.vhosts[0].queues.is_empty());
}

#[test]
fn frames_out_of_place_close_the_connection() {
    for (kind, channel, payload, code) in [
        (FrameKind::Body, 1, vec![1], 505),
        (FrameKind::Header, 1, vec![0; 14], 505),
        (FrameKind::Method, 2, vec![0, 50, 0, 10], 504),
        (FrameKind::Method, 1, vec![0, 60], 501),
        (FrameKind::Method, 1, vec![0, 20, 0, 10, 0], 504),
    ] {
        let mut bench = Bench::new();
        let client = bench.connect();
        bench.frame(client, kind, channel, &payload);
        assert_eq!(bench.received(client), [format!("connection.close {code}")], "{kind:?} {payload:?}");
    }
}

#[test]
fn names_that_fit_no_delivery_are_refused_when_a_queue_is_declared() {
    for argument in ["x-dead-letter-exchange", "x-dead-letter-routing-key"] {
        for (length, answer) in [(255, "(50, 11)"), (256, "channel.close 406")] {
            let mut bench = Bench::new();
            let client = bench.connect();
            let mut arguments = FieldTable::default();
            arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("dead".into()));
            arguments.insert(argument.into(), AMQPValue::LongString("x".repeat(length).into()));
            let declare = queue::Declare { queue: "q".into(), arguments, ..Default::default() };
            bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
            assert_eq!(bench.received(client), [answer], "{argument} of {length} bytes");
        }
    }
}

#[test]
fn a_close_is_answered_after_a_pause_and_only_to_its_sender() {
    let mut bench = Bench::new();
    let (client, other) = (bench.connect(), bench.connect());
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    let close = AMQPClass::Connection(connection::AMQPMethod::Close(close));
    bench.send(other, 0, close.clone());
    bench.close(other);
    assert_eq!(bench.connect(), other, "the number is another's now");
    assert_eq!(bench.send(client, 0, close), Flow::Continue);
    assert_eq!(bench.received(client), [""; 0]);
    bench.now.instant = bench.core.next_timer().unwrap();
    bench.core.tick(bench.now);
    bench.collect();
    assert_eq!((bench.received(client), bench.received(other)), (vec!["(10, 51)".to_owned()], Vec::new()));
    assert_eq!(bench.core.next_timer(), None);
}

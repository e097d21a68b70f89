//! Random histories of several clients against a model that knows every message.
//!
//! ```text
//!  step ──► Bench (the core) ──► what clients received ──► Model: may this message go to this consumer, now?
//!                 └────────────► Core::check: do queues, channels and sessions agree?
//! ```
//!
//! 256 histories by default; `PROPTEST_CASES=100000` with `--release` for more.

use std::collections::BTreeMap;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Declare {
        queue: usize,
    },
    Delete {
        queue: usize,
    },
    Publish {
        client: usize,
        queue: usize,
        expiration_ms: Option<u64>,
    },
    Consume {
        client: usize,
        queue: usize,
        prefetch_count: u16,
    },
    Cancel {
        client: usize,
        queue: usize,
    },
    Get {
        client: usize,
        queue: usize,
    },
    /// The delivery is the one of these that are held.
    Settle {
        client: usize,
        nth: usize,
        multiple: bool,
        how: Settle,
    },
    CloseChannel {
        client: usize,
    },
    Reconnect {
        client: usize,
    },
    Wait {
        ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settle {
    Ack,
    Requeue,
    Discard,
}

fn step() -> impl Strategy<Value = Step> {
    let (client, queue) = (0..CLIENTS, 0..QUEUES.len());
    let how = prop_oneof![5 => Just(Settle::Ack), 2 => Just(Settle::Requeue), 1 => Just(Settle::Discard)];
    let expiration = prop::option::weighted(0.2, 0..100_u64);
    prop_oneof![
        2 => queue.clone().prop_map(|queue| Step::Declare { queue }),
        1 => queue.clone().prop_map(|queue| Step::Delete { queue }),
        20 => (client.clone(), queue.clone(), expiration)
            .prop_map(|(client, queue, expiration_ms)| Step::Publish { client, queue, expiration_ms }),
        6 => (client.clone(), queue.clone(), 0..4_u16)
            .prop_map(|(client, queue, prefetch_count)| Step::Consume { client, queue, prefetch_count }),
        2 => (client.clone(), queue.clone()).prop_map(|(client, queue)| Step::Cancel { client, queue }),
        3 => (client.clone(), queue).prop_map(|(client, queue)| Step::Get { client, queue }),
        16 => (client.clone(), 0..8_usize, any::<bool>(), how)
            .prop_map(|(client, nth, multiple, how)| Step::Settle { client, nth, multiple, how }),
        1 => client.clone().prop_map(|client| Step::CloseChannel { client }),
        1 => client.prop_map(|client| Step::Reconnect { client }),
        3 => (0..60_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Held,
    /// Acknowledged, discarded, expired, or deleted with its queue.
    Gone,
}

#[derive(Debug)]
struct Sent {
    queue: usize,
    /// Of the queues by this name, the one it is in.
    generation: usize,
    place: Place,
    was_delivered: bool,
    expires_at: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    tag: u64,
    message: usize,
    /// Whether it was delivered to a consumer; otherwise `basic.get` took it.
    is_consumed: bool,
}

#[derive(Debug, Default)]
struct Client {
    id: Option<ConnectionId>,
    /// By queue: the window.
    consumers: BTreeMap<usize, u16>,
    held: Vec<Held>,
}

struct Model {
    bench: Bench,
    clients: [Client; CLIENTS],
    /// By number, which is also the body.
    sent: Vec<Sent>,
    /// How often each existing queue was declared anew.
    declared: [Option<usize>; QUEUES.len()],
    generations: usize,
    /// By queue, a waiting client and another one: how often that one was served since the first could have been.
    passed_over: BTreeMap<(usize, usize, usize), usize>,
}

impl Model {
    fn new() -> Self {
        let mut bench = Bench::new();
        let clients = std::array::from_fn(|_| Client { id: Some(bench.connect()), ..Client::default() });
        let (declared, passed_over) = (Default::default(), BTreeMap::new());
        Self { bench, clients, sent: Vec::new(), declared, generations: 0, passed_over }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Declare { queue } => self.declare(queue),
            Step::Delete { queue } => self.delete(queue),
            Step::Publish { client, queue, expiration_ms } => self.publish(client, queue, expiration_ms),
            Step::Consume { client, queue, prefetch_count } => self.consume(client, queue, prefetch_count),
            Step::Cancel { client, queue } => {
                if self.clients[client].consumers.remove(&queue).is_some() {
                    let cancel = basic::Cancel { consumer_tag: QUEUES[queue].into(), nowait: true };
                    self.send(client, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
                    self.forget_turns(client);
                }
            }
            Step::Get { client, queue } if self.declared[queue].is_some() => {
                let get = basic::Get { queue: QUEUES[queue].into(), no_ack: false };
                self.send(client, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
            }
            Step::Get { .. } => {}
            Step::Settle { client, nth, multiple, how } => self.settle(client, nth, multiple, how),
            Step::CloseChannel { client } => {
                let close = channel_class::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
                self.give_back(client);
                self.send(client, AMQPClass::Channel(channel_class::AMQPMethod::Close(close)));
                self.send(client, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
            }
            Step::Reconnect { client } => {
                self.give_back(client);
                if let Some(id) = self.clients[client].id.take() {
                    self.bench.close(id);
                }
                self.clients[client].id = Some(self.bench.connect());
            }
            Step::Wait { ms } => {
                self.bench.now.instant += Duration::from_millis(ms);
                let now = self.bench.now;
                self.bench.core.tick(now);
                self.bench.collect();
            }
        }
        self.look();
        self.compare();
    }

    fn send(&mut self, client: usize, class: AMQPClass) {
        let flow = self.bench.send(self.clients[client].id.unwrap(), 1, class);
        assert_eq!(flow, Flow::Continue);
    }

    fn declare(&mut self, queue: usize) {
        if self.declared[queue].is_none() {
            self.generations += 1;
            self.declared[queue] = Some(self.generations);
        }
        let mut arguments = FieldTable::default();
        if let Some(ttl) = TTL_MS[queue] {
            arguments.insert("x-message-ttl".into(), amq_protocol::types::AMQPValue::LongLongInt(ttl));
        }
        let declare = queue::Declare {
            queue: QUEUES[queue].into(),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: true,
            arguments,
        };
        self.send(0, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    }

    fn delete(&mut self, queue: usize) {
        if self.declared[queue].take().is_none() {
            return;
        }
        for sent in self.sent.iter_mut().filter(|sent| sent.queue == queue && sent.place == Place::Ready) {
            sent.place = Place::Gone;
        }
        for client in 0..CLIENTS {
            self.clients[client].consumers.remove(&queue);
        }
        self.passed_over.retain(|(of, ..), _| *of != queue);
        let delete = queue::Delete { queue: QUEUES[queue].into(), if_unused: false, if_empty: false, nowait: true };
        self.send(0, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)));
    }

    fn publish(&mut self, client: usize, queue: usize, expiration_ms: Option<u64>) {
        let Some(generation) = self.declared[queue] else { return };
        let ttl = [expiration_ms, TTL_MS[queue].map(i64::unsigned_abs)].into_iter().flatten().min();
        let expires_at = ttl.map(|ttl| self.bench.now.instant + Duration::from_millis(ttl));
        let body = self.sent.len().to_string();
        self.sent.push(Sent { queue, generation, place: Place::Ready, was_delivered: false, expires_at });
        self.bench.publish_expiring(self.clients[client].id.unwrap(), QUEUES[queue], &body, expiration_ms);
    }

    fn consume(&mut self, client: usize, queue: usize, prefetch_count: u16) {
        if self.declared[queue].is_none() || self.clients[client].consumers.contains_key(&queue) {
            return;
        }
        self.clients[client].consumers.insert(queue, prefetch_count);
        // Deliveries of an earlier consumer with this name do not count against the new window.
        for held in &mut self.clients[client].held {
            held.is_consumed &= self.sent[held.message].queue != queue;
        }
        let id = self.clients[client].id.unwrap();
        self.bench.consume_as(id, QUEUES[queue], QUEUES[queue], prefetch_count);
    }

    fn settle(&mut self, client: usize, nth: usize, multiple: bool, how: Settle) {
        let count = self.clients[client].held.len();
        if count == 0 {
            return;
        }
        let delivery_tag = self.clients[client].held[nth % count].tag;
        let is_settled = |held: &Held| if multiple { held.tag <= delivery_tag } else { held.tag == delivery_tag };
        let (settled, kept) = std::mem::take(&mut self.clients[client].held).into_iter().partition(is_settled);
        self.clients[client].held = kept;
        for held in settled as Vec<Held> {
            self.put(held.message, if how == Settle::Requeue { Place::Ready } else { Place::Gone });
        }
        let method = match how {
            Settle::Ack => basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }),
            Settle::Requeue => basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple, requeue: true }),
            Settle::Discard => basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple, requeue: false }),
        };
        self.send(client, AMQPClass::Basic(method));
    }

    /// Requeues a client's deliveries, and ends its consumers.
    fn give_back(&mut self, client: usize) {
        for held in std::mem::take(&mut self.clients[client].held) {
            self.put(held.message, Place::Ready);
        }
        self.clients[client].consumers.clear();
        self.forget_turns(client);
    }

    /// A deleted queue gets no message back.
    fn put(&mut self, message: usize, place: Place) {
        let sent = &mut self.sent[message];
        sent.place = if self.declared[sent.queue] == Some(sent.generation) { place } else { Place::Gone };
    }

    fn forget_turns(&mut self, client: usize) {
        self.passed_over.retain(|(_, waiting, served), _| *waiting != client && *served != client);
    }

    /// Checks the clients' deliveries in the order of the messages, which is the order in which the queues delivered them.
    fn look(&mut self) {
        let mut deliveries = Vec::new();
        for client in 0..CLIENTS {
            let mut lines = self.bench.received(self.clients[client].id.unwrap()).into_iter();
            let mut last = BTreeMap::new();
            while let Some(line) = lines.next() {
                assert!(!line.contains("close 4") && !line.contains("close 5"), "client {client} got {line}");
                let mut words = line.split(' ');
                let is_consumed = match words.next() {
                    Some("deliver") => true,
                    Some("get-ok") => false,
                    _ => continue,
                };
                let tag = words.next().unwrap().parse().unwrap();
                let is_again = words.next().is_some();
                let message: usize = lines.next().unwrap().parse().unwrap();
                let before = last.insert(self.sent[message].queue, message);
                assert!(before.is_none_or(|before| before < message), "client {client} got {message} out of order");
                deliveries.push((message, client, Held { tag, message, is_consumed }, is_again));
            }
        }
        deliveries.sort_by_key(|(message, ..)| *message);
        for (message, client, held, is_again) in deliveries {
            self.deliver(message, client, held, is_again);
        }
        for client in 0..CLIENTS {
            self.clients[client].held.sort_by_key(|held| held.tag);
        }
    }

    fn deliver(&mut self, message: usize, client: usize, held: Held, is_again: bool) {
        let now = self.bench.now.instant;
        let queue = self.sent[message].queue;
        assert_eq!(self.sent[message].place, Place::Ready, "{message} is delivered, and was not ready");
        assert_eq!(self.sent[message].was_delivered, is_again, "the redelivered flag of {message}");
        assert!(self.sent[message].expires_at.is_none_or(|at| at >= now), "{message} was overdue");
        for earlier in (0..message).filter(|earlier| self.sent[*earlier].queue == queue).collect::<Vec<_>>() {
            let earlier_sent = &mut self.sent[earlier];
            if earlier_sent.place == Place::Ready {
                let is_due = earlier_sent.expires_at.is_some_and(|at| at <= now);
                assert!(is_due, "{message} is delivered before {earlier}, which is ready");
                earlier_sent.place = Place::Gone;
            }
        }
        if held.is_consumed {
            assert!(self.has_credit(client, queue), "client {client} has no room for {message}");
            self.take_turn(queue, client);
        }
        self.sent[message].place = Place::Held;
        self.sent[message].was_delivered = true;
        self.clients[client].held.push(held);
    }

    /// No consumer is served twice while another one waits.
    fn take_turn(&mut self, queue: usize, served: usize) {
        for waiting in (0..CLIENTS).filter(|other| *other != served) {
            if self.has_credit(waiting, queue) {
                let times = self.passed_over.entry((queue, waiting, served)).or_default();
                *times += 1;
                assert!(*times <= 1, "client {served} was served {times} times while {waiting} waited");
            }
        }
        self.passed_over.retain(|(of, waiting, _), _| *of != queue || *waiting != served);
    }

    fn has_credit(&self, client: usize, queue: usize) -> bool {
        let Some(&window) = self.clients[client].consumers.get(&queue) else { return false };
        let is_in_window = |held: &&Held| held.is_consumed && self.sent[held.message].queue == queue;
        window == 0 || self.clients[client].held.iter().filter(is_in_window).count() < usize::from(window)
    }

    /// The core's counts are the model's, except for expired messages that are not at the head of their queue.
    fn compare(&mut self) {
        self.bench.core.check();
        let now = self.bench.now.instant;
        for (queue, generation) in self.declared.iter().enumerate() {
            let Some(generation) = *generation else { continue };
            let vhost = &self.bench.core.vhosts[0];
            let core = &vhost.queues[&vhost.names[QUEUES[queue].as_bytes()]];
            let in_it = |place| move |sent: &&Sent| sent.generation == generation && sent.place == place;
            let held = self.sent.iter().filter(in_it(Place::Held)).count();
            let ready = self.sent.iter().filter(in_it(Place::Ready)).count();
            let is_due = |sent: &&Sent| sent.expires_at.is_some_and(|at| at <= now);
            let due = self.sent.iter().filter(in_it(Place::Ready)).filter(is_due).count();
            assert_eq!(core.unacked, held, "unacknowledged messages of {}", QUEUES[queue]);
            let expected = ready - due..=ready;
            assert!(expected.contains(&core.ready_count()), "{} ready, expected {expected:?}", core.ready_count());
        }
        // A consumer with a full window is not passed over.
        let mut passed_over = std::mem::take(&mut self.passed_over);
        passed_over.retain(|(queue, waiting, _), _| self.has_credit(*waiting, *queue));
        self.passed_over = passed_over;
    }

    /// A client that consumes everything receives each remaining message once, in order.
    fn drain(mut self) {
        for client in 0..CLIENTS {
            self.run(&Step::Reconnect { client });
        }
        for queue in 0..QUEUES.len() {
            self.run(&Step::Consume { client: 0, queue, prefetch_count: 0 });
        }
        let now = self.bench.now.instant;
        for (message, sent) in self.sent.iter().enumerate() {
            let is_due = sent.expires_at.is_some_and(|at| at <= now);
            assert!(sent.place != Place::Ready || is_due, "{message} is lost");
        }
    }
}

const CLIENTS: usize = 3;
const QUEUES: [&str; 2] = ["plain", "expiring"];
const TTL_MS: [Option<i64>; 2] = [None, Some(80)];

proptest! {
    /// No message is lost or duplicated, queues are first in, first out, no window is exceeded, and turns are fair.
    #[test]
    fn every_message_is_delivered_once_in_order_and_within_the_windows(
        steps in prop::collection::vec(step(), 1..120),
        work_max in prop_oneof![Just(1), 2..9_usize, Just(4_096)],
    ) {
        let mut model = Model::new();
        model.bench.core.sessions.work_max = work_max;
        for queue in 0..QUEUES.len() {
            model.run(&Step::Declare { queue });
        }
        for step in &steps {
            model.run(step);
        }
        model.drain();
    }

    /// The core answers or ignores any bytes, and never panics.
    #[test]
    fn no_bytes_make_the_core_panic(
        frames in prop::collection::vec((0..4_u8, 0..3_u16, prop::collection::vec(any::<u8>(), 0..40)), 1..20),
        ids in prop::collection::vec((0..100_u16, 0..130_u16), 20),
    ) {
        let mut bench = Bench::new();
        let client = bench.connect();
        for ((kind, channel, mut payload), (class_id, method_id)) in frames.into_iter().zip(ids) {
            let kind = [FrameKind::Method, FrameKind::Header, FrameKind::Body, FrameKind::Heartbeat][usize::from(kind)];
            if kind == FrameKind::Method && payload.len() >= 4 {
                payload[..2].copy_from_slice(&class_id.to_be_bytes());
                payload[2..4].copy_from_slice(&method_id.to_be_bytes());
            }
            if bench.frame(client, kind, channel, &payload) != Flow::Continue {
                break;
            }
            bench.core.check();
        }
        bench.close(client);
        bench.core.check();
    }
}

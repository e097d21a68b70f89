//! Methods that take long are done in pieces, and others get the lock in between.

use amq_protocol::protocol::{exchange, tx};

use super::*;

const MANY: usize = 60;
/// Of a piece.
const WORK_MAX: usize = 8;

/// A method with much to do, and what has to be there before.
struct Case {
    name: &'static str,
    set_up: fn(&mut Bench, ConnectionId),
    method: fn() -> AMQPClass,
    channel: u16,
}

impl Case {
    fn pauses_min(&self) -> usize {
        // Time goes on with what a fault or a deletion leaves, and the bench lets it.
        let is_timed = ["error", "delete", "exclusive"].iter().any(|word| self.name.contains(word));
        if is_timed { 1 } else { MANY / WORK_MAX - 1 }
    }
}

fn cases() -> Vec<Case> {
    let case = |name, set_up, method| Case { name, set_up, method, channel: 1 };
    vec![
        case("commit of publishes", publish_in_transaction, commit),
        case(
            "commit of acknowledgements",
            |bench, id| settle_in_transaction(bench, id, |tag| ack_of(tag, false)),
            commit,
        ),
        case("commit of requeues", |bench, id| settle_in_transaction(bench, id, |tag| nack(tag, false, true)), commit),
        case(
            "rollback",
            |bench, id| settle_in_transaction(bench, id, |tag| ack_of(MANY as u64 + 1 - tag, false)),
            rollback,
        ),
        case("multiple in a transaction", hold_in_transaction, || ack_of(0, true)),
        case("acknowledgement of all", hold, || ack_of(0, true)),
        case("acknowledgement of most", hold, || ack_of(MANY as u64 - 3, true)),
        case("rejection of all", hold, || nack(0, true, false)),
        case("requeue of all", hold, || nack(0, true, true)),
        case("requeue of most", hold, || nack(MANY as u64 - 3, true, true)),
        case("recover", hold, || AMQPClass::Basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true }))),
        case("channel.close with deliveries", hold, close_channel),
        case("a channel error with deliveries", hold, || ack_of(9_999, false)),
        case("channel.close with consumers", consume_many, close_channel),
        Case { channel: 0, ..case("connection.close with deliveries", hold, close_connection) },
        Case { channel: 0, ..case("connection.close with exclusive queues", own, close_connection) },
        Case {
            channel: 0,
            ..case("a connection error", hold, || AMQPClass::Basic(basic::AMQPMethod::CancelOk(Default::default())))
        },
        case("queue.delete with bindings", bind_many, delete_queue),
        case("queue.delete with consumers", consume_one, delete_queue),
        case("exchange.delete", bind_many, delete_exchange),
    ]
}

fn publish_in_transaction(bench: &mut Bench, id: ConnectionId) {
    bench.declare(id, "q", false);
    select(bench, id);
    (0..MANY).for_each(|at| bench.publish(id, "q", &at.to_string()));
}

fn hold(bench: &mut Bench, id: ConnectionId) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("dead".into()));
    let declare = queue::Declare { queue: "q".into(), arguments, ..Default::default() };
    bench.send(id, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    bench.declare(id, "dead", false);
    bench.consume(id, "q", MANY as u16);
    // Three wait behind the window.
    (0..MANY + 3).for_each(|at| bench.publish(id, "q", &at.to_string()));
}

fn settle_in_transaction(bench: &mut Bench, id: ConnectionId, method: impl Fn(u64) -> AMQPClass) {
    hold(bench, id);
    select(bench, id);
    for tag in 1..=MANY as u64 {
        bench.send(id, 1, method(tag));
    }
}

fn hold_in_transaction(bench: &mut Bench, id: ConnectionId) {
    hold(bench, id);
    select(bench, id);
    bench.send(id, 1, ack_of(1, false));
}

fn select(bench: &mut Bench, id: ConnectionId) {
    bench.send(id, 1, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})));
}

fn own(bench: &mut Bench, id: ConnectionId) {
    for at in 0..MANY {
        bench.declare(id, &format!("mine {at}"), true);
        bench.bind("amq.topic", &format!("mine {at}"), "#");
    }
}

fn bind_many(bench: &mut Bench, id: ConnectionId) {
    let declare = exchange::Declare { exchange: "e".into(), kind: "topic".into(), ..Default::default() };
    bench.send(id, 1, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)));
    bench.declare(id, "q", false);
    (0..MANY).for_each(|at| bench.bind("e", "q", &format!("{at}.*")));
    bench.consume(id, "q", 1);
}

fn consume_one(bench: &mut Bench, id: ConnectionId) {
    bench.declare(id, "q", false);
    (0..MANY).for_each(|at| bench.consume_as(id, "q", &at.to_string(), 1));
}

fn consume_many(bench: &mut Bench, id: ConnectionId) {
    for at in 0..MANY {
        let queue = at.to_string();
        let declare = queue::Declare { queue: queue.as_str().into(), auto_delete: true, ..Default::default() };
        bench.send(id, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
        bench.consume_as(id, &queue, &queue, 1);
    }
}

fn commit() -> AMQPClass {
    AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {}))
}

fn rollback() -> AMQPClass {
    AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {}))
}

fn ack_of(delivery_tag: u64, multiple: bool) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }))
}

fn nack(delivery_tag: u64, multiple: bool, requeue: bool) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple, requeue }))
}

fn close_channel() -> AMQPClass {
    AMQPClass::Channel(channel_class::AMQPMethod::Close(channel_class::Close { reply_code: 200, ..Default::default() }))
}

fn close_connection() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close { reply_code: 200, ..Default::default() }))
}

fn delete_queue() -> AMQPClass {
    AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete { queue: "q".into(), ..Default::default() }))
}

fn delete_exchange() -> AMQPClass {
    AMQPClass::Exchange(exchange::AMQPMethod::Delete(exchange::Delete { exchange: "e".into(), ..Default::default() }))
}

/// The clients' output and the queues after a method, and how often the broker paused. Another client is served at each
/// pause. If the socket is to be lost, it is lost at the first pause, or at the end.
fn outcome(case: &Case, work_max: usize, is_lost: bool) -> (Vec<String>, Vec<String>, Vec<QueueInfo>, usize) {
    let mut bench = Bench::new();
    let (id, taker, other) = (bench.connect(), bench.connect(), bench.connect());
    (case.set_up)(&mut bench, id);
    bench.declare(other, "other", false);
    bench.consume(other, "other", 0);
    if bench.core.vhosts[0].names.contains_key(&b"q"[..]) {
        bench.consume(taker, "q", 20);
    }
    for id in [id, taker, other] {
        bench.received(id);
    }
    bench.core.sessions.work_max = work_max;
    let bytes = frame(case.channel, &(case.method)());
    let mut batch = Decoder::new(131_072).cut(&mut BytesMut::from(&bytes[..]), usize::MAX).0;
    let mut pauses = 0;
    while let Flow::Unfinished(left) = bench.core.batch(id, &batch, None, bench.now) {
        batch = batch.end(left);
        pauses += 1;
        // A message that is settled may be a dead letter, and make room for another one.
        assert!(bench.core.sessions.work <= 5 * work_max, "{}: {} at once", case.name, bench.core.sessions.work);
        bench.collect();
        bench.publish(other, "other", "o");
        assert_eq!(bench.received(other)[1..], ["o"], "{}", case.name);
        assert!(pauses < 1_000, "{} does not end", case.name);
        if is_lost {
            break;
        }
    }
    bench.collect();
    if is_lost {
        bench.core.close(id, bench.now);
        while !bench.core.sessions.behind.is_empty() {
            bench.core.tick(bench.now);
            bench.collect();
            pauses += 1;
        }
        assert!(bench.core.sessions.get(id).is_none(), "{}", case.name);
    }
    while bench.core.next_timer().is_some_and(|due| due <= bench.now.instant) {
        bench.core.tick(bench.now);
        bench.collect();
    }
    bench.core.check();
    let mut queues = bench.core.queues("/");
    queues.retain(|queue| queue.name != "other");
    (if is_lost { Vec::new() } else { bench.received(id) }, bench.received(taker), queues, pauses)
}

#[test]
fn a_method_in_pieces_has_the_effect_of_one_at_once() {
    for case in cases() {
        let (sent, taken, queues, pauses) = outcome(&case, usize::MAX, false);
        assert_eq!(pauses, 0, "{}", case.name);
        let (pieces_sent, pieces_taken, pieces_queues, pauses) = outcome(&case, WORK_MAX, false);
        assert!(pauses >= case.pauses_min(), "{}: {pauses} pauses", case.name);
        assert_eq!(pieces_sent, sent, "{}", case.name);
        assert_eq!(pieces_taken, taken, "{}", case.name);
        assert_eq!(pieces_queues, queues, "{}", case.name);
    }
}

#[test]
fn a_method_whose_connection_ends_between_two_pieces_is_done_to_its_end() {
    for case in cases() {
        let (.., queues, _) = outcome(&case, usize::MAX, true);
        let (.., pieces_queues, pauses) = outcome(&case, WORK_MAX, true);
        assert!(pauses >= case.pauses_min(), "{}: {pauses} pauses", case.name);
        assert_eq!(pieces_queues, queues, "{}", case.name);
    }
}

#[test]
fn the_frames_of_a_methods_channel_wait_and_those_of_others_do_not() {
    for case in cases().into_iter().filter(|case| case.channel == 1) {
        let mut bench = Bench::new();
        let id = bench.connect();
        (case.set_up)(&mut bench, id);
        bench.declare(id, "other", false);
        bench.send(id, 2, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
        bench.received(id);
        bench.core.sessions.work_max = WORK_MAX;
        let ask = AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: "other".into(),
            passive: true,
            ..Default::default()
        }));
        let mut waits = 0;
        let (first, second) = (frame(1, &(case.method)()), [frame(1, &ask), frame(2, &ask)].concat());
        for bytes in [&first[..], &second] {
            let batch = Decoder::new(131_072).cut(&mut BytesMut::from(bytes), usize::MAX).0;
            waits += usize::from(bench.core.batch(id, &batch, None, bench.now) == Flow::Unfinished(0));
            bench.collect();
        }
        assert_eq!(waits, 2, "{}", case.name);
        let answers = |bench: &mut Bench| {
            let channels = channels_of(bench.received.remove(&id).unwrap_or_default());
            channels
                .into_iter()
                .filter(|(_, ids)| *ids == [0, 50, 0, 11])
                .map(|(channel, _)| channel)
                .collect::<Vec<_>>()
        };
        assert_eq!(answers(&mut bench), [2], "{}", case.name);
        bench.batch(id, Batch::default(), None);
        // A closed channel gives no answer, but an error, or none.
        let is_closed = case.name.contains("channel");
        assert_eq!(answers(&mut bench), if is_closed { vec![] } else { vec![1] }, "{}", case.name);
        bench.core.check();
    }
}

fn frame(channel: u16, class: &AMQPClass) -> Vec<u8> {
    let payload = gen_class(class)(WriteContext::from(Vec::new())).unwrap().write;
    let mut bytes = vec![FrameKind::Method.octet()];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// The channels and the ids of methods.
fn channels_of(mut received: BytesMut) -> Vec<(u16, Vec<u8>)> {
    let batch = Decoder::new(131_072).cut(&mut received, usize::MAX).0;
    let methods = batch.frames().filter(|frame| frame.kind == FrameKind::Method);
    methods.map(|frame| (frame.channel, frame.payload[..4].to_vec())).collect()
}

#[test]
fn a_publish_to_many_queues_is_confirmed_when_all_have_it() {
    let mut bench = Bench::new();
    let (id, other) = (bench.connect(), bench.connect());
    for at in 0..MANY {
        bench.declare(id, &at.to_string(), false);
        bench.bind("amq.fanout", &at.to_string(), "");
    }
    bench.send(id, 1, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })));
    bench.received(id);
    bench.core.sessions.work_max = WORK_MAX;
    bench.publish_to(id, "amq.fanout", "", "x");
    assert!(bench.core.queues("/").iter().all(|queue| queue.ready == 1));
    assert_eq!(bench.received(id), ["Ack(Ack { delivery_tag: 1, multiple: false })"]);
    bench.close(other);
    bench.core.check();
}

#[test]
fn all_dead_letters_arrive_however_many_they_are() {
    let mut bench = Bench::new();
    let id = bench.connect();
    hold(&mut bench, id);
    bench.core.sessions.work_max = 1;
    let many = 700;
    bench.send(id, 1, ack_of(0, true));
    (0..many).for_each(|_| bench.publish(id, "q", ""));
    bench.send(id, 1, AMQPClass::Channel(channel_class::AMQPMethod::Close(Default::default())));
    bench.send(id, 1, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
    bench.consume(id, "q", 0);
    let waiting = bench.core.queues("/").iter().map(|queue| queue.unacked).sum::<usize>();
    bench.send(id, 1, nack(0, true, false));
    while bench.core.next_timer().is_some_and(|due| due <= bench.now.instant) {
        bench.core.tick(bench.now);
        bench.collect();
        bench.core.check();
    }
    let dead = bench.core.queues("/").into_iter().find(|queue| queue.name == "dead").unwrap();
    assert_eq!((dead.ready, waiting), (many + 3, many + 3));
}

#[test]
fn many_messages_pushed_out_by_one_go_in_pieces() {
    let mut bench = Bench::new();
    let id = bench.connect();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(5_000));
    let declare = queue::Declare { queue: "q".into(), arguments, ..Default::default() };
    bench.send(id, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    (0..5_000).for_each(|_| bench.publish(id, "q", "x"));
    bench.publish(id, "q", &"y".repeat(5_000));
    let ready = |bench: &Bench| bench.core.queues("/")[0].ready;
    for piece in 1.. {
        let left = 5_000_usize.saturating_sub(piece * crate::broker::core::rules::WORK_MAX);
        assert!(ready(&bench) > left, "{} are left after {piece} pieces", ready(&bench));
        if ready(&bench) == 1 {
            return;
        }
        bench.core.tick(bench.now);
    }
}

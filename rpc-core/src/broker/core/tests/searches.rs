//! The search for the queues of a message pauses, and others get the lock.

use super::*;
use crate::broker::core::fault::Fault;

/// A broker whose topic exchange has patterns that take many steps for [`KEY`], and queue `q` at the end of each.
fn bench() -> (Bench, ConnectionId, ConnectionId) {
    let mut bench = Bench::new();
    bench.core.vhosts[0].route_steps_max = 10;
    let (publisher, other) = (bench.connect(), bench.connect());
    bench.declare(publisher, "q", false);
    bench.declare(publisher, "late", false);
    for pattern in ["#.a.#.a.#", "#.*.a.#.b", "*.#.a.*.#", "#.#.#"] {
        bench.bind("amq.topic", "q", pattern);
    }
    bench.received(publisher);
    (bench, publisher, other)
}

const KEY: &str = "a.a.a.a.a.a.a.a.a.a.a.a";

/// The frames of a message to the topic exchange, with a body in frames of at most so many bytes.
fn message(body: &str, frame_bytes: usize) -> Vec<u8> {
    message_on(1, body, frame_bytes)
}

fn message_on(channel: u16, body: &str, frame_bytes: usize) -> Vec<u8> {
    let mut method = vec![0, 60, 0, 40, 0, 0];
    for name in ["amq.topic", KEY] {
        method.push(name.len() as u8);
        method.extend(name.as_bytes());
    }
    method.push(0);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0, 0]);
    let bodies = body.as_bytes().chunks(frame_bytes).map(|chunk| (FrameKind::Body, chunk));
    let frames = [(FrameKind::Method, &method[..]), (FrameKind::Header, &header)].into_iter().chain(bodies);
    frames.flat_map(|(kind, payload)| frame_of(kind, channel, payload)).collect()
}

fn frame_of(kind: FrameKind, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind.octet()];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn method_of(channel: u16, class: &AMQPClass) -> Vec<u8> {
    let payload = gen_class(class)(WriteContext::from(Vec::new())).unwrap().write;
    frame_of(FrameKind::Method, channel, &payload)
}

fn open_channel() -> AMQPClass {
    AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {}))
}

fn declare_late() -> AMQPClass {
    AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare { queue: "late".into(), ..Default::default() }))
}

fn close_connection() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close { reply_code: 200, ..Default::default() }))
}

/// Hands bytes over once, as a batch.
fn hand_over(bench: &mut Bench, id: ConnectionId, bytes: &[u8]) -> Flow {
    let batch = Decoder::new(131_072).cut(&mut BytesMut::from(bytes), usize::MAX).0;
    let flow = bench.core.batch(id, &batch, None, bench.now);
    bench.collect();
    bench.core.check();
    flow
}

/// The bodies among what a client has received.
fn bodies(bench: &mut Bench, id: ConnectionId) -> String {
    bench.received(id).into_iter().filter(|line| !line.starts_with("deliver")).collect()
}

/// Handles frames until the broker has handled all, and calls `meanwhile` whenever it pauses. Returns the number of pauses.
fn handle(bench: &mut Bench, id: ConnectionId, bytes: &[u8], mut meanwhile: impl FnMut(&mut Bench)) -> usize {
    let mut batch = Decoder::new(131_072).cut(&mut BytesMut::from(bytes), usize::MAX).0;
    let mut pauses = 0;
    while let Flow::Paused(left) | Flow::Unfinished(left) = bench.core.batch(id, &batch, None, bench.now) {
        batch = batch.end(left);
        pauses += 1;
        bench.collect();
        meanwhile(bench);
        bench.core.check();
    }
    bench.collect();
    pauses
}

#[test]
fn others_are_served_while_a_search_pauses_and_its_publisher_keeps_its_order() {
    for frame_bytes in [1_000, 2] {
        let (mut bench, publisher, other) = bench();
        bench.consume(other, "q", 0);
        bench.received(other);
        let both = [message("slow", frame_bytes), message("next", frame_bytes)].concat();
        let mut served = 0;
        let pauses = handle(&mut bench, publisher, &both, |bench| {
            bench.publish(other, "late", "quick");
            served += 1;
            assert_eq!(bench.core.vhosts[0].paused.len(), 1);
        });
        assert!(pauses >= 10, "{pauses} pauses");
        assert_eq!(served, pauses);
        assert_eq!(bodies(&mut bench, other), "slownext", "frames of {frame_bytes} bytes");
        assert!(bench.core.vhosts[0].paused.is_empty());
    }
}

#[test]
fn a_binding_that_is_made_while_a_search_pauses_counts() {
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "late", 0);
    bench.received(other);
    let mut is_bound = false;
    handle(&mut bench, publisher, &message("slow", 1_000), |bench| {
        if !std::mem::replace(&mut is_bound, true) {
            bench.bind("amq.topic", "late", KEY);
        }
    });
    assert_eq!(bench.received(other), ["deliver 1", "slow"]);
}

#[test]
fn a_search_ends_although_other_exchanges_change() {
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "q", 0);
    bench.received(other);
    let mut count = 0;
    handle(&mut bench, publisher, &message("slow", 1_000), |bench| {
        count += 1;
        assert!(count < 1_000, "the search does not end");
        bench.bind("amq.direct", "late", &count.to_string());
    });
    assert!(count > 1);
    assert_eq!(bench.received(other), ["deliver 1", "slow"]);
}

#[test]
fn other_channels_of_the_connection_go_on_while_a_search_pauses() {
    for frame_bytes in [1_000, 2] {
        let (mut bench, publisher, other) = bench();
        bench.send(publisher, 2, open_channel());
        bench.consume(other, "q", 0);
        bench.received(other);
        bench.received(publisher);
        let heartbeat = frame_of(FrameKind::Heartbeat, 0, &[]);
        let slow = [message("slow", frame_bytes), message("next", frame_bytes), method_of(1, &declare_late())].concat();
        let flow = hand_over(&mut bench, publisher, &slow);
        assert!(matches!(flow, Flow::Unfinished(1..)), "{flow:?}");
        let mut left = match flow {
            Flow::Unfinished(left) => slow[slow.len() - left..].to_vec(),
            _ => unreachable!(),
        };
        // Its own frames wait, in pieces as they arrive; those of channel 2 are answered at once.
        left.extend([method_of(2, &declare_late()), heartbeat].concat());
        assert_eq!(hand_over(&mut bench, publisher, &left), Flow::Unfinished(0));
        assert_eq!((bodies(&mut bench, other).as_str(), bench.received(publisher).len()), ("", 1));
        assert_eq!(hand_over(&mut bench, publisher, &message("last", frame_bytes)), Flow::Unfinished(0));
        handle(&mut bench, publisher, &[], |_| {});
        assert_eq!(bodies(&mut bench, other), "slownextlast", "frames of {frame_bytes} bytes");
        assert_eq!(bench.received(publisher), ["(50, 11)"]);
        assert!(bench.core.unfinished.is_empty() && bench.core.vhosts[0].paused.is_empty());
    }
}

#[test]
fn searches_of_several_channels_take_turns_and_few_are_kept() {
    const CHANNELS: u16 = 9;
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "q", 0);
    for number in 2..=CHANNELS {
        bench.send(publisher, number, open_channel());
    }
    bench.received(publisher);
    bench.received(other);
    let all: Vec<_> = (1..=CHANNELS).flat_map(|number| message_on(number, &number.to_string(), 1_000)).collect();
    let mut kept_max = 0;
    handle(&mut bench, publisher, &all, |bench| kept_max = kept_max.max(bench.core.vhosts[0].paused.len()));
    let mut arrived: Vec<_> = bodies(&mut bench, other).chars().collect();
    assert_ne!(arrived, ['1', '2', '3', '4', '5', '6', '7', '8'], "they took turns");
    arrived.sort_unstable();
    assert_eq!(arrived.into_iter().collect::<String>(), "123456789");
    assert_eq!(kept_max, 4);
    assert!(bench.core.vhosts[0].paused.is_empty());
}

#[test]
fn a_connection_is_not_read_when_too_much_waits_for_a_channel() {
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "q", 0);
    bench.received(other);
    let body = "x".repeat(100_000);
    assert_eq!(hand_over(&mut bench, publisher, &message("slow", 1_000)), Flow::Unfinished(0));
    let many = message(&body, 100_000).repeat(30);
    let flow = hand_over(&mut bench, publisher, &many);
    let Flow::Unfinished(left) = flow else { panic!("{flow:?}") };
    let taken = many.len() - left;
    assert!(((1 << 20)..(1 << 20) + 110_000).contains(&taken), "{taken} bytes were set aside");
    let rest = &many[taken..];
    let flow = hand_over(&mut bench, publisher, rest);
    assert_eq!(flow, Flow::Unfinished(left), "no more is taken until the channel has gone on");
    handle(&mut bench, publisher, rest, |_| {});
    assert_eq!(bodies(&mut bench, other).len(), 4 + 30 * body.len());
}

#[test]
fn what_was_sent_before_the_end_of_a_connection_is_done_before_it() {
    for is_closed in [true, false] {
        let (mut bench, publisher, other) = bench();
        bench.consume(other, "q", 0);
        bench.received(other);
        let sent = [message("slow", 1_000), message("next", 2)].concat();
        let flow = hand_over(&mut bench, publisher, &sent);
        let Flow::Unfinished(left) = flow else { panic!("{flow:?}") };
        hand_over(&mut bench, publisher, &sent[sent.len() - left..]);
        if is_closed {
            // The frames behind it are ignored.
            let close = [method_of(0, &close_connection()), message("ignored", 1_000)].concat();
            let mut before = String::new();
            handle(&mut bench, publisher, &close, |bench| before += &bodies(bench, other));
            assert_eq!(before + &bodies(&mut bench, other), "slownext");
            bench.now.instant += Duration::from_secs(1);
            bench.core.tick(bench.now);
            bench.collect();
            assert_eq!(bench.received(publisher), ["(10, 51)"]);
        }
        bench.close(publisher);
        assert_eq!(bodies(&mut bench, other), if is_closed { "" } else { "slownext" });
        assert!(bench.core.unfinished.is_empty() && bench.core.vhosts[0].paused.is_empty());
        assert!(bench.core.sessions.get(publisher).is_none());
        bench.core.check();
    }
}

#[test]
fn frames_of_a_socket_that_has_gone_are_dropped_after_a_time() {
    let (mut bench, publisher, other) = bench();
    bench.declare(publisher, "mine", true);
    bench.consume(other, "q", 0);
    bench.received(other);
    hand_over(&mut bench, publisher, &message("slow", 1_000));
    hand_over(&mut bench, publisher, &message("next", 1_000).repeat(3));
    bench.core.close(publisher, bench.now);
    bench.core.tick(bench.now);
    assert!(bench.core.next_timer().is_some_and(|due| due <= bench.now.instant));
    bench.now.instant += Duration::from_secs(15);
    bench.core.tick(bench.now);
    bench.collect();
    bench.core.check();
    assert!(bench.core.unfinished.is_empty() && bench.core.vhosts[0].paused.is_empty());
    assert!(bench.core.sessions.get(publisher).is_none() && !bench.core.vhosts[0].names.contains_key(&b"mine"[..]));
    assert_eq!(bodies(&mut bench, other), "");
}

#[test]
fn a_channel_that_the_broker_closes_while_it_waits_ignores_its_frames_until_the_answer() {
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "q", 0);
    bench.received(other);
    bench.received(publisher);
    hand_over(&mut bench, publisher, &message("slow", 1_000));
    let close_ok = AMQPClass::Channel(channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {}));
    bench.core.fail(publisher, 1, &Fault::overdue(1, Some(Duration::from_secs(1))), bench.now);
    bench.collect();
    assert_eq!(bench.received(publisher), ["channel.close 406"]);
    assert!(bench.core.vhosts[0].paused.is_empty());
    let rest = [message("ignored", 2), method_of(1, &close_ok), method_of(1, &open_channel()), message("new", 2)];
    handle(&mut bench, publisher, &rest.concat(), |_| {});
    assert_eq!((bench.received(publisher), bodies(&mut bench, other).as_str()), (vec!["(20, 11)".to_owned()], "new"));
}

#[test]
fn a_connection_error_is_answered_at_once_and_ends_the_connection_when_no_channel_waits() {
    let (mut bench, publisher, other) = bench();
    bench.send(publisher, 2, open_channel());
    bench.declare(publisher, "mine", true);
    bench.consume(other, "q", 0);
    bench.received(other);
    bench.received(publisher);
    hand_over(&mut bench, publisher, &message("slow", 1_000));
    let error = frame_of(FrameKind::Body, 2, b"x");
    assert_eq!(hand_over(&mut bench, publisher, &error), Flow::Unfinished(0));
    assert_eq!(bench.received(publisher), ["connection.close 505"]);
    assert_eq!(bodies(&mut bench, other), "");
    handle(&mut bench, publisher, &message("ignored", 1_000), |_| {});
    assert_eq!(bodies(&mut bench, other), "slow");
    // An error of a channel that waits, too: the frames behind it are dropped.
    let (mut bench, publisher, other) = self::bench();
    bench.consume(other, "q", 0);
    bench.received(other);
    bench.received(publisher);
    hand_over(&mut bench, publisher, &message("slow", 1_000));
    let behind = [frame_of(FrameKind::Body, 1, b"x"), message("ignored", 1_000)].concat();
    handle(&mut bench, publisher, &behind, |_| {});
    let answers = bench.received(publisher);
    assert_eq!((answers, bodies(&mut bench, other).as_str()), (vec!["connection.close 505".to_owned()], "slow"));
}

#[test]
fn dead_letters_wait_for_a_search_and_keep_their_order() {
    let (mut bench, publisher, other) = bench();
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-dead-letter-exchange", "amq.topic"), ("x-dead-letter-routing-key", KEY)] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let declare = queue::Declare { queue: "ttl".into(), arguments, ..Default::default() };
    bench.send(publisher, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    bench.consume(other, "q", 0);
    bench.received(other);
    for body in ["a", "b"] {
        bench.publish_expiring(publisher, "ttl", body, Some(5));
    }
    bench.now.instant += Duration::from_millis(10);
    let mut ticks = 0;
    while bench.core.next_timer().is_some_and(|due| due <= bench.now.instant) {
        bench.core.tick(bench.now);
        bench.collect();
        bench.core.check();
        ticks += 1;
        assert!(ticks < 1_000, "the dead letters are never routed");
    }
    assert!(ticks >= 10, "{ticks} ticks");
    assert_eq!(bench.received(other), ["deliver 1", "a", "deliver 2", "b"]);
}

#[test]
fn a_socket_is_closed_without_a_word_for_a_frame_that_waited_too() {
    let (mut bench, publisher, other) = bench();
    bench.consume(other, "q", 0);
    bench.received(other);
    bench.received(publisher);
    hand_over(&mut bench, publisher, &message("slow", 1_000));
    // A class that does not exist.
    let mut flow = hand_over(&mut bench, publisher, &frame_of(FrameKind::Method, 1, &[0, 99, 0, 1]));
    while flow == Flow::Unfinished(0) {
        flow = hand_over(&mut bench, publisher, &[]);
    }
    assert_eq!((flow, bodies(&mut bench, other).as_str()), (Flow::Close, "slow"));
    assert_eq!(bench.received(publisher), [""; 0]);
}

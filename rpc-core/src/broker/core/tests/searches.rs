//! The search for the queues of a message pauses, and others get the lock.

use super::*;

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
    let mut bytes = Vec::new();
    for (kind, payload) in frames {
        bytes.push(kind.octet());
        bytes.extend(1_u16.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xCE);
    }
    bytes
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
        let received = bench.received(other).into_iter().filter(|line| !line.starts_with("deliver"));
        let expected: String = ["slow", "next"].concat();
        assert_eq!(received.collect::<String>(), expected, "frames of {frame_bytes} bytes");
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
fn the_search_of_a_connection_that_ends_is_forgotten() {
    let (mut bench, publisher, _) = bench();
    let batch = Decoder::new(131_072).cut(&mut BytesMut::from(&message("slow", 1_000)[..]), usize::MAX).0;
    assert!(matches!(bench.core.batch(publisher, &batch, None, bench.now), Flow::Paused(_)));
    assert_eq!(bench.core.vhosts[0].paused.len(), 1);
    bench.close(publisher);
    assert!(bench.core.vhosts[0].paused.is_empty());
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

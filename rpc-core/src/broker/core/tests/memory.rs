//! Publishers are blocked while messages take too much memory.

use super::*;

/// Room for nine messages of 2 000 bytes with their overhead, but not for ten.
fn bench() -> Bench {
    Bench::with_limits(Limits { memory_high_watermark: 22_000, ..Limits::default() })
}

#[test]
fn publishers_are_blocked_at_the_watermark_and_others_drain() {
    let mut bench = bench();
    let (publisher, other, consumer) = (bench.connect(), bench.connect(), bench.connect());
    bench.declare(publisher, "q", false);
    let empty = bench.core.memory().bytes();
    assert!((300..2_000).contains(&empty), "a queue takes {empty}");
    bench.received(publisher);
    let body = "x".repeat(2_000);
    for _ in 0..10 {
        bench.publish(publisher, "q", &body);
    }
    assert_eq!(bench.received(publisher), [""; 0], "as in RabbitMQ, it may still acknowledge");
    bench.publish(publisher, "q", "late");
    assert_eq!(bench.received(publisher), ["blocked: low on memory"]);
    assert!(bench.received(other).is_empty() && bench.received(consumer).is_empty());
    bench.publish(other, "q", "late");
    assert_eq!(bench.received(other), ["blocked: low on memory"], "as soon as it publishes");

    bench.consume(consumer, "q", 0);
    assert_eq!(bench.received(consumer).len(), 2 + 2 * 12);
    assert!(bench.received(publisher).is_empty(), "delivered is not acknowledged");
    bench.ack(consumer, 1, false);
    assert!(bench.received(publisher).is_empty(), "not for every single message");
    bench.ack(consumer, 2, false);
    assert_eq!(
        (bench.received(publisher), bench.received(other)),
        (vec!["unblocked".to_owned()], vec!["unblocked".to_owned()])
    );
    bench.ack(consumer, 0, true);
    bench.core.check();
    assert_eq!(bench.core.memory().bytes(), empty);
}

#[test]
fn either_cause_blocks_and_both_must_end() {
    let mut bench = bench();
    let client = bench.connect();
    bench.declare(client, "q", false);
    bench.publish(client, "q", "small");
    bench.received(client);
    bench.core.block("as asked");
    bench.collect();
    assert_eq!(bench.received(client), ["blocked: as asked"]);
    bench.publish(client, "q", &"x".repeat(22_000));
    bench.core.unblock();
    bench.collect();
    assert!(bench.received(client).is_empty(), "memory is short");
    bench.core.block("again");
    bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Purge(queue::Purge { queue: "q".into(), nowait: true })));
    assert!(bench.received(client).is_empty(), "somebody asked for it");
    bench.core.unblock();
    bench.collect();
    assert_eq!(bench.received(client), ["unblocked"]);
}

#[test]
fn a_message_in_many_queues_counts_once() {
    let mut bench = bench();
    let client = bench.connect();
    for queue in ["a", "b", "c"] {
        bench.declare(client, queue, false);
        let (queue, exchange) = (queue.into(), "amq.fanout".into());
        let bind =
            queue::Bind { queue, exchange, routing_key: "".into(), nowait: true, arguments: FieldTable::default() };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    }
    bench.received(client);
    let empty = bench.core.memory().bytes();
    let publish =
        basic::Publish { exchange: "amq.fanout".into(), routing_key: "".into(), mandatory: false, immediate: false };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    bench.frame(client, FrameKind::Header, 1, &[&[0, 60, 0, 0][..], &6_000_u64.to_be_bytes(), &[0, 0]].concat());
    bench.frame(client, FrameKind::Body, 1, &[b'x'; 6_000]);
    let taken = bench.core.memory().bytes() - empty;
    assert!((6_000..7_000).contains(&taken), "{taken}");
    bench.core.check();
    for queue in ["a", "b"] {
        let purge = queue::Purge { queue: queue.into(), nowait: true };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Purge(purge)));
    }
    assert_eq!(bench.core.memory().bytes() - empty, taken, "c has it still");
    bench.core.check();
}

#[test]
fn a_partly_received_message_counts_until_its_channel_is_closed() {
    let mut bench = bench();
    let clients = [bench.connect(), bench.connect()];
    for (client, bytes) in [(clients[0], 18_000), (clients[1], 13_000)] {
        begin(&mut bench, client, 21_500);
        bench.frame(client, FrameKind::Body, 1, &vec![b'x'; bytes]);
    }
    assert!(
        clients.iter().all(|client| bench.received(*client).is_empty()),
        "publishers are blocked in the middle of a message"
    );
    bench.core.check();
    bench.frame(clients[0], FrameKind::Body, 1, &[b'x'; 3_000]);
    assert!(bench.received(clients[0]).is_empty());
    bench.frame(clients[0], FrameKind::Body, 1, b"x");
    assert_eq!(bench.received(clients[0]), ["blocked: low on memory"], "but not for ever");
    bench.close(clients[1]);
    assert_eq!(bench.received(clients[0]), [""; 0], "an eighth is not free");
    bench.close(clients[0]);
    assert_eq!(bench.core.memory().bytes(), 0);
}

#[test]
fn a_message_for_which_there_is_never_room_is_refused() {
    let mut bench = bench();
    let client = bench.connect();
    begin(&mut bench, client, 22_001);
    assert_eq!(bench.received(client), ["channel.close 406"]);
}

/// A publish without its body.
fn begin(bench: &mut Bench, client: ConnectionId, body_bytes: u64) {
    let publish = basic::Publish { exchange: "".into(), routing_key: "q".into(), mandatory: false, immediate: false };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    bench.frame(client, FrameKind::Header, 1, &[&[0, 60, 0, 0][..], &body_bytes.to_be_bytes(), &[0, 0]].concat());
}

#[test]
fn the_publish_that_is_blocked_waits_with_all_that_follows() {
    let mut bench = bench();
    let client = bench.connect();
    bench.declare(client, "q", false);
    bench.publish(client, "q", &"x".repeat(22_000));
    bench.received(client);
    let mut bytes = Vec::new();
    for payload in [&[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0][..], &[0, 50, 0, 10, 0, 0, 1, b'q', 1, 0, 0, 0, 0]] {
        bytes.extend([1, 0, 1, 0, 0, 0, payload.len() as u8]);
        bytes.extend(payload);
        bytes.push(0xCE);
    }
    let (batch, _) = Decoder::new(131_072).cut(&mut BytesMut::from(&bytes[..]), usize::MAX);
    assert_eq!(bench.core.batch(client, &batch, None, bench.now), Flow::Paused(21));
    bench.collect();
    assert_eq!(bench.received(client), ["blocked: low on memory"]);
}

#[test]
fn declarations_count_until_deleted_and_are_refused_without_memory() {
    let mut bench = bench();
    let (client, owner) = (bench.connect(), bench.connect());
    let mut arguments = FieldTable::default();
    arguments.insert("x-notes".into(), AMQPValue::LongString("x".repeat(9_800).into()));
    let bind = |arguments: &FieldTable| {
        let (queue, exchange) = ("q".into(), "amq.fanout".into());
        let arguments = arguments.clone();
        let bind = queue::Bind { queue, exchange, routing_key: "".into(), nowait: true, arguments };
        AMQPClass::Queue(queue::AMQPMethod::Bind(bind))
    };
    let declare = |queue: &str, exclusive| {
        let arguments = arguments.clone();
        let declare = queue::Declare { queue: queue.into(), exclusive, nowait: true, arguments, ..Default::default() };
        AMQPClass::Queue(queue::AMQPMethod::Declare(declare))
    };
    bench.send(owner, 1, declare("q", true));
    bench.send(owner, 1, bind(&arguments));
    bench.send(client, 1, declare("r", false));
    bench.core.check();
    let taken = bench.core.memory().bytes();
    assert!((29_400..33_000).contains(&taken), "{taken}");
    bench.declare(client, "small", false);
    assert_eq!(bench.received(client).len(), 1);
    bench.send(owner, 1, bind(&FieldTable::default()));
    bench.declare(client, "another", false);
    bench.declare(client, "r", false);
    bench.received(client);
    for name in ["one", "more"] {
        bench.send(client, 1, declare(name, false));
    }
    assert_eq!(bench.received(client), ["channel.close 406"]);
    bench.close(owner);
    bench.core.check();
    let left = bench.core.memory().bytes();
    assert!(left < taken, "its queue went with its owner, and the binding with the queue");
}

//! The limits of the broker.

use amq_protocol::protocol::{exchange, tx};

use super::*;
use crate::broker::core::rules::WORK_MAX;

const NONE_LEFT: Limits = Limits {
    memory_high_watermark: u64::MAX,
    outbox_max_bytes: 4 << 20,
    queue_max_length: Some(2),
    queues_max: 2,
    exchanges_max: 9,
    bindings_per_exchange_max: 2,
    consumers_per_channel_max: 2,
    transaction_max: 4,
    table_depth_max: 3,
    consumer_timeout: Some(Duration::from_secs(60)),
};

fn bench() -> (Bench, ConnectionId) {
    let mut bench = Bench::with_limits(NONE_LEFT);
    let client = bench.connect();
    (bench, client)
}

fn bind(bench: &mut Bench, client: ConnectionId, queue: &str, routing_key: &str) -> Vec<String> {
    let (queue, exchange, routing_key) = (queue.into(), "amq.direct".into(), routing_key.into());
    let bind = queue::Bind { queue, exchange, routing_key, nowait: true, arguments: FieldTable::default() };
    bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    bench.received(client)
}

fn select(bench: &mut Bench, client: ConnectionId) {
    bench.send(client, 1, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})));
    bench.received(client);
}

#[test]
fn queues_of_a_vhost() {
    let (mut bench, client) = bench();
    for queue in ["a", "b", "a", "b"] {
        bench.declare(client, queue, false);
    }
    assert_eq!(bench.received(client).len(), 4, "those that are there may be declared again");
    bench.declare(client, "c", false);
    assert_eq!(bench.received(client), ["channel.close 406"]);
    assert_eq!(bench.core.vhosts[0].queues.len(), 2);
}

#[test]
fn exchanges_of_a_vhost() {
    let (mut bench, client) = bench();
    let mut declare = |exchange: &str| {
        let declare = exchange::Declare {
            exchange: exchange.into(),
            kind: "fanout".into(),
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            nowait: true,
            arguments: FieldTable::default(),
        };
        bench.send(client, 1, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)));
        bench.received(client)
    };
    // Every vhost starts with seven.
    for exchange in ["a", "b", "a", "b"] {
        assert!(declare(exchange).is_empty());
    }
    assert_eq!(declare("c"), ["channel.close 406"]);
}

#[test]
fn bindings_from_an_exchange() {
    let (mut bench, client) = bench();
    bench.declare(client, "q", false);
    bench.received(client);
    for routing_key in ["a", "b", "a", "b"] {
        assert!(bind(&mut bench, client, "q", routing_key).is_empty());
    }
    assert_eq!(bind(&mut bench, client, "q", "c"), ["channel.close 406"]);
}

#[test]
fn consumers_of_a_channel() {
    let (mut bench, client) = bench();
    bench.declare(client, "q", false);
    bench.consume_as(client, "q", "a", 1);
    bench.consume_as(client, "q", "b", 1);
    let cancel = basic::Cancel { consumer_tag: "a".into(), nowait: true };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
    bench.consume_as(client, "q", "c", 1);
    bench.received(client);
    bench.consume_as(client, "q", "d", 1);
    assert_eq!(bench.received(client).last().unwrap(), "connection.close 530");
}

#[test]
fn messages_of_a_transaction_count_for_every_queue() {
    let (mut bench, client) = bench();
    bench.declare(client, "a", false);
    bench.declare(client, "b", false);
    for queue in ["a", "b"] {
        let (queue, exchange) = (queue.into(), "amq.fanout".into());
        let bind =
            queue::Bind { queue, exchange, routing_key: "".into(), nowait: true, arguments: FieldTable::default() };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    }
    select(&mut bench, client);
    for _ in 0..2 {
        for _ in 0..2 {
            bench.publish_to(client, "amq.fanout", "", "twice");
        }
        assert!(bench.received(client).is_empty());
        bench.send(client, 1, AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {})));
        bench.received(client);
    }
    for _ in 0..4 {
        bench.publish(client, "nowhere", "once");
    }
    assert!(bench.received(client).is_empty());
    bench.publish(client, "nowhere", "too many");
    assert_eq!(bench.received(client), ["channel.close 406"]);
    bench.core.check();
}

#[test]
fn messages_of_a_queue_are_refused_above_the_limit_of_the_broker() {
    let (mut bench, client) = bench();
    bench.declare(client, "q", false);
    bench.send(client, 1, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: true })));
    bench.received(client);
    for expected in ["Ack", "Ack", "(60, 120)"] {
        bench.publish(client, "q", "x");
        let received = bench.received(client);
        assert!(received[0].starts_with(expected), "{received:?}");
    }
    bench.core.check();
}

#[test]
fn a_queue_keeps_its_own_lower_limit_and_its_own_overflow() {
    let arguments = |pairs: &[(&str, AMQPValue)]| {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        table
    };
    let (mut bench, client) = bench();
    let drop_head = AMQPValue::LongString("drop-head".into());
    let own = [("x-max-length", AMQPValue::LongInt(1))];
    let dropping = [("x-max-length", AMQPValue::LongInt(9)), ("x-overflow", drop_head)];
    for (queue, arguments, ready) in [("a", arguments(&own), 1), ("b", arguments(&dropping), 2)] {
        let declare = queue::Declare { queue: queue.into(), nowait: true, arguments, ..Default::default() };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
        for body in ["1", "2", "3"] {
            bench.publish(client, queue, body);
        }
        let get = basic::Get { queue: queue.into(), no_ack: true };
        bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
        assert_eq!(bench.received(client).last().unwrap(), if ready == 1 { "3" } else { "2" }, "heads are dropped");
    }
}

#[test]
fn a_batch_that_moves_thousands_of_messages_lets_others_go_on() {
    const QUEUES: usize = 1_000;
    let mut bench = Bench::new();
    let client = bench.connect();
    for queue in 0..QUEUES {
        let queue = format!("q{queue}");
        bench.declare(client, &queue, false);
        let (queue, exchange) = (queue.as_str().into(), "amq.fanout".into());
        let bind =
            queue::Bind { queue, exchange, routing_key: "".into(), nowait: true, arguments: FieldTable::default() };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    }
    bench.received(client);
    let publish = b"\x01\0\x01\0\0\0\x13\0\x3c\0\x28\0\0\x0aamq.fanout\0\0\xCE\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\xCE";
    let (mut batch, error) = Decoder::new(131_072).cut(&mut BytesMut::from(&publish.repeat(100)[..]), 512);
    assert_eq!(error, None);
    let mut pauses = 0;
    while let Flow::Paused(bytes) | Flow::Unfinished(bytes) = bench.core.batch(client, &batch, None, bench.now) {
        pauses += 1;
        let (ready, _) = bench.core.message_counts();
        assert!(ready <= pauses * WORK_MAX, "{ready} messages in {pauses} steps");
        batch = batch.end(bytes);
    }
    assert!((95..=100).contains(&pauses), "{pauses}");
    assert_eq!(bench.core.message_counts(), (100 * QUEUES, 0));
    bench.collect();
    assert!(bench.received(client).is_empty());
}

#[test]
fn messages_that_expire_together_are_dropped_in_steps() {
    const MESSAGES: usize = 25_000;
    let mut bench = Bench::new();
    let client = bench.connect();
    bench.declare(client, "q", false);
    for _ in 0..MESSAGES {
        bench.publish_expiring(client, "q", "", Some(1));
    }
    bench.now.instant += Duration::from_secs(1);
    let mut left = MESSAGES;
    while left > 0 {
        assert!(bench.core.next_timer().is_some_and(|at| at <= bench.now.instant));
        bench.core.tick(bench.now);
        let before = std::mem::replace(&mut left, bench.core.message_counts().0);
        assert!((1..=WORK_MAX).contains(&(before - left)), "{before} to {left}");
        bench.core.check();
    }
    assert!(bench.core.next_timer().is_none_or(|at| at > bench.now.instant));
}

#[test]
fn purged_and_deleted_messages_are_dropped_outside_the_core() {
    let mut bench = Bench::new();
    let client = bench.connect();
    for queue in ["a", "b"] {
        bench.declare(client, queue, false);
        bench.publish(client, queue, "x");
    }
    bench.received(client);
    let purge = queue::AMQPMethod::Purge(queue::Purge { queue: "a".into(), nowait: true });
    let delete = queue::AMQPMethod::Delete(queue::Delete { queue: "b".into(), nowait: true, ..Default::default() });
    for method in [purge, delete] {
        let payload = gen_class(&AMQPClass::Queue(method))(WriteContext::from(Vec::new())).unwrap().write;
        let frame = [&[1, 0, 1, 0, 0, 0, payload.len() as u8][..], &payload, &[0xCE]].concat();
        let (batch, _) = Decoder::new(131_072).cut(&mut BytesMut::from(&frame[..]), 1);
        assert_eq!(bench.core.batch(client, &batch, None, bench.now), Flow::Continue);
        let before = bench.core.memory().bytes();
        assert_eq!(bench.core.message_counts().0, bench.core.vhosts[0].queues.len() - 1);
        drop(bench.core.take_garbage());
        assert!(bench.core.memory().bytes() < before);
    }
    bench.core.check();
}

#[test]
fn a_batch_that_compares_many_bindings_lets_others_go_on() {
    let mut bench = Bench::new();
    let client = bench.connect();
    bench.declare(client, "q", false);
    for number in 0..8_000 {
        let mut arguments = FieldTable::default();
        arguments.insert("n".into(), AMQPValue::LongInt(number));
        let (queue, exchange) = ("q".into(), "amq.headers".into());
        let bind = queue::Bind { queue, exchange, routing_key: "".into(), nowait: true, arguments };
        bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
    }
    bench.received(client);
    let publish =
        b"\x01\0\x01\0\0\0\x14\0\x3c\0\x28\0\0\x0bamq.headers\0\0\xCE\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\xCE";
    let (batch, error) = Decoder::new(131_072).cut(&mut BytesMut::from(&publish.repeat(40)[..]), 512);
    assert_eq!(error, None);
    // Each costs as much as moving five hundred messages.
    let Flow::Paused(left) = bench.core.batch(client, &batch, None, bench.now) else { panic!("not paused") };
    assert_eq!(left, (40 - 1 - WORK_MAX / 500) * publish.len());
}

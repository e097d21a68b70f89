//! Messages of quorum queues that wait before they are delivered again, as in RabbitMQ 4.3.

use super::{
    consumer_timeout::{declare_quorum, wait},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

/// A bench with a queue `q` that delays messages for a second after each failure, and for three at most; its consumer has
/// received a message.
fn bench(version: Profile, kind: &str) -> (Bench, ConnectionId) {
    let mut bench = Bench::as_version(version, [("guest", User::with_password("guest"))], Limits::default());
    let client = bench.connect();
    let arguments = [
        ("x-delayed-retry-type", AMQPValue::LongString(kind.into())),
        ("x-delayed-retry-min", AMQPValue::LongInt(1_000)),
        ("x-delayed-retry-max", AMQPValue::LongInt(3_000)),
        ("x-max-length", AMQPValue::LongInt(2)),
    ];
    declare_quorum(&mut bench, client, &arguments);
    bench.consume(client, "q", 1);
    bench.publish(client, "q", "a");
    bench.received(client);
    (bench, client)
}

/// Whether a message is delivered again after a time, and not before.
fn returns_after(bench: &mut Bench, client: ConnectionId, time: Duration) -> bool {
    bench.core.check();
    if !time.is_zero() {
        wait(bench, time - Duration::from_millis(1));
        assert_eq!(bench.received(client), [""; 0]);
        assert_eq!(bench.core.message_counts(), (0, 0), "a delayed message is not ready");
        wait(bench, Duration::from_millis(1));
    }
    bench.received(client).last().is_some_and(|last| last == "a")
}

fn nack(bench: &mut Bench, client: ConnectionId, delivery_tag: u64) {
    let nack = basic::Nack { delivery_tag, multiple: false, requeue: true };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)));
}

fn reject(bench: &mut Bench, client: ConnectionId, delivery_tag: u64) {
    let reject = basic::Reject { delivery_tag, requeue: true };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Reject(reject)));
}

#[test]
fn a_message_waits_longer_after_each_failure() {
    let (mut bench, client) = bench(Profile::RabbitMq4_3, "all");
    nack(&mut bench, client, 1);
    assert!(returns_after(&mut bench, client, SECOND), "a nack is no failure");
    for (tag, seconds) in [(2, 1), (3, 2), (4, 3), (5, 3)] {
        reject(&mut bench, client, tag);
        assert!(returns_after(&mut bench, client, seconds * SECOND), "after {seconds} s");
    }
    let other = bench.connect();
    bench.close(client);
    bench.consume(other, "q", 1);
    bench.received(other);
    assert!(returns_after(&mut bench, other, 3 * SECOND), "a lost connection is a failure");
}

#[test]
fn a_type_delays_failed_messages_or_returned_ones() {
    for (kind, failed_s, returned_s) in [("failed", 1, 0), ("returned", 0, 1), ("disabled", 0, 0), ("bogus", 0, 0)] {
        let (mut bench, client) = bench(Profile::RabbitMq4_3, kind);
        nack(&mut bench, client, 1);
        assert!(returns_after(&mut bench, client, returned_s * SECOND), "{kind}");
        reject(&mut bench, client, 2);
        assert!(returns_after(&mut bench, client, failed_s * SECOND), "{kind}");
    }
}

#[test]
fn rabbitmq_3_10_delays_nothing() {
    let (mut bench, client) = bench(Profile::RabbitMq3_10, "all");
    reject(&mut bench, client, 1);
    assert!(returns_after(&mut bench, client, Duration::ZERO));
}

#[test]
fn delayed_messages_count_for_the_length_and_are_purged_and_deleted() {
    let (mut bench, client) = bench(Profile::RabbitMq4_3, "all");
    reject(&mut bench, client, 1);
    for body in ["b", "c", "d"] {
        bench.publish(client, "q", body);
    }
    bench.core.check();
    assert_eq!(bench.core.message_counts(), (1, 1), "b is delivered; c was dropped, because a counts");
    bench.send(
        client,
        1,
        AMQPClass::Queue(queue::AMQPMethod::Purge(queue::Purge { queue: "q".into(), nowait: false })),
    );
    bench.core.check();
    assert_eq!(bench.core.message_counts(), (0, 1));
    reject(&mut bench, client, 2);
    bench.core.check();
    let delete = queue::Delete { queue: "q".into(), ..Default::default() };
    bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)));
    drop(bench.core.take_garbage());
    bench.core.check();
    assert_eq!(bench.core.message_counts(), (0, 0));
}

//! Messages that are taken back from their consumers, as in RabbitMQ 4.3.

use amq_protocol::protocol::tx;

use super::*;

const CANCEL: &str = "(60, 30)";
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A bench of RabbitMQ 4.3, with a quorum queue `q` of these messages and arguments.
fn bench(arguments: &[(&str, AMQPValue)], bodies: &[&str]) -> (Bench, ConnectionId) {
    let mut bench =
        Bench::as_version(Profile::RabbitMq4_3, [("guest", User::with_password("guest"))], Limits::default());
    let client = bench.connect();
    declare_quorum(&mut bench, client, arguments);
    for body in bodies {
        bench.publish(client, "q", body);
    }
    bench.received(client);
    (bench, client)
}

pub(super) fn declare_quorum(bench: &mut Bench, client: ConnectionId, arguments: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let declare = queue::Declare { queue: "q".into(), durable: true, arguments: table, ..Default::default() };
    bench.send(client, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
}

/// Lets time pass, with all that is due.
pub(super) fn wait(bench: &mut Bench, time: Duration) {
    let end = bench.now.instant + time;
    while let Some(next) = bench.core.next_timer().filter(|next| *next <= end) {
        bench.now.instant = next.max(bench.now.instant);
        bench.core.tick(bench.now);
        bench.collect();
        bench.core.check();
    }
    bench.now.instant = end;
}

fn consume_for(bench: &mut Bench, client: ConnectionId, consumer_tag: &str, timeout_ms: i32) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-consumer-timeout".into(), AMQPValue::LongInt(timeout_ms));
    let (queue, consumer_tag) = ("q".into(), consumer_tag.into());
    let consume = basic::Consume { queue, consumer_tag, arguments, ..Default::default() };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
}

fn get(bench: &mut Bench, client: ConnectionId) {
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: "q".into(), no_ack: false })));
}

fn tx(bench: &mut Bench, client: ConnectionId, method: tx::AMQPMethod) {
    bench.send(client, 1, AMQPClass::Tx(method));
    bench.core.check();
}

/// The last of the lines that a client has received.
fn last_received(bench: &mut Bench, client: ConnectionId, count: usize) -> Vec<String> {
    let received = bench.received(client);
    received[received.len().saturating_sub(count)..].to_vec()
}

#[test]
fn a_message_kept_too_long_is_taken_back_and_its_consumer_cancelled() {
    let (mut bench, slow) = bench(&[], &["a", "b", "c"]);
    let other = bench.connect();
    bench.consume(slow, "q", 2);
    wait(&mut bench, HALF_HOUR - MILLISECOND);
    assert_eq!(last_received(&mut bench, slow, 4), ["deliver 1", "a", "deliver 2", "b"], "not yet");
    wait(&mut bench, MILLISECOND);
    assert_eq!(bench.received(slow), [CANCEL], "one for both");
    assert_eq!(bench.core.message_counts(), (3, 0));
    bench.consume(other, "q", 2);
    assert_eq!(last_received(&mut bench, other, 4), ["deliver 1 again", "a", "deliver 2 again", "b"]);
    assert_eq!(bench.received(slow), [""; 0], "c is not for a consumer that has timed out");
}

#[test]
fn a_consumer_that_settles_what_was_taken_back_goes_on() {
    let (mut bench, slow) = bench(&[], &["a", "b"]);
    bench.consume(slow, "q", 2);
    wait(&mut bench, HALF_HOUR);
    bench.received(slow);
    bench.ack(slow, 1, false);
    assert_eq!(bench.received(slow), [""; 0], "one is not settled");
    bench.ack(slow, 2, false);
    assert_eq!(bench.received(slow), ["deliver 3 again", "a", "deliver 4 again", "b"]);
    bench.core.check();
    bench.ack(slow, 2, false);
    assert_eq!(bench.received(slow), ["channel.close 406"], "settled before");
}

#[test]
fn other_deliveries_are_left_to_the_consumer() {
    let (mut bench, slow) = bench(&[], &["a"]);
    bench.consume(slow, "q", 0);
    wait(&mut bench, HALF_HOUR / 2);
    bench.publish(slow, "q", "b");
    bench.received(slow);
    wait(&mut bench, HALF_HOUR / 2);
    assert_eq!(bench.received(slow), [CANCEL]);
    assert_eq!(bench.core.message_counts(), (1, 1));
    bench.ack(slow, 2, false);
    assert_eq!(bench.core.message_counts(), (1, 0), "b is gone; a waits for a consumer");
    bench.ack(slow, 0, true);
    assert_eq!(bench.received(slow), ["deliver 3 again", "a"]);
    wait(&mut bench, HALF_HOUR);
    bench.close(slow);
    bench.core.check();
    assert_eq!((bench.core.message_counts(), bench.core.next_timer()), ((1, 0), None));
}

#[test]
fn the_limit_is_the_consumers_or_the_queues_or_the_brokers() {
    let (mut bench, client) = bench(&[("x-consumer-timeout", AMQPValue::LongInt(500))], &["a", "b"]);
    bench.consume(client, "q", 1);
    consume_for(&mut bench, client, "patient", 3_000);
    bench.received(client);
    wait(&mut bench, Duration::from_millis(499));
    assert_eq!(bench.received(client), [""; 0]);
    wait(&mut bench, MILLISECOND);
    assert_eq!(bench.received(client), [CANCEL]);
    wait(&mut bench, Duration::from_millis(2_499));
    assert_eq!(bench.received(client), [""; 0]);
    wait(&mut bench, MILLISECOND);
    assert_eq!(bench.received(client), [CANCEL]);
}

#[test]
fn a_consumer_is_removed_when_its_client_confirms_the_cancel() {
    let (mut bench, client) = bench(&[], &["a"]);
    bench.consume(client, "q", 1);
    wait(&mut bench, HALF_HOUR);
    let cancelled = || basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: "t".into() });
    bench.send(client, 1, AMQPClass::Basic(cancelled()));
    bench.core.check();
    bench.received(client);
    bench.ack(client, 1, false);
    bench.consume(client, "q", 1);
    assert_eq!(last_received(&mut bench, client, 2), ["deliver 2 again", "a"], "its tag is free");
    let unknown = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: "u".into() });
    bench.send(client, 1, AMQPClass::Basic(unknown));
    assert_eq!(bench.received(client), ["connection.close 541"]);
}

#[test]
fn a_client_that_cannot_be_told_loses_its_channel() {
    let (mut bench, client) = bench(&[], &["a"]);
    get(&mut bench, client);
    bench.received(client);
    wait(&mut bench, HALF_HOUR);
    assert_eq!(bench.received(client), ["channel.close 406"], "basic.get has no consumer");
    let other = bench.connect();
    bench.consume(other, "q", 1);
    let cancel = basic::Cancel { consumer_tag: "t".into(), nowait: true };
    bench.send(other, 1, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
    bench.received(other);
    wait(&mut bench, HALF_HOUR);
    assert_eq!(bench.received(other), ["channel.close 406"], "it has cancelled its consumer itself");
    assert_eq!(bench.core.message_counts(), (1, 0));
}

#[test]
fn classic_queues_and_automatic_acknowledgements_have_no_limit() {
    let (mut bench, client) = bench(&[("x-consumer-timeout", AMQPValue::LongInt(0))], &[]);
    bench.declare(client, "classic", false);
    bench.publish(client, "classic", "a");
    bench.consume_as(client, "classic", "c", 1);
    let consume = basic::Consume { queue: "q".into(), no_ack: true, ..Default::default() };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    bench.publish(client, "q", "b");
    bench.received(client);
    assert_eq!(bench.core.next_timer(), None);
    wait(&mut bench, 100 * HALF_HOUR);
    assert_eq!(bench.received(client), [""; 0]);
}

#[test]
fn an_uncommitted_acknowledgement_does_not_keep_a_message() {
    let (mut bench, client) = bench(&[], &["a"]);
    tx(&mut bench, client, tx::AMQPMethod::Select(tx::Select {}));
    bench.consume(client, "q", 1);
    bench.ack(client, 1, false);
    bench.received(client);
    wait(&mut bench, HALF_HOUR);
    assert_eq!(bench.received(client), [CANCEL]);
    tx(&mut bench, client, tx::AMQPMethod::Rollback(tx::Rollback {}));
    bench.ack(client, 1, false);
    tx(&mut bench, client, tx::AMQPMethod::Commit(tx::Commit {}));
    assert_eq!(last_received(&mut bench, client, 2), ["deliver 2 again", "a"]);
}

#[test]
fn the_next_consumer_takes_over_from_a_single_active_one() {
    let (mut bench, first) = bench(&[("x-single-active-consumer", AMQPValue::Boolean(true))], &["a"]);
    let second = bench.connect();
    bench.consume(first, "q", 1);
    bench.consume(second, "q", 1);
    bench.received(first);
    bench.received(second);
    wait(&mut bench, HALF_HOUR);
    assert_eq!(bench.received(first), [CANCEL]);
    assert_eq!(bench.received(second), ["deliver 1 again", "a"]);
    bench.ack(first, 1, false);
    bench.ack(second, 1, false);
    bench.publish(first, "q", "b");
    assert_eq!((bench.received(first).len(), bench.received(second)), (0, vec!["deliver 2".into(), "b".into()]));
    bench.core.check();
    bench.close(second);
    assert_eq!(bench.received(first), ["deliver 2 again", "b"], "it waits behind the others");
}

#[test]
fn all_consumers_of_a_queue_may_time_out_and_the_first_to_settle_goes_on() {
    let (mut bench, first) = bench(&[("x-single-active-consumer", AMQPValue::Boolean(true))], &["a"]);
    bench.consume(first, "q", 1);
    wait(&mut bench, HALF_HOUR);
    bench.received(first);
    bench.ack(first, 1, false);
    assert_eq!(bench.received(first), ["deliver 2 again", "a"]);
    bench.core.check();
}

#[test]
fn many_messages_are_taken_back_in_pieces() {
    const MESSAGES: usize = 5_000;
    let (mut bench, client) = bench(&[], &["x"; MESSAGES]);
    bench.consume(client, "q", 0);
    while bench.core.message_counts().1 < MESSAGES {
        bench.core.tick(bench.now);
    }
    bench.collect();
    bench.received(client);
    bench.now.instant += HALF_HOUR;
    let mut pieces = 0;
    while bench.core.next_timer().is_some_and(|due| due <= bench.now.instant) {
        bench.core.tick(bench.now);
        pieces += 1;
        assert!(bench.core.work() < MESSAGES / 2 && pieces < 100);
    }
    bench.collect();
    bench.core.check();
    assert_eq!((bench.core.message_counts(), pieces > 2), ((MESSAGES, 0), true));
    assert!(bench.received(client).iter().all(|line| line == CANCEL));
}

#[test]
fn a_settled_delivery_costs_no_memory_for_half_an_hour() {
    let (mut bench, client) = bench(&[], &["stuck"]);
    bench.consume(client, "q", 0);
    for tag in 2..=10_000 {
        bench.publish(client, "q", "x");
        bench.ack(client, tag, false);
    }
    let channel = bench.core.sessions.channel_mut(client, 1).unwrap();
    assert!(channel.dues_count() < 300, "{}", channel.dues_count());
    bench.core.check();
}

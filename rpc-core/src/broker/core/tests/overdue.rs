//! Deliveries that are not acknowledged in time.

use amq_protocol::protocol::tx;

use super::*;

const LIMIT_S: u64 = 1_800;

/// A bench after its first scan, with a queue `q` of three messages.
fn bench(limits: Limits) -> (Bench, ConnectionId) {
    let mut bench = Bench::with_limits(limits);
    let client = bench.connect();
    bench.declare(client, "q", false);
    for body in ["a", "b", "c"] {
        bench.publish(client, "q", body);
    }
    bench.received(client);
    wait(&mut bench, 0);
    (bench, client)
}

/// Lets time pass, with the scans that are due.
fn wait(bench: &mut Bench, seconds: u64) {
    let end = bench.now.instant + Duration::from_secs(seconds);
    loop {
        let next = bench.core.tick(bench.now);
        bench.collect();
        bench.core.check();
        match next.filter(|next| *next <= end) {
            Some(next) => bench.now.instant = next,
            None => break,
        }
    }
    bench.now.instant = end;
}

fn get(bench: &mut Bench, client: ConnectionId) {
    let get = basic::Get { queue: "q".into(), no_ack: false };
    bench.send(client, 1, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
}

#[test]
fn a_delivery_kept_too_long_closes_its_channel_and_is_requeued() {
    let (mut bench, slow) = bench(Limits::default());
    let other = bench.connect();
    wait(&mut bench, 17);
    bench.consume(slow, "q", 2);
    bench.received(slow);
    wait(&mut bench, LIMIT_S);
    assert_eq!(bench.received(slow), [""; 0], "not longer than the limit yet");
    bench.consume(other, "q", 1);
    bench.received(other);
    wait(&mut bench, 60);
    assert_eq!(bench.received(slow), ["channel.close 406"]);
    bench.ack(other, 1, false);
    assert_eq!(bench.received(other), ["deliver 2 again", "a"], "the delivery that the slow one held is redelivered");
    wait(&mut bench, LIMIT_S - 120);
    assert_eq!(bench.received(other), [""; 0], "each has its own time");
    wait(&mut bench, 180);
    assert_eq!(bench.received(other), ["channel.close 406"]);
    assert_eq!(bench.core.message_counts(), (2, 0));
}

#[test]
fn a_consumer_that_acknowledges_in_time_keeps_its_channel() {
    let (mut bench, client) = bench(Limits::default());
    bench.consume(client, "q", 1);
    for tag in 1..=3 {
        wait(&mut bench, LIMIT_S - 10);
        bench.ack(client, tag, false);
    }
    wait(&mut bench, 10 * LIMIT_S);
    assert!(!bench.received(client).contains(&"channel.close 406".to_owned()));
}

#[test]
fn a_message_that_was_got_is_overdue_but_not_one_settled_in_a_transaction() {
    let (mut bench, client) = bench(Limits::default());
    let settling = bench.connect();
    bench.send(settling, 1, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})));
    get(&mut bench, settling);
    bench.ack(settling, 1, false);
    get(&mut bench, client);
    bench.received(client);
    bench.received(settling);
    wait(&mut bench, LIMIT_S + 60);
    assert_eq!(bench.received(client), ["channel.close 406"]);
    assert_eq!(bench.received(settling), [""; 0]);
    bench.send(settling, 1, AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {})));
    bench.received(settling);
    wait(&mut bench, LIMIT_S + 60);
    assert_eq!(bench.received(settling), ["channel.close 406"], "un-acknowledged again, and kept");
}

#[test]
fn a_clock_that_jumps_is_no_excuse() {
    let (mut bench, client) = bench(Limits::default());
    get(&mut bench, client);
    bench.received(client);
    bench.now.instant += Duration::from_secs(LIMIT_S + 60);
    wait(&mut bench, 0);
    assert_eq!(bench.received(client), ["channel.close 406"]);
}

#[test]
fn without_the_limit_nothing_is_scanned() {
    let (mut bench, client) = bench(Limits { consumer_timeout: None, ..Limits::default() });
    get(&mut bench, client);
    bench.received(client);
    assert_eq!(bench.core.tick(bench.now), None);
    wait(&mut bench, 100 * LIMIT_S);
    assert_eq!(bench.received(client), [""; 0]);
    assert_eq!(bench.core.message_counts(), (2, 1));
}

#[test]
fn a_limit_beyond_all_time_is_none() {
    let (mut bench, client) = bench(Limits { consumer_timeout: Some(Duration::MAX), ..Limits::default() });
    get(&mut bench, client);
    bench.received(client);
    wait(&mut bench, 100 * LIMIT_S);
    assert_eq!(bench.received(client), [""; 0]);
}

#[test]
fn many_channels_are_looked_at_and_closed_in_pieces() {
    const CHANNELS: u16 = 2_000;
    let mut bench = Bench::new();
    let client = bench.connect();
    bench.declare(client, "q", false);
    for number in 1..=CHANNELS {
        if number > 1 {
            bench.send(client, number, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
        }
        bench.publish(client, "q", "x");
        let get = basic::Get { queue: "q".into(), no_ack: false };
        bench.send(client, number, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
    }
    wait(&mut bench, 0);
    bench.received(client);
    bench.now.instant += Duration::from_secs(LIMIT_S + 60);
    let mut closed = Vec::new();
    while closed.iter().sum::<usize>() < usize::from(CHANNELS) {
        assert!(bench.core.tick(bench.now).is_some());
        bench.collect();
        closed.push(bench.received(client).len());
        assert!(closed.len() < 100, "{closed:?}");
    }
    assert!(closed.iter().all(|closed| *closed <= 512), "{closed:?}");
    bench.core.finish_behind(bench.now);
    bench.core.check();
    assert_eq!(bench.core.message_counts(), (usize::from(CHANNELS), 0));
}

//! The operations that are measured, each on a world of its own.

use std::time::Duration;

use crate::{
    broker::core::ConnectionId,
    frames::{Argument, bind, consume, declare, open, publish, qos, settle, table},
    payload::method,
    world::{Cost, World},
};

/// A name, and the operation on so many things.
pub(crate) type Operation = (&'static str, fn(usize) -> Cost);

pub(crate) const OPERATIONS: &[Operation] = &[
    ("`tx.commit` of n publishes", commit_publishes),
    ("`tx.commit` of n acknowledgements", |n| settle_in_transaction(n, (90, 20))),
    ("`tx.rollback` of n acknowledgements, n deliveries behind", |n| settle_in_transaction(n, (90, 30))),
    ("`basic.ack` of n, `multiple`", |n| settle_all(n, &settle(0, true, None))),
    ("`basic.nack` of n, dead-lettered", |n| settle_all(n, &settle(0, true, Some(false)))),
    ("`basic.nack` of n, requeued", |n| settle_all(n, &settle(0, true, Some(true)))),
    ("`basic.recover` of n", |n| settle_all(n, &method((60, 110)).octet(1).frame(1))),
    ("`channel.close` with n unacknowledged", |n| settle_all(n, &close_channel(1))),
    ("a socket ends with n unacknowledged", lose_unacked),
    ("`basic.nack` of every other of n, one by one, requeued", requeue_one_by_one),
    ("a socket ends with n exclusive queues", lose_exclusive),
    ("a socket ends with n consumers", lose_consumers),
    ("a socket ends with n channels", lose_channels),
    ("`channel.close` with consumers of n queues", close_consumers),
    ("`queue.delete` with n bindings, direct", |n| delete_bound(n, "amq.direct")),
    ("`queue.delete` with n bindings, topic", |n| delete_bound(n, "amq.topic")),
    ("`queue.delete` with n bindings, headers", |n| delete_bound(n, "amq.headers")),
    ("`exchange.delete` with n bindings", delete_exchange),
    ("`queue.unbind` of a locked queue beside n bindings", unbind_locked),
    ("`queue.delete` with n ready", |n| full(n, &method((50, 40)).short(0).text("q").octet(0).frame(1))),
    ("`queue.purge` of n ready", |n| full(n, &method((50, 30)).short(0).text("q").octet(0).frame(1))),
    ("`queue.delete` with n consumers", delete_consumed),
    ("n consumers with prefetch 1 come to a backlog", consume_backlog),
    ("a publish to a queue with n consumers", publish_consumed),
    ("a publish to a fanout exchange with n queues", publish_fanout),
    ("n messages expire, dead-lettered", expire),
    ("n messages are pushed out by a large one", push_out),
    ("`basic.qos` of a channel that consumes from n queues", widen_window),
];

fn numbered(n: usize, frame: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..n).flat_map(frame).collect()
}

fn publishes(n: usize) -> Vec<u8> {
    publish("", "q", b"x").repeat(n)
}

fn close_channel(channel: u16) -> Vec<u8> {
    method((20, 40)).short(200).text("").short(0).short(0).frame(channel)
}

fn plain() -> (World, ConnectionId) {
    let mut world = World::new();
    let id = world.connect();
    (world, id)
}

/// A client that has n deliveries of `q` to settle. Dead letters go to `dead`.
fn holding(n: usize) -> (World, ConnectionId) {
    let (mut world, id) = plain();
    let dead_letters =
        [("x-dead-letter-exchange", Argument::Text("")), ("x-dead-letter-routing-key", Argument::Text("dead"))];
    world.send(id, &declare("q", 0, &dead_letters));
    world.send(id, &declare("dead", 0, &[]));
    world.send(id, &consume(1, "q", "t"));
    world.send(id, &publishes(n));
    (world, id)
}

fn commit_publishes(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    world.send(id, &method((90, 10)).frame(1));
    world.send(id, &publishes(n));
    let cost = world.measure(|world| world.send(id, &method((90, 20)).frame(1)));
    assert_eq!(world.ready("q"), n);
    cost
}

fn settle_in_transaction(n: usize, end: (u16, u16)) -> Cost {
    let (mut world, id) = holding(2 * n);
    world.send(id, &method((90, 10)).frame(1));
    world.measure(|world| {
        world.send(id, &settle(n as u64, true, None));
        world.send(id, &method(end).frame(1));
    })
}

fn settle_all(n: usize, frame: &[u8]) -> Cost {
    let (mut world, id) = holding(n);
    // Requeued messages stay in the queue.
    world.send(id, &method((60, 30)).text("t").octet(1).frame(1));
    world.measure(|world| world.send(id, frame))
}

fn lose_unacked(n: usize) -> Cost {
    let (mut world, id) = holding(n);
    let cost = world.measure(|world| world.lose(id));
    assert_eq!(world.ready("q"), n);
    cost
}

fn requeue_one_by_one(n: usize) -> Cost {
    let (mut world, id) = holding(n);
    world.send(id, &method((60, 30)).text("t").octet(1).frame(1));
    // The others are ready, so that each requeued one has its place among them.
    world.send(id, &numbered(n / 2, |at| settle(2 * at as u64 + 1, false, Some(true))));
    world.measure(|world| world.send(id, &numbered(n / 2, |at| settle(2 * at as u64 + 2, false, Some(true)))))
}

fn lose_exclusive(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &numbered(n, |at| declare(&format!("q{at}"), 0b100, &[])));
    world.measure(|world| world.lose(id))
}

/// Consumers of `q` on as many channels as the limit of a channel asks for.
fn consumers(world: &mut World, id: ConnectionId, n: usize, prefetch_count: u16) {
    for channel in 1..=n.div_ceil(10_000) as u16 {
        if channel > 1 {
            world.send(id, &open(channel));
        }
        world.send(id, &qos(channel, prefetch_count, false));
        let here = (n - 10_000 * (usize::from(channel) - 1)).min(10_000);
        world.send(id, &numbered(here, |at| consume(channel, "q", &format!("t{at}"))));
    }
}

fn lose_consumers(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    consumers(&mut world, id, n, 1);
    world.measure(|world| world.lose(id))
}

fn lose_channels(n: usize) -> Cost {
    let (mut world, mut ids) = (World::new(), Vec::new());
    for begin in (0..n).step_by(65_534) {
        let id = world.connect();
        world.send(id, &numbered((n - begin).min(65_534), |at| open(at as u16 + 2)));
        ids.push(id);
    }
    world.measure(|world| ids.into_iter().for_each(|id| world.lose(id)))
}

fn close_consumers(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &numbered(n, |at| declare(&format!("q{at}"), 0b1000, &[])));
    for channel in 2..=n.div_ceil(10_000) as u16 + 1 {
        let first = 10_000 * (usize::from(channel) - 2);
        world.send(id, &open(channel));
        world.send(
            id,
            &numbered((n - first).min(10_000), |at| consume(channel, &format!("q{}", first + at), &format!("{at}"))),
        );
    }
    world.measure(|world| {
        (2..=n.div_ceil(10_000) as u16 + 1).for_each(|channel| world.send(id, &close_channel(channel)))
    })
}

fn delete_bound(n: usize, exchange: &str) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    world.send(id, &numbered(n, |at| bind("q", exchange, &format!("a.{at}"))));
    world.measure(|world| world.send(id, &method((50, 40)).short(0).text("q").octet(0).frame(1)))
}

fn delete_exchange(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &method((40, 10)).short(0).text("e").text("direct").octet(0b1_0000).table(&table(&[])).frame(1));
    world.send(id, &declare("q", 0, &[]));
    world.send(id, &numbered(n, |at| bind("q", "e", &format!("a.{at}"))));
    world.measure(|world| world.send(id, &method((40, 20)).short(0).text("e").octet(0).frame(1)))
}

fn unbind_locked(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("mine", 0b100, &[]));
    world.send(id, &numbered(n, |at| bind("mine", "amq.direct", &format!("a.{at}"))));
    let other = world.connect();
    let unbind = method((50, 50)).short(0).text("mine").text("amq.topic").text("x").table(&table(&[])).frame(1);
    world.measure(|world| world.send(other, &unbind))
}

fn full(n: usize, frame: &[u8]) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    world.send(id, &publishes(n));
    world.measure(|world| world.send(id, frame))
}

fn delete_consumed(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    consumers(&mut world, id, n, 1);
    world.measure(|world| world.send(id, &method((50, 40)).short(0).text("q").octet(0).frame(1)))
}

fn consume_backlog(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    world.send(id, &publishes(n));
    world.measure(|world| consumers(world, id, n, 1))
}

fn publish_consumed(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[]));
    consumers(&mut world, id, n, 1);
    world.measure(|world| world.send(id, &publishes(n)))
}

fn publish_fanout(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &numbered(n, |at| declare(&format!("q{at}"), 0, &[])));
    world.send(id, &numbered(n, |at| bind(&format!("q{at}"), "amq.fanout", "")));
    let cost = world.measure(|world| world.send(id, &publish("amq.fanout", "", b"x")));
    assert_eq!(world.ready(&format!("q{}", n - 1)), 1);
    cost
}

fn expire(n: usize) -> Cost {
    let (mut world, id) = plain();
    let arguments = [
        ("x-message-ttl", Argument::Integer(1_000)),
        ("x-dead-letter-exchange", Argument::Text("")),
        ("x-dead-letter-routing-key", Argument::Text("dead")),
    ];
    world.send(id, &declare("q", 0, &arguments));
    world.send(id, &declare("dead", 0, &[]));
    world.send(id, &publishes(n));
    let cost = world.measure(|world| world.wait(Duration::from_secs(2)));
    assert_eq!(world.ready("dead"), n);
    cost
}

fn push_out(n: usize) -> Cost {
    let (mut world, id) = plain();
    world.send(id, &declare("q", 0, &[("x-max-length-bytes", Argument::Integer(2_000_000))]));
    world.send(id, &publishes(n));
    let cost = world.measure(|world| {
        world.send(id, &publish("", "q", &vec![0; 2_000_000]));
        world.wait(Duration::ZERO);
    });
    assert_eq!(world.ready("q"), 1);
    cost
}

fn widen_window(n: usize) -> Cost {
    let (mut world, id) = plain();
    let n = n.min(10_000);
    world.send(id, &numbered(n, |at| declare(&format!("q{at}"), 0, &[])));
    world.send(id, &numbered(n, |at| consume(1, &format!("q{at}"), &format!("t{at}"))));
    world.measure(|world| world.send(id, &qos(1, 10, true)))
}

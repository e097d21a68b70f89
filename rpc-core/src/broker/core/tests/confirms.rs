//! Confirms of publishes that are sent in one batch.

use amq_protocol::protocol::confirm;

use super::*;

#[test]
fn a_return_is_between_the_confirms_of_its_neighbours() {
    let (mut bench, client) = confirming();
    bench.bytes(client, &[publish("q"), publish("none"), publish("q")].concat());
    assert_eq!(bench.received(client), [ack(1, false), "(60, 50)".into(), "x".into(), ack(2, false), ack(3, false)]);
}

#[test]
fn many_publishes_are_confirmed_at_once() {
    let (mut bench, client) = confirming();
    bench.bytes(client, &publish("q").repeat(20));
    assert_eq!(bench.received(client), [ack(20, true)]);
}

/// A client with a queue `q` and a channel in confirm mode.
fn confirming() -> (Bench, ConnectionId) {
    let mut bench = Bench::new();
    let client = bench.connect();
    bench.declare(client, "q", false);
    bench.send(client, 1, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: true })));
    bench.received(client);
    (bench, client)
}

/// The frames of a mandatory message `x`.
fn publish(queue: &str) -> Vec<u8> {
    let publish = basic::Publish { exchange: "".into(), routing_key: queue.into(), mandatory: true, immediate: false };
    let class = AMQPClass::Basic(basic::AMQPMethod::Publish(publish));
    let method = gen_class(&class)(WriteContext::from(Vec::new())).unwrap().write;
    let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let mut frames = Vec::new();
    for (kind, payload) in [(FrameKind::Method, &method[..]), (FrameKind::Header, &header), (FrameKind::Body, b"x")] {
        frames.extend([kind.octet(), 0, 1]);
        frames.extend((payload.len() as u32).to_be_bytes());
        frames.extend(payload);
        frames.push(0xCE);
    }
    frames
}

fn ack(delivery_tag: u64, multiple: bool) -> String {
    format!("Ack(Ack {{ delivery_tag: {delivery_tag}, multiple: {multiple} }})")
}

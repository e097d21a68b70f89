//! Frames have the same effect however they are divided into batches.

use bytes::Bytes;

use super::*;

/// A publish, valid or not.
#[derive(Debug, Clone)]
struct Sent {
    channel: u16,
    exchange: &'static str,
    routing_key: &'static str,
    /// Mandatory, immediate.
    bits: u8,
    properties: &'static [u8],
    body_bytes: usize,
    /// By how much the announced size exceeds the body.
    more: i64,
    /// Frames of at most so many bytes.
    cut: usize,
    /// A frame that is left out, and one that is sent in between.
    without: Option<usize>,
    between: Option<(usize, &'static [u8])>,
}

impl Sent {
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut publish = vec![0, 60, 0, 40, 0, 0];
        for name in [self.exchange, self.routing_key] {
            publish.push(name.len() as u8);
            publish.extend(name.as_bytes());
        }
        publish.push(self.bits);
        let mut header = vec![0, 60, 0, 0];
        header.extend((self.body_bytes as i64 + self.more).max(0).to_be_bytes());
        header.extend(self.properties);
        let body = vec![b'x'; self.body_bytes];
        let mut frames = vec![self.frame(FrameKind::Method, &publish), self.frame(FrameKind::Header, &header)];
        frames.extend(body.chunks(self.cut).map(|chunk| self.frame(FrameKind::Body, chunk)));
        if let Some(at) = self.without.filter(|at| *at < frames.len()) {
            frames.remove(at);
        }
        if let Some((at, frame)) = self.between {
            frames.insert(at.min(frames.len()), frame.to_vec());
        }
        frames
    }

    fn frame(&self, kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind.octet()];
        bytes.extend(self.channel.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xCE);
        bytes
    }
}

/// Nothing; correlation_id and reply_to; direct reply-to; expirations, good and bad; an unknown delivery mode; another
/// user; priority; BCC; CC of a wrong type; a body shorter than announced.
const PROPERTIES: [&[u8]; 11] = [
    b"\0\0",
    b"\x06\0\x01c\x01r",
    b"\x02\0\x15amq.rabbitmq.reply-to",
    b"\x01\0\x04 100",
    b"\x01\0\x03100",
    b"\x10\0\x03",
    b"\0\x10\x05alice",
    b"\x08\0\x09",
    b"\x20\0\0\0\0\x10\x03BCCA\0\0\0\x07S\0\0\0\x02q2",
    b"\x20\0\0\0\0\x05\x02CCt\x01",
    b"\x80\0",
];

/// A heartbeat on a channel, a method of the same channel, an ack of no delivery, a method of channel 0, a header
/// and a body of another channel.
const BETWEEN: [&[u8]; 6] = [
    b"\x08\0\0\0\0\0\0\xCE",
    b"\x01\0\x01\0\0\0\x05\0\x14\0\x14\x01\xCE",
    b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50\0\0\0\0\0\0\0\x09\0\xCE",
    b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xCE",
    b"\x02\0\x02\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\xCE",
    b"\x03\0\x02\0\0\0\x02ab\xCE",
];

fn sent() -> impl Strategy<Value = Sent> {
    let names = (
        prop_oneof![9 => Just(1), 2 => Just(2), 1 => Just(3)],
        prop_oneof![6 => Just(""), 2 => Just("amq.fanout"), 4 => Just("amq.topic"), 1 => Just("missing"), 1 => Just("amq.rabbitmq.trace")],
        prop_oneof![6 => Just("q"), 3 => Just("q2"), 2 => Just("none"), 1 => Just("amq.rabbitmq.reply-to.0-0.1")],
        prop_oneof![6 => Just(0), 4 => Just(1), 1 => Just(2)],
    );
    let content = (
        prop_oneof![6 => Just(PROPERTIES[0]), 6 => Just(PROPERTIES[1]), 4 => prop::sample::select(&PROPERTIES[2..])],
        prop_oneof![2 => Just(0), 6 => 1..100_usize, 1 => Just(4_096), 1 => Just(4_097)],
        prop_oneof![20 => Just(0), 1 => Just(1), 1 => Just(-1)],
        prop_oneof![4 => Just(131_000), 1 => 10..2_000_usize],
    );
    let broken = (
        prop_oneof![20 => Just(None), 1 => (0..3_usize).prop_map(Some)],
        prop_oneof![20 => Just(None), 1 => (0..4_usize, prop::sample::select(&BETWEEN[..])).prop_map(Some)],
    );
    (names, content, broken).prop_map(|(names, content, (without, between))| {
        let (channel, exchange, routing_key, bits) = names;
        let (properties, body_bytes, more, cut) = content;
        Sent { channel, exchange, routing_key, bits, properties, body_bytes, more, cut, without, between }
    })
}

/// The output of every client when the frames are divided into these batches, and a search pauses after so many steps.
fn outcome(frames: &[Vec<u8>], batches: &[usize], route_steps_max: usize) -> Vec<(ConnectionId, Bytes)> {
    let mut bench = Bench::new();
    bench.core.sessions.work_max = route_steps_max.min(4_096);
    bench.core.vhosts[0].route_steps_max = route_steps_max;
    let (publisher, consumer) = (bench.connect(), bench.connect());
    bench.send(publisher, 2, AMQPClass::Channel(channel_class::AMQPMethod::Open(channel_class::Open {})));
    for queue in ["q", "q2"] {
        bench.declare(publisher, queue, false);
    }
    for (queue, pattern) in [("q", "#.#"), ("q2", "q2"), ("q", "*")] {
        bench.bind("amq.topic", queue, pattern);
    }
    bench.consume(consumer, "q", 0);
    let mut sizes = batches.iter().copied().cycle();
    let mut rest = frames;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        rest = after;
        if bench.bytes(publisher, &batch.concat()) != Flow::Continue {
            break;
        }
        bench.core.check();
    }
    let mut received: Vec<_> = bench.received.into_iter().map(|(id, bytes)| (id, bytes.freeze())).collect();
    received.sort();
    received
}

proptest! {
    #[test]
    fn frames_mean_the_same_in_any_batches(
        sent in prop::collection::vec(sent(), 1..12),
        batches in prop::collection::vec(1..20_usize, 1..5),
    ) {
        let frames: Vec<_> = sent.iter().flat_map(Sent::frames).collect();
        let one_by_one = outcome(&frames, &[1], usize::MAX);
        prop_assert_eq!(&one_by_one, &outcome(&frames, &batches, usize::MAX));
        prop_assert_eq!(&one_by_one, &outcome(&frames, &[usize::MAX], usize::MAX));
        // While the search of one channel pauses, others go on: only the order within a channel is certain.
        let of_one: Vec<_> = frames.into_iter().filter(|frame| frame[1..3] == [0, 1]).collect();
        prop_assert_eq!(&outcome(&of_one, &[1], usize::MAX), &outcome(&of_one, &batches, 1));
    }
}

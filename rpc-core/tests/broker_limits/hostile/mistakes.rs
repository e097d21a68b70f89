//! Bytes that no client should send, and their answers. Those of RabbitMQ 3.10 are the same where `tests/parity` has them.

use std::net::SocketAddr;

use super::{Answer, Hostile, Stage};
use crate::socket::{frame, method, publish_to};

/// Bytes that are sent at a stage.
pub(super) struct Mistake {
    pub(super) name: &'static str,
    stage: Stage,
    bytes: Vec<u8>,
    pub(super) expected: Answer,
}

impl Mistake {
    pub(super) async fn make(&self, address: SocketAddr) -> Answer {
        let mut hostile = Hostile::at(self.stage, address).await;
        hostile.send(&self.bytes).await;
        if self.expected == Answer::Lives {
            hostile.send(&method(9, &[0, 20, 0, 10, 0])).await;
        }
        if self.expected == Answer::Header {
            let mut received = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut hostile.0, &mut received).await);
            return if received == crate::socket::PROTOCOL_HEADER { Answer::Header } else { Answer::Closed };
        }
        hostile.answer().await
    }
}

fn mistake(stage: Stage, name: &'static str, bytes: Vec<u8>, expected: Answer) -> Mistake {
    Mistake { name, stage, bytes, expected }
}

pub(super) fn all() -> Vec<Mistake> {
    let mut all = before_the_login();
    all.extend(after_the_login());
    all.extend(frames());
    all.extend(contents());
    all.extend(methods());
    all
}

fn before_the_login() -> Vec<Mistake> {
    let at = |stage, name, bytes: &[u8], expected| mistake(stage, name, bytes.to_vec(), expected);
    let start_ok = |rest: &[u8]| method(0, &[b"\0\x0a\0\x0b", rest].concat());
    vec![
        at(Stage::Socket, "HTTP", b"GET / HTTP/1.1\r\n\r\n", Answer::Header),
        at(Stage::Socket, "another version", b"AMQP\0\x01\0\0", Answer::Header),
        at(Stage::Socket, "zeros", &[0; 64], Answer::Header),
        at(Stage::Socket, "half a header", b"AMQP", Answer::Closed),
        at(Stage::Socket, "nothing", b"", Answer::Closed),
        at(Stage::Started, "nothing after the header", b"", Answer::Closed),
        at(Stage::Started, "an unknown frame before the login", &frame(9, 0, b"x"), Answer::Closed),
        at(Stage::Started, "a wrong frame end before the login", b"\x01\0\0\0\0\0\x04\0\x0a\0\x0b\0", Answer::Closed),
        at(Stage::Started, "a huge frame before the login", b"\x01\0\0\xFF\xFF\xFF\xFF", Answer::Closed),
        at(Stage::Started, "a truncated start-ok", &start_ok(b"\0\0\0\0\x05PL"), Answer::Closed),
        at(
            Stage::Started,
            "a deep start-ok",
            &start_ok(&[&deep(18_000)[..], b"\x05PLAIN\0\0\0\0\x05en_US"].concat()),
            Answer::Closed,
        ),
        at(
            Stage::Started,
            "a deep start",
            &method(0, &[b"\0\x0a\0\x0a\0\x09", &deep(18_000)[..], &[0; 8]].concat()),
            Answer::Closed,
        ),
        at(
            Stage::Started,
            "a wrong password",
            &start_ok(b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0wrong\x05en_US"),
            Answer::Closed,
        ),
        at(Stage::Started, "no password", &start_ok(b"\0\0\0\0\x05PLAIN\0\0\0\x07\0guest\0\x05en_US"), Answer::Closed),
        at(
            Stage::Started,
            "a response without a user",
            &start_ok(b"\0\0\0\0\x05PLAIN\0\0\0\x03xyz\x05en_US"),
            Answer::Closed,
        ),
        at(
            Stage::Started,
            "a response of AMQPLAIN that is no table",
            &start_ok(b"\0\0\0\0\x08AMQPLAIN\0\0\0\x03\x09\x01\x01\x05en_US"),
            Answer::Closed,
        ),
        at(Stage::Started, "an unknown mechanism", &start_ok(b"\0\0\0\0\x05MAGIC\0\0\0\x01x\x05en_US"), Answer::Closed),
        at(
            Stage::Started,
            "tune-ok before start-ok",
            &method(0, &[0, 10, 0, 31, 0, 0, 0, 0, 0, 0, 0, 0]),
            Answer::Closed,
        ),
        at(Stage::Started, "a publish before the login", &publish_to("", "q", false, b"x"), Answer::Closed),
    ]
}

fn after_the_login() -> Vec<Mistake> {
    let at = |stage, name, bytes: &[u8], expected| mistake(stage, name, method(0, bytes), expected);
    vec![
        at(Stage::LoggedIn, "open before tune-ok", b"\0\x0a\0\x28\x01/\0\0", Answer::Closed),
        at(Stage::LoggedIn, "a tiny frame_max", &[0, 10, 0, 31, 0, 10, 0, 0, 0, 100, 0, 0], Answer::Closed),
        at(Stage::LoggedIn, "too large a frame_max", &[0, 10, 0, 31, 0, 10, 0x7F, 0, 0, 0, 0, 0], Answer::Closed),
        at(Stage::LoggedIn, "too many channels", &[0, 10, 0, 31, 0xFF, 0xFF, 0, 2, 0, 0, 0, 0], Answer::Closed),
        at(Stage::Tuned, "an unknown vhost", b"\0\x0a\0\x28\x05wrong\0\0", Answer::Connection(530)),
        at(Stage::Open, "open again", b"\0\x0a\0\x28\x01/\0\0", Answer::Connection(504)),
        at(Stage::Open, "a method of a channel on channel 0", &[0, 20, 0, 10, 0], Answer::Connection(504)),
    ]
}

fn frames() -> Vec<Mistake> {
    let at = |name, bytes: Vec<u8>, code| mistake(Stage::Channel, name, bytes, Answer::Connection(code));
    vec![
        at("an unknown kind of frame", frame(7, 1, b"abc"), 501),
        at("frame kind 0", frame(0, 0, b""), 501),
        at("a wrong frame end", b"\x01\0\x01\0\0\0\x04\0\x14\0\x14\0".to_vec(), 501),
        at("a frame that is too large", b"\x01\0\x01\x7F\xFF\xFF\xFF".to_vec(), 501),
        at("a heartbeat on a channel", frame(8, 1, b""), 505),
        at("a method on a closed channel", method(5, &[0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0]), 504),
        at("a body on a closed channel", frame(3, 5, b"x"), 505),
        at("a body on channel 0", frame(3, 0, b"x"), 505),
        // As RabbitMQ, without a word.
        mistake(Stage::Channel, "an unknown class", method(1, &[3, 232, 0, 10]), Answer::Closed),
        mistake(Stage::Channel, "an unknown method", method(1, &[0, 60, 0, 250]), Answer::Closed),
        at("half of the ids", method(1, &[0, 60]), 501),
        at("no arguments", method(1, &[0, 50, 0, 10]), 501),
        at("a method that only brokers send", method(1, b"\0\x3c\0\x3c\x01t\0\0\0\0\0\0\0\x01\0\0\x01q"), 503),
        at("a start on a channel", method(1, &[b"\0\x0a\0\x0a\0\x09", &deep(18_000)[..], &[0; 8]].concat()), 503),
        at("deep arguments", method(1, &[b"\0\x32\0\x0a\0\0\x01q\0", &deep(18_000)[..]].concat()), 501),
        at("deep arguments of consume", method(1, &[b"\0\x3c\0\x14\0\0\x01q\x01t\0", &deep(18_000)[..]].concat()), 501),
        at("a table longer than its frame", method(1, b"\0\x32\0\x0a\0\0\x01q\0\xFF\xFF\xFF\xFF"), 501),
        at("a name longer than its frame", method(1, b"\0\x32\0\x0a\0\0\xFFq\0\0\0\0\0"), 501),
        at("a channel opened twice", method(1, &[0, 20, 0, 10, 0]), 504),
    ]
}

fn contents() -> Vec<Mistake> {
    let publish = method(1, b"\0\x3c\0\x28\0\0\0\x01q\0");
    let header = |rest: &[u8]| frame(2, 1, &[b"\0\x3c\0\0", rest].concat());
    let size = |size: u64| size.to_be_bytes();
    let at = |name, frames: &[&[u8]], expected| mistake(Stage::Channel, name, frames.concat(), expected);
    let plain = header(&[&size(3)[..], b"\0\0"].concat());
    vec![
        at("a header without a publish", &[&plain], Answer::Connection(505)),
        at("a body without a publish", &[&frame(3, 1, b"x")], Answer::Connection(505)),
        at("a body without a header", &[&publish, &frame(3, 1, b"x")], Answer::Connection(505)),
        at("a publish within a publish", &[&publish, &publish], Answer::Connection(505)),
        at("a publish within a content", &[&publish, &plain, &publish], Answer::Connection(505)),
        at("two headers", &[&publish, &plain, &plain], Answer::Connection(505)),
        at(
            "a header of another class",
            &[&publish, &frame(2, 1, &[0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0])],
            Answer::Connection(505),
        ),
        at("a header that is cut off", &[&publish, &frame(2, 1, &[0, 60, 0])], Answer::Connection(501)),
        at(
            "properties that are cut off",
            &[&publish, &header(&[&size(3)[..], b"\x80\0\x09a"].concat())],
            Answer::Connection(541),
        ),
        at(
            "deep headers",
            &[&publish, &header(&[&size(0)[..], b"\x20\0", &deep(18_000)[..]].concat())],
            Answer::Connection(541),
        ),
        at(
            "a message of 2^62 bytes",
            &[&publish, &header(&[&size(1 << 62)[..], b"\0\0"].concat())],
            Answer::Channel(406),
        ),
        at(
            "an expiration that is no number",
            &[&publish, &header(&[&size(0)[..], b"\x01\0\x03abc"].concat())],
            Answer::Channel(406),
        ),
        at(
            "another one's user_id",
            &[&publish, &header(&[&size(0)[..], b"\0\x10\x05alice"].concat())],
            Answer::Channel(406),
        ),
        at(
            "direct reply-to without a consumer",
            &[&publish, &header(&[&size(0)[..], b"\x02\0\x15amq.rabbitmq.reply-to"].concat())],
            Answer::Channel(406),
        ),
        at(
            "immediate",
            &[&method(1, b"\0\x3c\0\x28\0\0\0\x01q\x02"), &header(&[&size(0)[..], b"\0\0"].concat())],
            Answer::Connection(540),
        ),
        at("a missing exchange", &[&publish_to("missing", "", false, b"x")], Answer::Channel(404)),
        at("an internal exchange", &[&publish_to("amq.rabbitmq.trace", "", false, b"x")], Answer::Channel(403)),
        at(
            "an exchange that is not UTF-8",
            &[&method(1, b"\0\x3c\0\x28\0\0\x02\xFF\xFE\x01q\0"), &header(&[&size(0)[..], b"\0\0"].concat())],
            Answer::Channel(404),
        ),
        at(
            "a body that never ends",
            &[&publish, &header(&[&size(1_000_000)[..], b"\0\0"].concat()), &frame(3, 1, b"x")],
            Answer::Lives,
        ),
    ]
}

fn methods() -> Vec<Mistake> {
    let at = |name, frames: &[&[u8]], expected| {
        let frames: Vec<_> = frames.iter().map(|payload| method(1, payload)).collect();
        mistake(Stage::Channel, name, frames.concat(), expected)
    };
    let tag = [0, 0, 0, 0, 0, 0, 0, 9, 0];
    let settle = |method| [&[0, 60, 0, method][..], &tag].concat();
    vec![
        at("an ack of nothing", &[&settle(80)], Answer::Channel(406)),
        at("a reject of nothing", &[&settle(90)], Answer::Channel(406)),
        at("a nack of nothing", &[&settle(120)], Answer::Channel(406)),
        at("a missing queue", &[b"\0\x3c\0\x14\0\0\x07missing\x01t\0\0\0\0\0"], Answer::Channel(404)),
        at(
            "a bind to a missing queue",
            &[b"\0\x32\0\x14\0\0\x07missing\x09amq.topic\x01#\0\0\0\0\0"],
            Answer::Channel(404),
        ),
        at("a reserved name", &[b"\0\x32\0\x0a\0\0\x05amq.q\0\0\0\0\0"], Answer::Channel(403)),
        at("an unknown type of exchange", &[b"\0\x28\0\x0a\0\0\x01e\x05magic\0\0\0\0\0"], Answer::Connection(503)),
        at("the default exchange is deleted", &[b"\0\x28\0\x14\0\0\0\0"], Answer::Channel(403)),
        at(
            "an argument that makes no sense",
            &[b"\0\x32\0\x0a\0\0\x03bad\0\0\0\0\x0f\x0ax-max-lengtt\x01t\x01"],
            Answer::Connection(501),
        ),
        at("a prefetch in bytes", &[&[0, 60, 0, 10, 0, 0, 0, 1, 0, 0, 0]], Answer::Connection(540)),
        at("flow off", &[&[0, 20, 0, 20, 0]], Answer::Connection(540)),
        at("a commit without a transaction", &[&[0, 90, 0, 20]], Answer::Channel(406)),
        at("confirms in a transaction", &[&[0, 90, 0, 10], &[0, 85, 0, 10, 0]], Answer::Channel(406)),
        at("recover without requeue", &[&[0, 60, 0, 110, 0]], Answer::Connection(540)),
        at("a close-ok without a close", &[&[0, 20, 0, 41]], Answer::Connection(503)),
    ]
}

/// A table that is nested so deeply.
fn deep(levels: usize) -> Vec<u8> {
    let mut table = Vec::with_capacity(levels * 7 + 4);
    for level in (0..levels).rev() {
        table.extend(((level * 7 + 7) as u32).to_be_bytes());
        table.extend(b"\x01kF");
    }
    table.extend([0; 4]);
    table
}

//! Frames as a client writes them.

/// A method's payload, argument by argument.
pub(crate) struct Payload(Vec<u8>);

pub(crate) fn method((class_id, method_id): (u16, u16)) -> Payload {
    Payload(Vec::new()).short(class_id).short(method_id)
}

impl Payload {
    pub(crate) fn octet(mut self, octet: u8) -> Self {
        self.0.push(octet);
        self
    }

    pub(crate) fn short(mut self, short: u16) -> Self {
        self.0.extend(short.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, long: u32) -> Self {
        self.0.extend(long.to_be_bytes());
        self
    }

    pub(crate) fn longlong(mut self, longlong: u64) -> Self {
        self.0.extend(longlong.to_be_bytes());
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }

    /// A table of long strings and integers.
    pub(crate) fn table(mut self, fields: &[(&str, Argument<'_>)]) -> Self {
        let mut table = Vec::new();
        for (name, value) in fields {
            table.push(name.len() as u8);
            table.extend(name.as_bytes());
            match value {
                Argument::Text(text) => {
                    table.push(b'S');
                    table.extend((text.len() as u32).to_be_bytes());
                    table.extend(text.as_bytes());
                }
                Argument::Integer(integer) => {
                    table.push(b'l');
                    table.extend(integer.to_be_bytes());
                }
            }
        }
        self = self.long(table.len() as u32);
        self.0.extend(table);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.long(bytes.len() as u32);
        self.0.extend(bytes);
        self
    }

    pub(crate) fn frame(self, channel: u16) -> Vec<u8> {
        frame(1, channel, &self.0)
    }
}

/// The value of an argument.
pub(crate) enum Argument<'a> {
    Text(&'a str),
    Integer(i64),
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// `start-ok`, `tune-ok`, `open`, and channel 1.
pub(crate) fn handshake() -> Vec<u8> {
    let frames = [
        method((10, 11)).table(&[]).text("PLAIN").bytes(b"\0guest\0guest").text("en_US").frame(0),
        method((10, 31)).short(u16::MAX).long(131_072).short(0).frame(0),
        method((10, 40)).text("/").text("").octet(0).frame(0),
        open(1),
    ];
    frames.concat()
}

pub(crate) fn open(channel: u16) -> Vec<u8> {
    method((20, 10)).text("").frame(channel)
}

/// `queue.declare`, without an answer. Bits: passive, durable, exclusive, auto-delete, no-wait.
pub(crate) fn declare(queue: &str, bits: u8, arguments: &[(&str, Argument<'_>)]) -> Vec<u8> {
    method((50, 10)).short(0).text(queue).octet(bits | 0b1_0000).table(arguments).frame(1)
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    method((50, 20)).short(0).text(queue).text(exchange).text(key).octet(1).table(&[]).frame(1)
}

pub(crate) fn consume(channel: u16, queue: &str, tag: &str) -> Vec<u8> {
    method((60, 20)).short(0).text(queue).text(tag).octet(0b1000).table(&[]).frame(channel)
}

pub(crate) fn qos(channel: u16, prefetch_count: u16, is_global: bool) -> Vec<u8> {
    method((60, 10)).long(0).short(prefetch_count).octet(is_global.into()).frame(channel)
}

pub(crate) fn publish(exchange: &str, key: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = method((60, 40)).short(0).text(exchange).text(key).octet(0).frame(1);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0, 0]);
    bytes.extend(frame(2, 1, &header));
    body.chunks(131_000).for_each(|part| bytes.extend(frame(3, 1, part)));
    bytes
}

/// `basic.nack`, or `basic.ack` for `None`.
pub(crate) fn settle(tag: u64, multiple: bool, requeue: Option<bool>) -> Vec<u8> {
    match requeue {
        None => method((60, 80)).longlong(tag).octet(multiple.into()).frame(1),
        Some(requeue) => method((60, 120)).longlong(tag).octet(u8::from(multiple) | u8::from(requeue) << 1).frame(1),
    }
}

//! Frames as a client writes them.

use crate::{
    payload::{method, put_frame},
    wire::table::TableWriter,
};

/// The value of an argument.
pub(crate) enum Argument<'a> {
    Text(&'a str),
    Integer(i64),
}

/// The table of these arguments, with its length.
pub(crate) fn table(fields: &[(&str, Argument<'_>)]) -> Vec<u8> {
    let mut table = TableWriter::new();
    for (name, value) in fields {
        match value {
            Argument::Text(text) => table.text(name, text.as_bytes()),
            Argument::Integer(integer) => table.integer(name, *integer),
        };
    }
    table.finish()
}

/// `start-ok`, `tune-ok`, `open`, and channel 1.
pub(crate) fn handshake() -> Vec<u8> {
    let frames = [
        method((10, 11)).table(&table(&[])).text("PLAIN").long_text(b"\0guest\0guest").text("en_US").frame(0),
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
    method((50, 10)).short(0).text(queue).octet(bits | 0b1_0000).table(&table(arguments)).frame(1)
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    method((50, 20)).short(0).text(queue).text(exchange).text(key).octet(1).table(&table(&[])).frame(1)
}

pub(crate) fn consume(channel: u16, queue: &str, tag: &str) -> Vec<u8> {
    method((60, 20)).short(0).text(queue).text(tag).octet(0b1000).table(&table(&[])).frame(channel)
}

pub(crate) fn qos(channel: u16, prefetch_count: u16, is_global: bool) -> Vec<u8> {
    method((60, 10)).long(0).short(prefetch_count).octet(is_global.into()).frame(channel)
}

pub(crate) fn publish(exchange: &str, key: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = method((60, 40)).short(0).text(exchange).text(key).octet(0).frame(1);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0, 0]);
    put_frame(&mut bytes, 2, 1, &header);
    body.chunks(131_000).for_each(|part| put_frame(&mut bytes, 3, 1, part));
    bytes
}

/// `basic.nack`, or `basic.ack` for `None`.
pub(crate) fn settle(tag: u64, multiple: bool, requeue: Option<bool>) -> Vec<u8> {
    match requeue {
        None => method((60, 80)).longlong(tag).octet(multiple.into()).frame(1),
        Some(requeue) => method((60, 120)).longlong(tag).octet(u8::from(multiple) | u8::from(requeue) << 1).frame(1),
    }
}

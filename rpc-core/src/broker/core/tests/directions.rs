//! Methods that only servers send, and tables that are nested too deep, at every stage of a connection.

use crate::{
    broker::core::{
        interface::{ConnectionId, Flow, Peer},
        tests::Bench,
    },
    wire::FrameKind,
};

#[test]
fn what_only_servers_send_ends_the_clients_own_connection_at_most() {
    let mut bench = Bench::new();
    let other = bench.connect();
    for (method, depth) in [(START, 18_000), (START, 1), (DECLARE, 18_000), (CONSUME, 18_000)] {
        let payload = with_table(method, depth);
        let id = bench.connect();
        bench.frame(id, FrameKind::Method, 1, &payload);
        let expected = if method == START { "connection.close 503" } else { "connection.close 501" };
        assert_eq!(bench.received(id), [expected], "on an open channel");
        let id = bench.connect();
        bench.frame(id, FrameKind::Method, 9, &payload);
        assert_eq!(bench.received(id), ["connection.close 504"], "on a closed channel");
        let id = bench.connect();
        bench.frame(id, FrameKind::Method, 0, &payload);
        let expected = if method == START { "connection.close 504" } else { "connection.close 501" };
        assert_eq!(bench.received(id), [expected], "on channel 0");
    }
    bench.declare(other, "q", false);
    assert_eq!(bench.received(other).len(), 1, "the broker lives");
}

#[test]
fn a_deep_table_in_the_handshake_is_refused_without_a_word() {
    let stages: [fn(&mut Bench) -> Option<ConnectionId>; 2] = [
        |bench| bench.core.open(Peer::default(), Default::default(), false),
        |bench| bench.log_in(Peer::default(), "PLAIN", "\0guest\0guest"),
    ];
    for open in stages {
        for method in [START, START_OK] {
            let mut bench = Bench::new();
            let id = open(&mut bench).unwrap();
            bench.collect();
            bench.received(id);
            let flow = bench.frame(id, FrameKind::Method, 0, &with_table(method, 18_000));
            assert!(matches!(flow, Flow::ClosePaused(_)), "{flow:?}");
            assert!(bench.received(id).is_empty());
        }
    }
}

#[test]
fn a_deep_table_in_a_messages_headers_is_refused() {
    let mut bench = Bench::new();
    let id = bench.connect();
    bench.frame(id, FrameKind::Method, 1, b"\0\x3c\0\x28\0\0\0\x01q\0");
    let before = (&b"\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0"[..], &b""[..]);
    bench.frame(id, FrameKind::Header, 1, &with_table(before, 18_000));
    assert_eq!(bench.received(id), ["connection.close 541"]);
}

/// The arguments before and behind a table.
type Method = (&'static [u8], &'static [u8]);

fn with_table((before, after): Method, depth: usize) -> Vec<u8> {
    let table = (0..depth)
        .fold(vec![0; 4], |table, _| [&((table.len() + 3) as u32).to_be_bytes()[..], b"\x01kF", &table].concat());
    [before, &table, after].concat()
}

const START: Method = (b"\0\x0a\0\x0a\0\x09", b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
const START_OK: Method = (b"\0\x0a\0\x0b", b"\x05PLAIN\0\0\0\0\x05en_US");
const DECLARE: Method = (b"\0\x32\0\x0a\0\0\x01q\0", b"");
const CONSUME: Method = (b"\0\x3c\0\x14\0\0\x01q\0\0", b"");

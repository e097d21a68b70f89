//! What the bundled broker does to clients that are slow, silent, hostile or many. Byte by byte: no library would.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rpc_core::broker::Broker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off() {
    let broker = Broker::builder().handshake_timeout(Duration::from_millis(200)).start().await.unwrap();
    for sent in [&b""[..], b"AMQP", PROTOCOL_HEADER] {
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let started = Instant::now();
        read_to_end(&mut stream).await;
        assert!(started.elapsed() < Duration::from_secs(3), "{sent:?}");
    }
}

#[tokio::test]
async fn a_wrong_protocol_header_is_answered_with_the_right_one() {
    let broker = Broker::start().await.unwrap();
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, PROTOCOL_HEADER);
}

#[tokio::test]
async fn a_silent_client_is_dropped_after_two_heartbeats_and_a_lively_one_is_not() {
    let broker = Broker::builder().heartbeat(Duration::from_secs(1)).start().await.unwrap();
    let mut silent = open(&broker, 1).await;
    let mut lively = open(&broker, 1).await;
    let started = Instant::now();
    let keep_alive = async {
        loop {
            lively.write_all(&[8, 0, 0, 0, 0, 0, 0, 0xCE]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let received = tokio::select! {
        received = read_to_end(&mut silent) => received,
        () = keep_alive => unreachable!(),
    };
    assert!((Duration::from_millis(1_500)..Duration::from_secs(4)).contains(&started.elapsed()));
    assert!(received.starts_with(&[8, 0, 0]), "it was sent heartbeats meanwhile");
    lively.write_all(&[8, 0, 0, 0, 0, 0, 0, 0xCE]).await.unwrap();
}

#[tokio::test]
async fn a_fault_is_read_even_over_input_nobody_read() {
    let broker = Broker::start().await.unwrap();
    let mut stream = open(&broker, 0).await;
    // A frame larger than allowed, and a megabyte behind it.
    let mut bytes = vec![3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF];
    bytes.resize(1 << 20, 0);
    stream.write_all(&bytes).await.unwrap();
    let received = read_to_end(&mut stream).await;
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4294967295,131064}"), "{text}");
}

#[tokio::test]
async fn a_table_nested_without_end_is_refused() {
    let broker = Broker::start().await.unwrap();
    let mut stream = open(&broker, 0).await;
    let mut table = vec![0; 4];
    for _ in 0..18_000 {
        let mut outer = ((table.len() + 3) as u32).to_be_bytes().to_vec();
        outer.extend([1, b'k', b'F']);
        outer.append(&mut table);
        table = outer;
    }
    stream.write_all(&method(1, &[0, 20, 0, 10, 0])).await.unwrap();
    let mut declare = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    declare.extend(table);
    stream.write_all(&method(1, &declare)).await.unwrap();
    let received = read_to_end(&mut stream).await;
    assert!(String::from_utf8_lossy(&received).contains("FRAME_ERROR - cannot decode"));
    open(&broker, 0).await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_stops_nobody_and_gets_everything_later() {
    const MESSAGES: usize = 400;
    const BODY: usize = 100_000;
    let broker = Broker::start().await.unwrap();
    let mut consumer = open(&broker, 0).await;
    consumer.write_all(&method(1, &[0, 20, 0, 10, 0])).await.unwrap();
    consumer.write_all(&method(1, &[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 0])).await.unwrap();
    // basic.consume with no_ack: no window bounds it.
    consumer.write_all(&method(1, &[0, 60, 0, 20, 0, 0, 1, b'q', 1, b't', 0b10, 0, 0, 0, 0])).await.unwrap();
    let mut publisher = open(&broker, 0).await;
    publisher.write_all(&method(1, &[0, 20, 0, 10, 0])).await.unwrap();
    let body = vec![b'x'; BODY];
    for _ in 0..MESSAGES {
        publisher.write_all(&method(1, &[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0])).await.unwrap();
        let mut header = vec![0, 60, 0, 0];
        header.extend((BODY as u64).to_be_bytes());
        header.extend([0, 0]);
        publisher.write_all(&frame(2, 1, &header)).await.unwrap();
        publisher.write_all(&frame(3, 1, &body)).await.unwrap();
    }
    // What was not handed to the slow socket still lies in the queue, where others can count it.
    publisher.write_all(&method(1, &[0, 50, 0, 10, 0, 0, 1, b'q', 1, 0, 0, 0, 0])).await.unwrap();
    let declare_ok = timeout(LIMIT, read_method(&mut publisher, [0, 50, 0, 11])).await.unwrap();
    let ready = u32::from_be_bytes(declare_ok[2..6].try_into().unwrap());
    assert!(ready as usize > MESSAGES / 4, "{ready} of {MESSAGES} are still in the queue");
    let mut seen = 0;
    while seen < MESSAGES {
        let (kind, payload) = timeout(LIMIT, read_frame(&mut consumer)).await.unwrap();
        seen += usize::from(kind == 3 && payload.len() == BODY);
    }
}

#[tokio::test]
async fn thousands_of_connections_come_and_go() {
    const CONNECTIONS: usize = 10_000;
    let broker = Broker::start().await.unwrap();
    for round in 0..CONNECTIONS / 100 {
        let mut streams = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(broker.address()).await.unwrap();
            stream.write_all(PROTOCOL_HEADER).await.unwrap();
            streams.push(stream);
        }
        // Half of them say goodbye in the middle of a sentence.
        for stream in streams.iter_mut().skip(50) {
            let (_, start) = timeout(LIMIT, read_frame(stream)).await.unwrap();
            assert_eq!(start[..4], [0, 10, 0, 10], "round {round}");
        }
    }
    open(&broker, 0).await;
}

/// A connection past the handshake.
async fn open(broker: &Broker, heartbeat_s: u8) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(PROTOCOL_HEADER).await.unwrap();
    read_method(&mut stream, [0, 10, 0, 10]).await;
    let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
    start_ok.extend(b"PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US");
    stream.write_all(&method(0, &start_ok)).await.unwrap();
    read_method(&mut stream, [0, 10, 0, 30]).await;
    let tune_ok = [0, 10, 0, 31, 0x07, 0xFF, 0, 2, 0, 0, 0, heartbeat_s];
    stream.write_all(&method(0, &tune_ok)).await.unwrap();
    stream.write_all(&method(0, &[0, 10, 0, 40, 1, b'/', 0, 0])).await.unwrap();
    read_method(&mut stream, [0, 10, 0, 41]).await;
    stream
}

fn method(channel: u8, payload: &[u8]) -> Vec<u8> {
    frame(1, channel, payload)
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, channel];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

/// The arguments of the next method with these ids.
async fn read_method(stream: &mut TcpStream, ids: [u8; 4]) -> Vec<u8> {
    loop {
        let (kind, payload) = read_frame(stream).await;
        if kind == 1 && payload.starts_with(&ids) {
            return payload[4..].to_vec();
        }
    }
}

async fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.unwrap();
    let length = u32::from_be_bytes(header[3..].try_into().unwrap()) as usize;
    let mut rest = vec![0; length + 1];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest.pop(), Some(0xCE));
    (header[0], rest)
}

/// What comes until the broker closes the socket.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut received)).await.unwrap().unwrap();
    received
}

const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(20);

//! Clients that write raw bytes.

use std::time::Duration;

use rpc_core::broker::Broker;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A connection past the handshake.
pub(crate) async fn open(broker: &Broker, heartbeat_s: u8) -> TcpStream {
    open_with(broker, heartbeat_s, &[0; 4]).await
}

/// The same, of a client that supports `connection.blocked`.
pub(crate) async fn open_blockable(broker: &Broker) -> TcpStream {
    let properties = b"\x00\x00\x00\x27\x0ccapabilitiesF\x00\x00\x00\x15\x12connection.blockedt\x01";
    open_with(broker, 0, properties).await
}

async fn open_with(broker: &Broker, heartbeat_s: u8, properties: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    // Otherwise a write that follows another one waits 40 ms for the delayed ACK.
    stream.set_nodelay(true).unwrap();
    stream.write_all(PROTOCOL_HEADER).await.unwrap();
    until(&mut stream, [0, 10, 0, 10]).await;
    let mut start_ok = vec![0, 10, 0, 11];
    start_ok.extend(properties);
    start_ok.extend(b"\x05PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US");
    stream.write_all(&method(0, &start_ok)).await.unwrap();
    until(&mut stream, [0, 10, 0, 30]).await;
    let tune_ok = [0, 10, 0, 31, 0x07, 0xFF, 0, 2, 0, 0, 0, heartbeat_s];
    stream.write_all(&method(0, &tune_ok)).await.unwrap();
    stream.write_all(&method(0, &[0, 10, 0, 40, 1, b'/', 0, 0])).await.unwrap();
    until(&mut stream, [0, 10, 0, 41]).await;
    stream
}

pub(crate) fn method(channel: u8, payload: &[u8]) -> Vec<u8> {
    frame(1, channel, payload)
}

pub(crate) fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, channel];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

/// `channel.open` of channel 1.
pub(crate) fn channel_open() -> Vec<u8> {
    method(1, &[0, 20, 0, 10, 0])
}

/// `queue.declare` of `q`; passive if `q` must exist.
pub(crate) fn declare_q(is_passive: bool) -> Vec<u8> {
    method(1, &[0, 50, 0, 10, 0, 0, 1, b'q', is_passive.into(), 0, 0, 0, 0])
}

/// `basic.consume` from `q` as `t`, with no_ack, so that no prefetch limit applies.
pub(crate) fn consume_q() -> Vec<u8> {
    method(1, &[0, 60, 0, 20, 0, 0, 1, b'q', 1, b't', 0b10, 0, 0, 0, 0])
}

/// A message for a queue; `mandatory` for a queue that does not exist.
pub(crate) fn publish(queue: &str, is_mandatory: bool, body: &[u8]) -> Vec<u8> {
    publish_to("", queue, is_mandatory, body)
}

pub(crate) fn publish_to(exchange: &str, routing_key: &str, is_mandatory: bool, body: &[u8]) -> Vec<u8> {
    let mut publish = vec![0, 60, 0, 40, 0, 0];
    for name in [exchange, routing_key] {
        publish.push(name.len() as u8);
        publish.extend(name.as_bytes());
    }
    publish.push(is_mandatory.into());
    let mut bytes = method(1, &publish);
    bytes.extend(content(&[0, 0], body));
    bytes
}

/// A message for a queue, with a table of headers.
pub(crate) fn publish_with(queue: &str, headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut publish = vec![0, 60, 0, 40, 0, 0, 0, queue.len() as u8];
    publish.extend(queue.as_bytes());
    publish.push(0);
    let mut bytes = method(1, &publish);
    bytes.extend(content(&[&[0x20, 0], headers].concat(), body));
    bytes
}

/// A content header with these flags and properties, and one frame of body.
fn content(properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(properties);
    let mut bytes = frame(2, 1, &header);
    bytes.extend(frame(3, 1, body));
    bytes
}

/// The number of ready messages in `q`.
pub(crate) async fn ready(stream: &mut TcpStream) -> usize {
    stream.write_all(&declare_q(true)).await.unwrap();
    let declare_ok = timeout(LIMIT, until(stream, DECLARE_OK)).await.unwrap();
    u32::from_be_bytes(declare_ok[2..6].try_into().unwrap()) as usize
}

/// The arguments of the next method with these ids. Frames before it are dropped.
pub(crate) async fn until<R: AsyncRead + Unpin>(stream: &mut R, ids: [u8; 4]) -> Vec<u8> {
    loop {
        let (kind, payload) = read_frame(stream).await;
        if kind == 1 && payload.starts_with(&ids) {
            return payload[4..].to_vec();
        }
    }
}

pub(crate) async fn read_frame<R: AsyncRead + Unpin>(stream: &mut R) -> (u8, Vec<u8>) {
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.unwrap();
    let length = u32::from_be_bytes(header[3..].try_into().unwrap()) as usize;
    let mut rest = vec![0; length + 1];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest.pop(), Some(0xCE));
    (header[0], rest)
}

/// All bytes until the broker closes the socket.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut received)).await.unwrap().unwrap();
    received
}

pub(crate) const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Longer than any of these tests takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const DECLARE_OK: [u8; 4] = [0, 50, 0, 11];

//! A channel that waits for the end of a long method, beside the others of its connection.

use std::time::Duration;

use rpc_core::broker::Broker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::socket::{DECLARE_OK, LIMIT, channel_open, declare_q, method, open, publish_to, ready, until};

/// A client with channels 1 and 2, the first in confirm mode, and patterns for which a search takes long.
async fn publisher(broker: &Broker) -> TcpStream {
    let mut stream = open(broker, 0).await;
    let mut bytes = [channel_open(), method(2, &[0, 20, 0, 10, 0]), method(1, &[0, 85, 0, 10, 0])].concat();
    bytes.extend(declare_q(false));
    for pattern in 0..3_usize.pow(6) {
        let words = (0..6).map(|place| ["#", "*", "a"][pattern / 3_usize.pow(place) % 3]).collect::<Vec<_>>().join(".");
        let bind = [b"\0\x32\0\x14\0\0\x01q\x09amq.topic\x0b", words.as_bytes(), &[1, 0, 0, 0, 0]].concat();
        bytes.extend(method(1, &bind));
    }
    stream.write_all(&[bytes, declare_q(true)].concat()).await.unwrap();
    for _ in 0..2 {
        timeout(LIMIT, until(&mut stream, DECLARE_OK)).await.unwrap();
    }
    stream
}

/// The search for its queues pauses some ten times.
fn slow_message() -> Vec<u8> {
    publish_to("amq.topic", &["a"; 127].join("."), false, b"x")
}

/// The channel of the next frame, and the ids of its method.
async fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 7];
    timeout(LIMIT, stream.read_exact(&mut header)).await.unwrap().unwrap();
    let mut rest = vec![0; u32::from_be_bytes(header[3..].try_into().unwrap()) as usize + 1];
    stream.read_exact(&mut rest).await.unwrap();
    rest.truncate(4);
    (header[2], rest)
}

#[tokio::test]
async fn another_channel_is_answered_while_a_message_is_being_routed() {
    let broker = Broker::start().await.unwrap();
    let mut stream = publisher(&broker).await;
    let declare_on_2 = method(2, &declare_q(true)[7..20]);
    stream.write_all(&[slow_message(), declare_q(true), declare_on_2].concat()).await.unwrap();
    assert_eq!(next(&mut stream).await, (2, DECLARE_OK.to_vec()));
    let mut on_1 = [next(&mut stream).await, next(&mut stream).await];
    on_1.sort_unstable();
    assert_eq!(on_1, [(1, DECLARE_OK.to_vec()), (1, vec![0, 60, 0, 80])]);
    assert_eq!(ready(&mut stream).await, 1);
}

#[tokio::test]
async fn a_message_that_is_being_routed_arrives_although_its_connection_ends() {
    let broker = Broker::start().await.unwrap();
    let mut other = open(&broker, 0).await;
    other.write_all(&[channel_open(), declare_q(false)].concat()).await.unwrap();
    timeout(LIMIT, until(&mut other, DECLARE_OK)).await.unwrap();
    let mut closing = publisher(&broker).await;
    let close = method(0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]);
    closing.write_all(&[slow_message().repeat(2), close].concat()).await.unwrap();
    timeout(LIMIT, until(&mut closing, [0, 10, 0, 51])).await.unwrap();
    assert_eq!(ready(&mut other).await, 2, "it is answered when all is done");
    let mut dying = publisher(&broker).await;
    dying.write_all(&slow_message()).await.unwrap();
    drop(dying);
    let arrived = async {
        while ready(&mut other).await < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, arrived).await.unwrap();
}

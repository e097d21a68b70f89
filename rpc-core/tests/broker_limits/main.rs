//! How the bundled broker treats clients that are slow, silent, hostile or many. The tests write bytes, because no library
//! misbehaves like that.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

mod hostile;
mod many;
mod memory;
mod overdue;
mod slow;
mod socket;
mod stopping;
mod tables;
mod waiting;

use std::time::{Duration, Instant};

use rpc_core::broker::Broker;
use socket::{PROTOCOL_HEADER, open, read_frame, read_to_end};
use tokio::{io::AsyncWriteExt, net::TcpStream};

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

/// As in RabbitMQ, because some clients give up after one interval of silence.
#[tokio::test]
async fn a_heartbeat_comes_twice_an_interval() {
    let broker = Broker::start().await.unwrap();
    let mut stream = open(&broker, 4).await;
    assert_eq!(read_frame(&mut stream).await.0, 8);
    let first = Instant::now();
    assert_eq!(read_frame(&mut stream).await.0, 8);
    let between = first.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&between), "{between:?}");
}

#[tokio::test]
async fn a_client_receives_a_close_despite_its_unread_input() {
    let broker = Broker::start().await.unwrap();
    let mut stream = open(&broker, 0).await;
    // A frame that is too large, followed by a megabyte.
    let mut bytes = vec![3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF];
    bytes.resize(1 << 20, 0);
    stream.write_all(&bytes).await.unwrap();
    let received = read_to_end(&mut stream).await;
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4294967295,131064}"), "{text}");
}

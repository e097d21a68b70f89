//! Clients that keep the broker busy, beside others that need little of it. They load the machine, so they are a program of
//! their own.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "a part of it is needed")]
#[path = "broker_limits/socket.rs"]
mod socket;

use std::time::{Duration, Instant};

use rpc_core::broker::Broker;
use tokio::{io::AsyncWriteExt, runtime::Builder, task::JoinSet, time::timeout};

use self::socket::{DECLARE_OK, LIMIT, channel_open, declare_q, method, open, publish, publish_to, ready, until};

/// Twice as many as the target, because the machine that runs tests may be slow.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// Publishers that never stop, and the longest times of a handshake and of a small call beside them.
async fn beside(publishers: usize, set_up: Vec<u8>, message: Vec<u8>) -> (Duration, Duration) {
    // The broker has two threads of its own, so that the clients do not stand in its queue.
    let running = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let broker = running.spawn(Broker::start()).await.unwrap().unwrap();
    let mut small = open(&broker, 0).await;
    small.write_all(&[channel_open(), set_up, declare_q(false)].concat()).await.unwrap();
    timeout(LIMIT, until(&mut small, DECLARE_OK)).await.unwrap();
    let mut busy = JoinSet::new();
    for _ in 0..publishers {
        let mut stream = open(&broker, 0).await;
        let many = message.repeat(50);
        busy.spawn(async move {
            stream.write_all(&[channel_open(), publish("q", false, b"here")].concat()).await.unwrap();
            loop {
                stream.write_all(&many).await.unwrap();
            }
        });
    }
    while ready(&mut small).await < publishers {}
    let (mut handshake, mut call) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..5 {
        let began = Instant::now();
        drop(timeout(LIMIT, open(&broker, 0)).await.unwrap());
        handshake = handshake.max(began.elapsed());
        let began = Instant::now();
        ready(&mut small).await;
        call = call.max(began.elapsed());
    }
    busy.shutdown().await;
    drop(broker);
    running.shutdown_background();
    println!("{publishers} publishers: a handshake took at most {handshake:?}, a small call {call:?}");
    (handshake, call)
}

/// `queue.declare` of a queue that keeps one message, and its binding to a fanout exchange, both without an answer.
fn declare_bound(name: &str) -> Vec<u8> {
    let arguments = b"\0\0\0\x16\x0cx-max-lengthl\0\0\0\0\0\0\0\x01";
    let declare = [&[0, 50, 0, 10, 0, 0, 4][..], name.as_bytes(), &[0b1_0000], arguments].concat();
    let bind = [&[0, 50, 0, 20, 0, 0, 4][..], name.as_bytes(), b"\x0aamq.fanout\0\x01\0\0\0\0"].concat();
    [method(1, &declare), method(1, &bind)].concat()
}

#[tokio::test]
async fn a_handshake_passes_a_hundred_publishers_to_more_than_a_thousand_queues() {
    let set_up = (0..1_500).flat_map(|queue| declare_bound(&format!("{queue:04}"))).collect();
    let (handshake, call) = beside(100, set_up, publish_to("amq.fanout", "", false, b"x")).await;
    assert!(handshake < HANDSHAKE_MAX && call < HANDSHAKE_MAX / 2, "{handshake:?}, {call:?}");
}

#[tokio::test]
async fn a_handshake_passes_hundreds_of_publishers_to_one_queue() {
    let (handshake, call) = beside(400, declare_bound("0000"), publish("0000", false, b"x")).await;
    assert!(handshake < HANDSHAKE_MAX && call < HANDSHAKE_MAX / 2, "{handshake:?}, {call:?}");
}

//! Clients that do not read.

use std::time::{Duration, Instant};

use rpc_core::broker::Broker;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::socket::{
    DECLARE_OK, LIMIT, channel_open, consume_q, declare_q, method, open, publish, publish_to, read_frame, ready, until,
};

#[tokio::test]
async fn a_consumer_that_does_not_read_delays_no_other_client_and_receives_all_messages_later() {
    const MESSAGES: usize = 400;
    const BODY: usize = 100_000;
    let broker = Broker::start().await.unwrap();
    let mut consumer = open(&broker, 0).await;
    consumer.write_all(&[channel_open(), declare_q(false), consume_q()].concat()).await.unwrap();
    let mut publisher = open(&broker, 0).await;
    publisher.write_all(&channel_open()).await.unwrap();
    let body = vec![b'x'; BODY];
    for _ in 0..MESSAGES {
        publisher.write_all(&publish("q", false, &body)).await.unwrap();
    }
    // The messages that are not in the outbox of the slow client are still in the queue.
    let ready = ready(&mut publisher).await;
    assert!(ready > MESSAGES / 4, "{ready} of {MESSAGES} are still in the queue");
    let mut seen = 0;
    while seen < MESSAGES {
        let (kind, payload) = timeout(LIMIT, read_frame(&mut consumer)).await.unwrap();
        seen += usize::from(kind == 3 && payload.len() == BODY);
    }
}

/// The answers to the client fill its outbox. Then the broker stops reading from it, and its requests stay in its buffers.
async fn is_not_read(bytes_of_one: &[u8], bound: usize) {
    // Handshakes take long on a busy machine.
    let builder = Broker::builder().outbox_max_bytes(64 << 10).handshake_timeout(Duration::from_secs(60));
    let broker = builder.start().await.unwrap();
    let mut client = open(&broker, 0).await;
    client.write_all(&[channel_open(), declare_q(false)].concat()).await.unwrap();
    let many = bytes_of_one.repeat((1 << 20) / bytes_of_one.len());
    let mut sent = 0;
    // The kernel buffers some megabytes at both ends of each direction.
    while let Ok(written) = timeout(Duration::from_millis(500), client.write(&many[sent % many.len()..])).await {
        sent += written.unwrap();
        assert!(sent < bound, "{sent} bytes were read from a client that reads nothing");
    }
    // Other clients are unaffected.
    let mut other = open(&broker, 0).await;
    other.write_all(&channel_open()).await.unwrap();
    assert_eq!(ready(&mut other).await, 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_answers_is_not_read() {
    is_not_read(&declare_q(true), 64 << 20).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_returns_is_not_read() {
    is_not_read(&publish("nowhere", true, &[b'x'; 1_000]), 64 << 20).await;
}

#[tokio::test]
async fn a_fast_consumer_goes_on_beside_one_that_does_not_read() {
    const MESSAGES: usize = 2_000;
    let broker = Broker::builder().outbox_max_bytes(64 << 10).start().await.unwrap();
    let mut slow = open(&broker, 0).await;
    slow.write_all(&[channel_open(), declare_q(false), consume_q()].concat()).await.unwrap();
    timeout(LIMIT, until(&mut slow, CONSUME_OK)).await.unwrap();
    let mut fast = open(&broker, 0).await;
    fast.write_all(&[channel_open(), consume_q()].concat()).await.unwrap();
    timeout(LIMIT, until(&mut fast, CONSUME_OK)).await.unwrap();
    let mut publisher = open(&broker, 0).await;
    publisher.write_all(&channel_open()).await.unwrap();
    let body = [b'x'; 20_000];
    let publishing = async {
        for _ in 0..MESSAGES {
            publisher.write_all(&publish("q", false, &body)).await.unwrap();
        }
        until_empty(&mut publisher).await
    };
    let received = std::cell::Cell::new(0);
    let reading = async {
        loop {
            let (kind, _) = read_frame(&mut fast).await;
            received.set(received.get() + usize::from(kind == 3));
        }
    };
    tokio::select! {
        emptied = timeout(LIMIT, publishing) => emptied.unwrap(),
        () = reading => unreachable!(),
    }
    // The slow one has only the messages in its outbox and in the buffers of the kernel.
    assert!(received.get() > MESSAGES / 2, "the fast one got {} of {MESSAGES}", received.get());
}

/// Waits until `q` is empty.
async fn until_empty(stream: &mut TcpStream) {
    while ready(stream).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const CONSUME_OK: [u8; 4] = [0, 60, 0, 21];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_to_thousands_of_queues_lets_others_go_on() {
    const QUEUES: usize = 5_000;
    let broker = Broker::start().await.unwrap();
    let mut publisher = open(&broker, 0).await;
    let mut declares = channel_open();
    for queue in 0..QUEUES {
        let name = format!("{queue:04}");
        // Both with nowait.
        let declare = [&[0, 50, 0, 10, 0, 0, 4][..], name.as_bytes(), &[0b1_0000, 0, 0, 0, 0]].concat();
        let bind = [&[0, 50, 0, 20, 0, 0, 4][..], name.as_bytes(), b"\x0aamq.fanout\0\x01\0\0\0\0"].concat();
        declares.extend([method(1, &declare), method(1, &bind)].concat());
    }
    publisher.write_all(&[declares, declare_q(false)].concat()).await.unwrap();
    timeout(LIMIT, until(&mut publisher, DECLARE_OK)).await.unwrap();
    let mut other = open(&broker, 0).await;
    other.write_all(&channel_open()).await.unwrap();
    let one = publish_to("amq.fanout", "", false, b"x");
    publisher.write_all(&[one.repeat(200), declare_q(true)].concat()).await.unwrap();
    let mut worst = Duration::ZERO;
    let done = async {
        until(&mut publisher, DECLARE_OK).await;
    };
    let asking = async {
        loop {
            let asked = Instant::now();
            ready(&mut other).await;
            worst = worst.max(asked.elapsed());
        }
    };
    let started = Instant::now();
    tokio::select! {
        done = timeout(3 * LIMIT, done) => done.unwrap(),
        () = asking => unreachable!(),
    }
    let whole = started.elapsed();
    // The publishes are one batch. Without a pause, an answer would wait for all of them.
    assert!(worst < whole / 4, "an answer took {worst:?} of {whole:?}");
    println!("an answer took at most {worst:?} of {whole:?}");
}

//! Deliveries that are not acknowledged in time.

use std::time::Duration;

use rpc_core::broker::{Broker, BrokerBuilder};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{advance, pause, resume, timeout},
};

use crate::socket::{DECLARE_OK, LIMIT, channel_open, declare_q, method, open, publish, ready, until};

/// A client that has received a message and does not acknowledge it.
async fn holder(builder: BrokerBuilder) -> (Broker, TcpStream) {
    let broker = builder.heartbeat(Duration::ZERO).start().await.unwrap();
    let mut stream = open(&broker, 0).await;
    let get = method(1, &[0, 60, 0, 70, 0, 0, 1, b'q', 0]);
    let bytes = [channel_open(), declare_q(false), publish("q", false, b"kept"), get].concat();
    stream.write_all(&bytes).await.unwrap();
    timeout(LIMIT, until(&mut stream, DECLARE_OK)).await.unwrap();
    timeout(LIMIT, until(&mut stream, [0, 60, 0, 71])).await.unwrap();
    (broker, stream)
}

/// The ready and the unacknowledged messages of `q`.
fn state_of(broker: &Broker) -> Option<(usize, usize)> {
    broker.queue("q").map(|queue| (queue.ready, queue.unacked))
}

#[tokio::test]
async fn a_delivery_that_is_not_acknowledged_in_half_an_hour_closes_its_channel() {
    let (broker, mut stream) = holder(Broker::builder()).await;
    pause();
    advance(Duration::from_secs(29 * 60)).await;
    tokio::task::yield_now().await;
    assert_eq!(state_of(&broker), Some((0, 1)));
    advance(Duration::from_secs(2 * 60)).await;
    resume();
    let close = timeout(LIMIT, until(&mut stream, CHANNEL_CLOSE)).await.unwrap();
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. \
                This timeout value can be configured, see consumers doc guide to learn more";
    let mut expected = [&406_u16.to_be_bytes()[..], &[text.len() as u8], text.as_bytes()].concat();
    // The class and method ids are 0.
    expected.extend([0; 4]);
    assert_eq!(close, expected);
    stream.write_all(&method(1, &[0, 20, 0, 41])).await.unwrap();
    stream.write_all(&channel_open()).await.unwrap();
    assert_eq!(ready(&mut stream).await, 1, "it is back");
}

#[tokio::test]
async fn without_the_limit_a_delivery_may_be_kept_for_ever() {
    let (broker, mut stream) = holder(Broker::builder().consumer_timeout(Duration::ZERO)).await;
    pause();
    for _ in 0..10 {
        advance(Duration::from_secs(86_400)).await;
        tokio::task::yield_now().await;
    }
    resume();
    assert_eq!(ready(&mut stream).await, 0);
    assert_eq!(state_of(&broker), Some((0, 1)));
}

const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];

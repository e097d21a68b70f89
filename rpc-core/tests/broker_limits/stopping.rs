//! Starting and stopping: no task outlives its owner.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use rpc_core::broker::Broker;
use tokio::{io::AsyncWriteExt, net::TcpListener, runtime::Handle, task::yield_now, time::timeout};

use crate::socket::{LIMIT, channel_open, consume_q, declare_q, open, publish, ready};

#[tokio::test]
async fn a_start_that_is_dropped_early_leaves_nothing_running() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    drop(Broker::builder().address(address).start());
    // Binding does not wait, so a start is complete or has not begun.
    let Poll::Ready(broker) = poll_once(pin!(Broker::builder().address(address).start())) else {
        panic!("a start waits for something: drop it there")
    };
    assert_eq!(broker.unwrap().address(), address, "the address was free");
    assert_eq!(tasks_left().await, 0);
    Broker::builder().address(address).start().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_early_ends_all_connections() {
    let broker = Broker::start().await.unwrap();
    let _client = open(&broker, 0).await;
    assert!(poll_once(pin!(broker.shutdown())).is_pending(), "the client has not answered yet");
    assert_eq!(tasks_left().await, 0);
}

#[tokio::test]
async fn a_shutdown_ends_the_connection_of_a_client_that_does_not_read() {
    const MESSAGES: usize = 400;
    let broker = Broker::builder().outbox_max_bytes(64 << 10).start().await.unwrap();
    let mut consumer = open(&broker, 0).await;
    consumer.write_all(&[channel_open(), declare_q(false), consume_q()].concat()).await.unwrap();
    let mut publisher = open(&broker, 0).await;
    publisher.write_all(&channel_open()).await.unwrap();
    for _ in 0..MESSAGES {
        publisher.write_all(&publish("q", false, &[b'x'; 100_000])).await.unwrap();
    }
    assert!(ready(&mut publisher).await > 0, "the sockets hold all messages");
    timeout(LIMIT, broker.shutdown()).await.unwrap();
    assert_eq!(tasks_left().await, 0);
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The tasks that remain after aborted ones have ended, without waiting for any timer.
async fn tasks_left() -> usize {
    for _ in 0..100 {
        yield_now().await;
    }
    Handle::current().metrics().num_alive_tasks()
}

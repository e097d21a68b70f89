//! The memory high watermark, as a raw client and as the framework see it.

use std::{pin::pin, time::Duration};

use lapin::{BasicProperties, ConnectionProperties, options::*, types::FieldTable};
use rpc_core::{CallError, Connection, ConnectionState, TimeoutStage, WorkerPool, broker::Broker, service};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::socket::{
    DECLARE_OK, LIMIT, channel_open, consume_q, declare_q, open, open_blockable, publish, read_frame, ready, until,
};

#[tokio::test]
async fn publishers_are_not_read_above_the_watermark_and_consumers_drain() {
    const MESSAGES: usize = 256;
    const BODY: usize = 32 << 10;
    const WATERMARK: usize = 1 << 20;
    let broker = Broker::builder().memory_high_watermark(WATERMARK as u64).start().await.unwrap();
    let mut publisher = open_blockable(&broker).await;
    let mut quiet = open(&broker, 0).await;
    let mut consumer = open_blockable(&broker).await;
    consumer.write_all(&[channel_open(), declare_q(false)].concat()).await.unwrap();
    timeout(LIMIT, until(&mut consumer, DECLARE_OK)).await.unwrap();
    let (mut hears, mut says) = publisher.split();
    says.write_all(&channel_open()).await.unwrap();
    let body = vec![b'x'; BODY];
    let mut publishing = pin!(async {
        for _ in 0..MESSAGES {
            says.write_all(&publish("q", false, &body)).await.unwrap();
        }
    });
    let mut is_published = false;
    let reason = {
        let mut blocked = pin!(timeout(LIMIT, until(&mut hears, BLOCKED)));
        loop {
            tokio::select! {
                reason = &mut blocked => break reason.unwrap(),
                () = &mut publishing, if !is_published => is_published = true,
            }
        }
    };
    assert_eq!(reason, b"\x0dlow on memory");
    // Without the messages that are still in the socket.
    let held = ready(&mut consumer).await;
    assert!((WATERMARK / BODY - 1..WATERMARK / BODY + 8).contains(&held), "{held} messages are in the queue");

    // A client that does not support connection.blocked is blocked, too, as soon as it publishes.
    quiet.write_all(&[channel_open(), publish("q", false, b"quiet"), declare_q(true)].concat()).await.unwrap();
    let unheard = timeout(Duration::from_millis(200), until(&mut quiet, DECLARE_OK)).await;
    assert!(unheard.is_err(), "a publisher is read while memory is short");
    assert_eq!(ready(&mut consumer).await, held);

    consumer.write_all(&consume_q()).await.unwrap();
    let drain = async {
        let mut received = 0;
        while received < MESSAGES + 1 {
            let (kind, payload) = read_frame(&mut consumer).await;
            assert!(!payload.starts_with(&BLOCKED), "a consumer is not told");
            received += usize::from(kind == 3);
        }
    };
    let everything = async {
        tokio::join!(drain, until(&mut quiet, DECLARE_OK), async {
            if !is_published {
                publishing.await;
            }
        })
    };
    timeout(LIMIT, everything).await.unwrap();
    timeout(LIMIT, until(&mut hears, UNBLOCKED)).await.unwrap();
}

#[tokio::test]
async fn the_alarm_ends_when_the_last_bytes_leave_an_outbox() {
    let broker = Broker::builder().memory_high_watermark(1 << 20).start().await.unwrap();
    let mut publisher = open_blockable(&broker).await;
    let mut consumer = open(&broker, 0).await;
    consumer.write_all(&[channel_open(), declare_q(false), consume_q()].concat()).await.unwrap();
    timeout(LIMIT, until(&mut consumer, [0, 60, 0, 21])).await.unwrap();
    // More than the buffers of the kernel take, so that the rest waits in the outbox.
    let body = vec![b'x'; 100_000];
    let (mut hears, mut says) = publisher.split();
    says.write_all(&channel_open()).await.unwrap();
    let publish_for_ever = async {
        loop {
            says.write_all(&publish("q", false, &body)).await.unwrap();
        }
    };
    let read_for_ever = async {
        loop {
            read_frame(&mut consumer).await;
        }
    };
    tokio::select! {
        () = publish_for_ever => unreachable!(),
        blocked = timeout(LIMIT, until(&mut hears, BLOCKED)) => drop(blocked.unwrap()),
    }
    tokio::select! {
        () = read_for_ever => unreachable!(),
        unblocked = timeout(LIMIT, until(&mut hears, UNBLOCKED)) => drop(unblocked.unwrap()),
    }
}

#[tokio::test]
async fn a_broker_that_stops_tells_those_it_has_blocked() {
    let broker = Broker::builder().memory_high_watermark(0).start().await.unwrap();
    let mut publisher = open_blockable(&broker).await;
    publisher.write_all(&[channel_open(), publish("q", false, b"x")].concat()).await.unwrap();
    timeout(LIMIT, until(&mut publisher, BLOCKED)).await.unwrap();
    let asked = std::time::Instant::now();
    let (close, ()) = tokio::join!(timeout(LIMIT, until(&mut publisher, [0, 10, 0, 50])), broker.shutdown());
    assert_eq!(close.unwrap()[..2], 320_u16.to_be_bytes());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[service(name = "watermark")]
trait Adder {
    async fn add(&self, a: u64, b: u64) -> u64;
}

struct Cpu;

impl Adder for Cpu {
    async fn add(&self, a: u64, b: u64) -> u64 {
        a + b
    }
}

#[tokio::test]
async fn a_call_waits_while_the_broker_is_short_of_memory_and_says_so_at_its_deadline() {
    let broker = Broker::builder().memory_high_watermark(500_000).start().await.unwrap();
    let connection = Connection::open(broker.uri()).await.unwrap();
    let _pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await.unwrap();
    let client = AdderClient::new(&connection);
    assert_eq!(client.add(1, 2).await.unwrap(), 3);
    let mut states = connection.states();

    let lapin = lapin::Connection::connect(broker.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = lapin.create_channel().await.unwrap();
    channel.queue_declare("ballast".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    for _ in 0..6 {
        channel
            .basic_publish("".into(), "ballast".into(), options, &[b'x'; 100_000], properties.clone())
            .await
            .unwrap();
    }
    // As in RabbitMQ, the first publish blocks its connection.
    client.add(1, 2).timeout(Duration::from_millis(500)).await.unwrap_err();
    let blocked = states.wait_for(|state| matches!(state, ConnectionState::Blocked { .. }));
    let reason = timeout(LIMIT, blocked).await.unwrap().unwrap().clone();
    assert!(matches!(&reason, ConnectionState::Blocked { reason } if reason == "low on memory"), "{reason:?}");
    let unsent = client.add(1, 2).timeout(Duration::from_millis(100)).await;
    assert!(matches!(unsent, Err(CallError::Timeout { stage: TimeoutStage::Blocked, .. })), "{unsent:?}");

    // A connection that has not published is not blocked.
    let other = lapin::Connection::connect(broker.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = other.create_channel().await.unwrap();
    let purged = timeout(LIMIT, channel.queue_purge("ballast".into(), QueuePurgeOptions::default())).await.unwrap();
    assert!(purged.unwrap() >= 4);
    timeout(LIMIT, states.wait_for(|state| *state == ConnectionState::Connected)).await.unwrap().unwrap();
    assert_eq!(client.add(1, 2).await.unwrap(), 3);
}

const BLOCKED: [u8; 4] = [0, 10, 0, 60];
const UNBLOCKED: [u8; 4] = [0, 10, 0, 61];

#[tokio::test]
async fn a_call_whose_declarations_are_refused_for_memory_is_overloaded() {
    let broker = Broker::builder().memory_high_watermark(0).start().await.unwrap();
    let connection = Connection::open(broker.uri()).await.unwrap();
    let error = AdderClient::new(&connection).add(1, 2).await.unwrap_err();
    assert!(matches!(&error, CallError::Overloaded { .. }) && error.is_retryable(), "{error}");
    assert!(!error.maybe_executed() && error.to_string().contains("low on memory"), "{error}");
    broker.shutdown().await;
}

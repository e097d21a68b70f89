//! The faults of the bundled broker, as the framework and lapin see them.
#![cfg(all(feature = "broker", feature = "macros"))]
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use lapin::{
    BasicProperties, Channel, Connection as Lapin, ConnectionProperties, Consumer, PublisherConfirm, message::Delivery,
    options::*, types::FieldTable,
};
use rpc_core::{
    AckPolicy, CallError, Connection, ConnectionOptions, ConnectionState, TimeoutStage, WorkerPool,
    broker::{Broker, Restart},
    service,
};
use tokio::{sync::Notify, time::timeout};

#[service(name = "faulty")]
trait Counting {
    #[rpc(idempotent, timeout = "20s")]
    async fn double(&self, n: u32) -> u32;
    async fn once(&self, n: u32) -> u32;
}

#[derive(Clone, Default)]
struct Counter(Arc<AtomicU32>, Arc<Notify>);

impl Counting for Counter {
    async fn double(&self, n: u32) -> u32 {
        2 * n
    }
    async fn once(&self, n: u32) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.notify_one();
        n
    }
}

async fn connect(uri: &str) -> Connection {
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    Connection::open_with(uri, options).await.unwrap()
}

async fn lapin(broker: &Broker) -> (Lapin, Channel) {
    let connection = Lapin::connect(broker.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, queue: &str, body: &str, mode: u8) {
    let properties = BasicProperties::default().with_delivery_mode(mode);
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await.unwrap();
}

async fn confirmed(channel: &Channel, body: &str) -> PublisherConfirm {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), "q".into(), options, body.as_bytes(), properties).await.unwrap()
}

async fn declare(channel: &Channel, queue: &str, durable: bool, passive: bool) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { durable, passive, ..Default::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
}

async fn get(channel: &Channel, queue: &str) -> Option<(String, bool)> {
    let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()?;
    Some((String::from_utf8(got.delivery.data.clone()).unwrap(), got.delivery.redelivered))
}

async fn next(consumer: &mut Consumer) -> Option<Delivery> {
    let mut consumer = std::pin::pin!(consumer);
    let next = std::future::poll_fn(|cx| consumer.as_mut().poll_next(cx));
    timeout(LIMIT, next).await.unwrap().map(Result::unwrap)
}

async fn reach(connection: &Connection, is_reached: impl Fn(&ConnectionState) -> bool) {
    let mut states = connection.states();
    timeout(LIMIT, states.wait_for(is_reached)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pool_survives_restarts_of_either_kind() {
    let broker = Broker::start().await.unwrap();
    let (served, calling) = (connect(broker.uri()).await, connect(broker.uri()).await);
    let _pool = WorkerPool::new(&served).serve(CountingServer::new(Counter::default())).start().await.unwrap();
    let client = CountingClient::new(&calling);
    for restart in [Restart::KeepDurable, Restart::LoseEverything, Restart::KeepDurable] {
        assert_eq!(client.double(1).await.unwrap(), 2);
        assert_eq!(broker.faults().restart(restart), 2);
        reach(&calling, |state| *state == ConnectionState::Connected).await;
        let answered = async {
            // The lost queue does not exist until the pool declares it again.
            while client.double(4).await.ok() != Some(8) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, answered).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_keeps_persistent_messages_in_durable_queues_or_nothing() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = lapin(&broker).await;
    declare(&channel, "durable", true, false).await.unwrap();
    declare(&channel, "transient", false, false).await.unwrap();
    for (body, mode) in [("1", 2), ("2", 1), ("3", 2)] {
        publish(&channel, "durable", body, mode).await;
    }
    // One of them is delivered, but not acknowledged, when the broker restarts.
    channel.basic_get("durable".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    broker.faults().restart(Restart::KeepDurable);
    let (_connection, channel) = lapin(&broker).await;
    assert_eq!(declare(&channel, "durable", true, true).await.unwrap(), 2);
    assert_eq!(get(&channel, "durable").await, Some(("1".to_owned(), true)));
    assert_eq!(get(&channel, "durable").await, Some(("3".to_owned(), false)));
    assert!(declare(&channel, "transient", false, true).await.is_err());
    broker.faults().restart(Restart::LoseEverything);
    let (_connection, channel) = lapin(&broker).await;
    assert!(declare(&channel, "durable", true, true).await.is_err());
}

#[tokio::test]
async fn messages_of_a_dropped_connection_are_requeued_before_the_method_returns() {
    let broker = Broker::start().await.unwrap();
    let (holder, channel) = lapin(&broker).await;
    declare(&channel, "q", false, false).await.unwrap();
    publish(&channel, "q", "held", 1).await;
    channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    let (_other, channel) = lapin(&broker).await;
    assert_eq!(get(&channel, "q").await, None);
    assert_eq!(broker.faults().drop_connections(), 2);
    let (_third, channel) = lapin(&broker).await;
    assert_eq!(get(&channel, "q").await, Some(("held".to_owned(), true)));
    timeout(LIMIT, async {
        while holder.status().connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn connections_are_dropped_by_name_and_kept_out_until_they_are_let_in() {
    let broker = Broker::start().await.unwrap();
    let options = ConnectionOptions::default().name("one").reconnect_delay_max(Duration::from_millis(100));
    let one = Connection::open_with(broker.uri(), options).await.unwrap();
    let other = connect(broker.uri()).await;
    broker.faults().refuse_connections();
    assert_eq!((broker.faults().drop_connection("nobody"), broker.faults().drop_connection("one")), (0, 1));
    reach(&one, |state| matches!(state, ConnectionState::Reconnecting { .. })).await;
    assert!(Connection::open(broker.uri()).await.is_err());
    assert_eq!(other.state(), ConnectionState::Connected);
    assert!(!matches!(one.state(), ConnectionState::Connected));
    broker.faults().allow_connections();
    reach(&one, |state| *state == ConnectionState::Connected).await;
}

#[tokio::test]
async fn a_blocked_connection_sends_nothing_and_says_so() {
    let broker = Broker::start().await.unwrap();
    let (served, calling) = (connect(broker.uri()).await, connect(broker.uri()).await);
    let counter = Counter::default();
    let _pool = WorkerPool::new(&served).serve(CountingServer::new(counter.clone())).start().await.unwrap();
    let client = CountingClient::new(&calling);
    assert_eq!(client.once(1).await.unwrap(), 1);
    broker.faults().block_connections("low on memory");
    reach(&calling, |state| *state == ConnectionState::Blocked { reason: "low on memory".to_owned() }).await;
    let unsent = client.once(2).timeout(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(unsent, CallError::Timeout { stage: TimeoutStage::Blocked, .. }), "{unsent:?}");
    assert!(!unsent.maybe_executed());
    let waiting = tokio::spawn(client.once(3).into_future());
    tokio::task::yield_now().await;
    broker.faults().unblock_connections();
    assert_eq!(timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap(), 3);
    reach(&calling, |state| *state == ConnectionState::Connected).await;
    assert_eq!(counter.0.load(Ordering::SeqCst), 2, "the call that was not sent was not executed");
}

#[tokio::test]
async fn only_publishers_are_blocked() {
    let broker = Broker::start().await.unwrap();
    let (publisher, publishing) = lapin(&broker).await;
    let (reader, consuming) = lapin(&broker).await;
    declare(&publishing, "q", false, false).await.unwrap();
    broker.faults().block_connections("test");
    // As in RabbitMQ, the first publish blocks its connection, and is handled afterwards.
    publish(&publishing, "q", "first", 1).await;
    timeout(LIMIT, async {
        while !publisher.status().blocked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(declare(&consuming, "q", false, true).await.unwrap(), 0);
    assert!(!reader.status().blocked());
    broker.faults().unblock_connections();
    assert_eq!(declare(&publishing, "q", false, true).await.unwrap(), 1);
}

#[tokio::test]
async fn a_duplicated_request_runs_twice_and_is_answered_once() {
    let broker = Broker::start().await.unwrap();
    let connection = connect(broker.uri()).await;
    let counter = Counter::default();
    let _pool = WorkerPool::new(&connection).serve(CountingServer::new(counter.clone())).start().await.unwrap();
    let client = CountingClient::new(&connection);
    broker.faults().duplicate_next_delivery();
    assert_eq!(client.once(7).await.unwrap(), 7);
    timeout(LIMIT, async {
        while counter.0.load(Ordering::SeqCst) < 2 {
            counter.1.notified().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(client.once(8).await.unwrap(), 8);
    assert_eq!(counter.0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn paused_deliveries_wait_in_their_queue_in_order() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = lapin(&broker).await;
    declare(&channel, "q", false, false).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut consumer = channel.basic_consume("q".into(), "c".into(), options, FieldTable::default()).await.unwrap();
    broker.faults().pause_deliveries();
    publish(&channel, "q", "1", 1).await;
    publish(&channel, "q", "2", 1).await;
    assert_eq!(declare(&channel, "q", false, true).await.unwrap(), 2);
    broker.faults().resume_deliveries();
    assert_eq!(next(&mut consumer).await.unwrap().data, b"1");
    assert_eq!(next(&mut consumer).await.unwrap().data, b"2");
}

#[tokio::test]
async fn a_cancelled_consumer_is_notified_and_its_queue_remains() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = lapin(&broker).await;
    declare(&channel, "q", false, false).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume("q".into(), "c".into(), options, FieldTable::default()).await.unwrap();
    assert_eq!((broker.faults().cancel_consumer("d"), broker.faults().cancel_consumer("c")), (0, 1));
    assert!(next(&mut consumer).await.is_none());
    publish(&channel, "q", "1", 1).await;
    assert_eq!(declare(&channel, "q", false, true).await.unwrap(), 1);
    assert_eq!(broker.faults().cancel_consumers("q"), 0);
}

#[tokio::test]
async fn confirms_are_delayed_withheld_and_released_in_order() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = lapin(&broker).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    declare(&channel, "q", false, false).await.unwrap();
    broker.faults().withhold_confirms();
    let first = confirmed(&channel, "1").await;
    // A written frame may not be handled yet. The answer shows that the frames before it are.
    assert_eq!(declare(&channel, "q", false, true).await.unwrap(), 1);
    broker.faults().nack_next_publish();
    let second = confirmed(&channel, "2").await;
    assert_eq!(declare(&channel, "q", false, true).await.unwrap(), 1, "one was nacked, the other taken");
    broker.faults().release_confirms();
    assert!(timeout(LIMIT, first).await.unwrap().unwrap().is_ack());
    assert!(timeout(LIMIT, second).await.unwrap().unwrap().is_nack());
    broker.faults().delay_confirms(Duration::from_millis(150));
    let started = std::time::Instant::now();
    assert!(timeout(LIMIT, confirmed(&channel, "3").await).await.unwrap().unwrap().is_ack());
    assert!(started.elapsed() >= Duration::from_millis(150));
}

/// Longer than any of these tests takes.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_dropped_pool_stops_its_replier_while_confirms_are_withheld() {
    let broker = Broker::start().await.unwrap();
    let counter = Counter::default();
    let pool = WorkerPool::new(&connect(broker.uri()).await).serve(CountingServer::new(counter.clone()));
    let pool = pool.ack_policy(AckPolicy::AfterConfirmedReply).start().await.unwrap();
    let client = CountingClient::new(&connect(broker.uri()).await);
    broker.faults().withhold_confirms();
    let call = tokio::spawn(client.once(7).into_future());
    counter.1.notified().await;
    assert_eq!(broker.queue("rpc.faulty").unwrap().unacked, 1);
    drop(pool);
    // The replier holds the channel: until it stops, the request stays with the pool that is gone.
    let requeued = async {
        while broker.queue("rpc.faulty").unwrap().ready != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), requeued).await.expect("the broker requeues the request");
    broker.faults().release_confirms();
    call.abort();
}

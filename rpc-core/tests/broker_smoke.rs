//! The bundled broker as lapin sees it.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_core::Stream;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use rpc_core::broker::Broker;
use tokio::time::timeout;

#[tokio::test]
async fn a_message_is_delivered_through_a_queue() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "hello").await;
    let mut consumer = consume(&channel, "hello", "").await;
    publish(&channel, "", "hello", b"Hello World!").await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.data, b"Hello World!");
    assert!(!delivery.redelivered);
    channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn unacked_messages_of_a_dead_connection_are_redelivered() {
    let broker = Broker::start().await.unwrap();
    let (dying, channel_1) = channel(&broker).await;
    let (_connection, channel_2) = channel(&broker).await;
    declare(&channel_1, "work").await;
    channel_1.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let mut first = consume(&channel_1, "work", "").await;
    publish(&channel_2, "", "work", b"job").await;
    assert_eq!(next(&mut first).await.data, b"job");
    let mut second = consume(&channel_2, "work", "").await;
    dying.close(200, "gone".into()).await.unwrap();
    let again = next(&mut second).await;
    assert_eq!(again.data, b"job");
    assert!(again.redelivered);
}

#[tokio::test]
async fn an_unroutable_mandatory_message_is_returned_before_its_confirm() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default();
    let confirm = channel.basic_publish("".into(), "nowhere".into(), options, b"lost", properties).await.unwrap();
    match timeout(LIMIT, confirm).await.unwrap().unwrap() {
        Confirmation::Ack(Some(returned)) => {
            assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
            assert_eq!(returned.delivery.data, b"lost");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_are_answered_through_an_exclusive_reply_queue() {
    const CALLS: usize = 100;
    let broker = Broker::start().await.unwrap();
    let (_server, server) = channel(&broker).await;
    let (_client, client) = channel(&broker).await;
    declare(&server, "rpc_queue").await;
    let mut requests = consume(&server, "rpc_queue", "").await;
    let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let replies = client.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap();
    assert!(replies.name().as_str().starts_with("amq.gen-"));
    let mut answers = consume(&client, replies.name().as_str(), "").await;
    let options = BasicPublishOptions::default();
    for call in 0..CALLS {
        let properties = BasicProperties::default()
            .with_reply_to(replies.name().clone())
            .with_correlation_id(call.to_string().into());
        client.basic_publish("".into(), "rpc_queue".into(), options, b"ping", properties).await.unwrap();
    }
    for _ in 0..CALLS {
        let request = next(&mut requests).await;
        let reply_to = request.properties.reply_to().clone().unwrap();
        let id = request.properties.correlation_id().clone().unwrap();
        let properties = BasicProperties::default().with_correlation_id(id);
        server.basic_publish("".into(), reply_to, options, b"pong", properties).await.unwrap();
        server.basic_ack(request.delivery_tag, BasicAckOptions::default()).await.unwrap();
    }
    for call in 0..CALLS {
        let answer = next(&mut answers).await;
        assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), call.to_string());
        assert_eq!(answer.data, b"pong");
    }
}

#[tokio::test]
async fn the_four_kinds_of_exchanges_route() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q").await;
    let cases = [
        (ExchangeKind::Direct, "key", "key"),
        (ExchangeKind::Fanout, "", "anything"),
        (ExchangeKind::Topic, "a.*.#", "a.b.c.d"),
        (ExchangeKind::Headers, "", "ignored"),
    ];
    for (kind, binding, routing_key) in cases {
        let name = format!("e-{routing_key}");
        let (name, none) = (name.as_str(), FieldTable::default());
        channel.exchange_declare(name.into(), kind, ExchangeDeclareOptions::default(), none.clone()).await.unwrap();
        let options = QueueBindOptions::default();
        channel.queue_bind("q".into(), name.into(), binding.into(), options, none).await.unwrap();
        publish(&channel, name, routing_key, b"x").await;
        let message = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
        assert_eq!(message.delivery.exchange.as_str(), name);
    }
}

#[tokio::test]
async fn rejected_messages_return_to_the_front() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q").await;
    for body in [b"1", b"2", b"3"] {
        publish(&channel, "", "q", body).await;
    }
    let first = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!((first.delivery.data.as_slice(), first.message_count), (&b"1"[..], 2));
    let requeue = BasicRejectOptions { requeue: true };
    channel.basic_reject(first.delivery.delivery_tag, requeue).await.unwrap();
    let again = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(again.delivery.data, b"1");
    assert!(again.delivery.redelivered);
}

#[tokio::test]
async fn prefetch_bounds_the_unacked_messages_of_a_consumer() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q").await;
    channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consume(&channel, "q", "c").await;
    for body in [b"1", b"2", b"3"] {
        publish(&channel, "", "q", body).await;
    }
    let first = next(&mut consumer).await;
    assert_eq!(next(&mut consumer).await.data, b"2");
    let options = QueueDeclareOptions::default();
    let declared = channel.queue_declare("q".into(), options, FieldTable::default()).await.unwrap();
    assert_eq!((declared.message_count(), declared.consumer_count()), (1, 1));
    channel.basic_ack(first.delivery_tag, BasicAckOptions::default()).await.unwrap();
    assert_eq!(next(&mut consumer).await.data, b"3");
    channel.basic_cancel("c".into(), BasicCancelOptions::default()).await.unwrap();
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q").await;
    let mut consumer = consume(&channel, "q", "").await;
    for size in [0, 1, 4_096, 4_097, 131_064, 131_065, 1 << 20, 16 << 20] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        publish(&channel, "", "q", &body).await;
        let delivery = next(&mut consumer).await;
        assert!(delivery.data == body, "{size} bytes");
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_broken_channel_leaves_the_connection_alone() {
    let broker = Broker::start().await.unwrap();
    let (connection, channel) = channel(&broker).await;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let error = channel.queue_declare("none".into(), passive, FieldTable::default()).await.unwrap_err();
    assert!(error.to_string().contains("NOT_FOUND - no queue 'none' in vhost '/'"), "{error}");
    let again = connection.create_channel().await.unwrap();
    declare(&again, "some").await;
}

#[tokio::test]
async fn a_dropped_broker_is_gone() {
    let broker = Broker::start().await.unwrap();
    let address = broker.address();
    drop(broker);
    timeout(LIMIT, async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn guest_connects_from_this_machine_only() {
    // Connecting a UDP socket sends nothing. It makes the system choose a local address.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let outer = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let Some(outer) = outer.ok().filter(|outer| !outer.is_loopback()) else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let everywhere = || Broker::builder().address(([0, 0, 0, 0], 0).into()).user("ann", "ann");
    let broker = everywhere().start().await.unwrap();
    let port = broker.address().port();
    let log_in = async |user: &str, host: &str, port: u16| {
        let uri = format!("amqp://{user}:{user}@{host}:{port}");
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await;
        connection.map(drop).map_err(|error| error.to_string())
    };
    let refused = log_in("guest", &outer.to_string(), port).await.unwrap_err();
    assert!(refused.contains("ACCESS_REFUSED - Login was refused"), "{refused}");
    assert_eq!(log_in("guest", "127.0.0.1", port).await, Ok(()));
    assert_eq!(log_in("ann", &outer.to_string(), port).await, Ok(()));
    let open = everywhere().loopback_users(["ann"]).start().await.unwrap();
    assert_eq!(log_in("guest", &outer.to_string(), open.address().port()).await, Ok(()));
    assert!(log_in("ann", &outer.to_string(), open.address().port()).await.is_err());
}

async fn channel(broker: &Broker) -> (Connection, Channel) {
    let connection = Connection::connect(broker.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, queue: &str) {
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
}

async fn publish(channel: &Channel, exchange: &str, routing_key: &str, body: &[u8]) {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await.unwrap();
}

async fn consume(channel: &Channel, queue: &str, tag: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), tag.into(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let mut consumer = std::pin::Pin::new(consumer);
    let next = std::future::poll_fn(|context| consumer.as_mut().poll_next(context));
    timeout(LIMIT, next).await.unwrap().unwrap().unwrap()
}

/// Longer than any of these tests takes.
const LIMIT: Duration = Duration::from_secs(10);

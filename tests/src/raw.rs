//! AMQP without the framework: what a program in another language would send and see.

use std::{future::poll_fn, pin::Pin, time::Duration};

use futures_core::Stream;
use lapin::{
    BasicProperties, ConnectionProperties,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeleteOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::within;

/// A foreign program: one connection and one channel.
#[derive(Debug)]
pub struct Peer {
    connection: lapin::Connection,
    channel: lapin::Channel,
}

impl Peer {
    /// Connects.
    pub async fn connect(uri: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name("foreign program".into());
        let connection = lapin::Connection::connect(uri, properties).await.expect("the broker is reachable");
        let channel = connection.create_channel().await.expect("a channel");
        Self { connection, channel }
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Err(error) = self.connection.close(200, "done".into()).await {
            // A channel that is closed at the same moment is an error to lapin.
            assert!(matches!(error.kind(), lapin::ErrorKind::InvalidChannelState(..)), "{error}");
        }
    }

    /// Publishes, and waits until the bytes are on the socket.
    pub async fn publish(&self, exchange: &str, routing_key: &str, properties: BasicProperties, body: &[u8]) {
        self.channel
            .basic_publish(exchange.into(), routing_key.into(), BasicPublishOptions::default(), body, properties)
            .await
            .expect("the channel is open");
    }

    /// Publishes a message that the broker may refuse, and waits until it is on the socket, or the broker has closed the connection.
    pub async fn try_publish(&self, exchange: &str, routing_key: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let published =
            self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await;
        if let Err(error) = published {
            println!("not published: {error}");
        }
    }

    /// Whether the broker has closed neither the connection nor the channel.
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Declares a queue of this connection that goes with it, and returns its name.
    pub async fn exclusive_queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let name = format!("foreign.{}", uuid());
        self.channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.expect("declared");
        name
    }

    /// Declares a queue of this connection that takes no message more, and refuses them.
    pub async fn full_queue(&self) -> String {
        let name = format!("full.{}", uuid());
        self.declare_full_queue(&name).await;
        name
    }

    /// The same for a queue of that name.
    pub async fn declare_full_queue(&self, name: &str) {
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        self.channel.queue_declare(name.into(), options, arguments).await.expect("declared");
        self.publish("", name, BasicProperties::default(), b"the only one").await;
    }

    /// Declares a queue of this connection whose messages expire at once and go to an exchange as dead letters.
    pub async fn expiring_queue(&self, exchange: &str, routing_key: &str) -> String {
        let name = format!("expiring.{}", uuid());
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(0));
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange.into()));
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(routing_key.into()));
        self.channel.queue_declare(name.as_str().into(), options, arguments).await.expect("declared");
        name
    }

    /// Declares a durable queue.
    pub async fn durable_queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.expect("declared");
    }

    /// Declares a durable queue with a length limit, which no queue of the framework has unless it is asked for.
    pub async fn limited_queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(7_000));
        self.channel.queue_declare(name.into(), options, arguments).await.expect("declared");
    }

    /// The refusal of a declaration as a durable queue of that type, if there is one.
    pub async fn refusal_of_type(&self, queue: &str, queue_type: &str) -> Option<String> {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
        channel.queue_declare(queue.into(), options, arguments).await.err().map(|error| error.to_string())
    }

    /// Whether a queue of that name can be made an exclusive one of this connection: not while another has it.
    pub async fn can_declare(&self, name: &str) -> bool {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        channel.queue_declare(name.into(), options, FieldTable::default()).await.is_ok()
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        self.channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                routing_key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("bound");
    }

    /// Removes the binding of a queue to an exchange.
    pub async fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let unbind =
            self.channel.queue_unbind(queue.into(), exchange.into(), routing_key.into(), FieldTable::default());
        unbind.await.expect("unbound");
    }

    /// Consumes with acks, `prefetch_count` at a time.
    pub async fn consume(&self, queue: &str, prefetch_count: u16) -> Deliveries {
        self.channel.basic_qos(prefetch_count, BasicQosOptions::default()).await.expect("qos is set");
        let consumer = self
            .channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .expect("the queue can be consumed");
        Deliveries(consumer)
    }

    /// Sends a request and waits for the reply.
    pub async fn call(&self, exchange: &str, routing_key: &str, properties: BasicProperties, body: &[u8]) -> Delivery {
        let reply_queue = self.exclusive_queue().await;
        let mut replies = self.consume(&reply_queue, 1).await;
        let properties = properties.with_reply_to(reply_queue.into()).with_correlation_id("a-foreign-id".into());
        self.publish(exchange, routing_key, properties, body).await;
        let reply = replies.next().await;
        let correlation_id = reply.properties.correlation_id().as_ref().map(|id| id.as_str());
        assert_eq!(correlation_id, Some("a-foreign-id"), "copied byte for byte");
        reply
    }

    /// Answers a request as the tutorials do: to its `reply_to`, with its `correlation_id`.
    pub async fn answer(&self, request: &Delivery, body: &[u8]) {
        self.answer_with(request, BasicProperties::default(), body).await;
    }

    /// Answers a request with further properties.
    pub async fn answer_with(&self, request: &Delivery, properties: BasicProperties, body: &[u8]) {
        self.reply(request, properties, body).await;
        request.ack(BasicAckOptions::default()).await.expect("acked");
    }

    /// Answers a request and leaves it unacknowledged.
    pub async fn answer_unacked(&self, request: &Delivery, body: &[u8]) {
        self.reply(request, BasicProperties::default(), body).await;
    }

    async fn reply(&self, request: &Delivery, properties: BasicProperties, body: &[u8]) {
        let reply_to = request.properties.reply_to().as_ref().expect("a reply_to").as_str();
        let correlation_id = request.properties.correlation_id().clone().expect("a correlation_id");
        self.publish("", reply_to, properties.with_correlation_id(correlation_id), body).await;
    }

    /// How many messages wait in `queue` and how many consumers it has; `None` when there is no such queue, or it
    /// is another connection's own.
    pub async fn queue(&self, queue: &str) -> Option<QueueState> {
        // A failed declaration closes its channel.
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let state = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .ok()
            .map(|queue| QueueState { ready: queue.message_count(), consumers: queue.consumer_count() });
        if state.is_some() {
            channel.close(200, "done".into()).await.expect("the channel closes");
        }
        state
    }

    /// Deletes an exchange; one that is not there is fine.
    pub async fn delete_exchange(&self, exchange: &str) {
        self.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
    }

    /// Deletes a queue; one that is not there is fine.
    pub async fn delete_queue(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }
}

/// The counts that a passive declaration is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages ready for delivery; those held by consumers are not among them.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The deliveries of a foreign consumer.
#[derive(Debug)]
pub struct Deliveries(lapin::Consumer);

impl Deliveries {
    /// The next one.
    ///
    /// # Panics
    /// When none comes within 10 s.
    pub async fn next(&mut self) -> Delivery {
        let next = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx));
        let next = within(Duration::from_secs(10), "a delivery", next).await;
        next.expect("the consumer lives").expect("the channel is open")
    }
}

/// A text property or header of a reply.
pub fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// The `type` property.
pub fn kind(delivery: &Delivery) -> Option<&str> {
    delivery.properties.kind().as_ref().map(|kind| kind.as_str())
}

/// The `content_type` property.
pub fn content_type(delivery: &Delivery) -> Option<&str> {
    delivery.properties.content_type().as_ref().map(|content_type| content_type.as_str())
}

/// A name nobody else uses on this machine.
fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

//! lapin, and the only place that names it: its traps are contained here.
//!
//! - `basic_publish(..).await` and `basic_ack(..).await` resolve after the socket write, two thread round trips a
//!   call. Their frames are queued by the first poll already, so [`start`] polls once and lets go.
//! - lapin sends methods before queued messages: an ack overtakes a message that is not on the socket yet, and a
//!   `channel.close` discards it. [`Channel::publish_written`] is the barrier.
//! - Outside confirm mode returned messages pile up silently: [`Channel::drain_returned`] fetches them.
//! - In confirm mode a return arrives inside the confirm of any publish: [`Confirm::wait`] hands it over as it is,
//!   to be matched by correlation_id.
//! - Two threads that publish on one channel in confirm mode may get each other's confirm: it numbers a publish first and
//!   queues its frames then. [`Channel::publish_for_confirm`] lets one at a time do both.
//! - Built without TLS it takes `amqps` for `amqp`: [`parse_uri`] refuses it.
//! - `ShortString::from` panics above 255 bytes: every name goes through [`short`].

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Waker},
};

use futures_core::Stream;
use lapin::{
    BasicProperties, ConnectionProperties, ErrorKind,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
        BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    protocol::{AMQPErrorKind, AMQPHardError},
    types::{AMQPValue, FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};

use super::{
    ConnectionOptions,
    transport::{HeaderValue, Properties, Publish, QueueDeclaration, Returned, Settlement},
};
use crate::{error::Error, topology};

/// Checks a URI and says whom it addresses.
pub(super) fn parse_uri(uri: &str) -> Result<Endpoint, Error> {
    let parsed: AMQPUri = uri.parse().map_err(|reason: String| Error::InvalidUri { reason })?;
    // Without TLS, lapin would send the password in the clear, and say nothing.
    if cfg!(not(feature = "tls")) && parsed.scheme == AMQPScheme::AMQPS {
        return Err(Error::InvalidUri { reason: "amqps needs rpc-core's feature 'tls'".to_owned() });
    }
    Ok(Endpoint {
        address: format!("{}:{}", parsed.authority.host, parsed.authority.port),
        user: parsed.authority.userinfo.username.clone(),
        vhost: parsed.vhost.clone(),
        uri: parsed,
    })
}

/// A parsed URI. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) vhost: String,
    uri: AMQPUri,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "amqp://{}@{}/{}", self.user, self.address, self.vhost)
    }
}

/// What a connection tells of itself.
#[derive(Debug)]
pub(super) enum Event {
    Blocked(String),
    Unblocked,
    /// Of the connection or of one channel.
    Failed(String),
}

/// One AMQP connection: a socket and lapin's io thread.
#[derive(Debug)]
pub(super) struct Link {
    connection: lapin::Connection,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        let properties = ConnectionProperties::default().with_connection_name(options.name.as_str().into());
        #[cfg(not(feature = "tls"))]
        let connecting = lapin::Connection::connect_uri(endpoint.uri.clone(), properties);
        #[cfg(feature = "tls")]
        let connecting = {
            let runtime = lapin::runtime::default_runtime().map_err(|error| opening_error(&error, endpoint))?;
            let tls = tls_config(&options.tls)?;
            lapin::Connection::connect_uri_with_config(endpoint.uri.clone(), properties, tls, runtime)
        };
        match connecting.await {
            Ok(connection) => Ok(Self { connection }),
            Err(error) => Err(opening_error(&error, endpoint)),
        }
    }

    /// The one stream of events; a second one would compete with it.
    pub(super) fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + use<> {
        Events(Box::pin(self.connection.events_listener()))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        match self.connection.create_channel().await {
            Ok(channel) => Ok(Channel { channel, numbering: Arc::default() }),
            Err(error) => Err(operation_error(&error, "open a channel")),
        }
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        match self.connection.close(REPLY_SUCCESS, short("closed by the application")?).await {
            Ok(()) => Ok(()),
            // A channel that is opened or closed at the same moment is a fault to lapin: it drops the connection at once.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => Ok(()),
            Err(error) => Err(operation_error(&error, "close the connection")),
        }
    }
}

struct Events(Pin<Box<dyn Stream<Item = lapin::Event> + Send>>);

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Event>> {
        loop {
            return match self.0.as_mut().poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(lapin::Event::ConnectionBlocked(reason))) => Poll::Ready(Some(Event::Blocked(reason))),
                Poll::Ready(Some(lapin::Event::ConnectionUnblocked)) => Poll::Ready(Some(Event::Unblocked)),
                Poll::Ready(Some(lapin::Event::Error(error))) => Poll::Ready(Some(Event::Failed(error.to_string()))),
                Poll::Ready(Some(_)) => continue,
            };
        }
    }
}

/// One AMQP channel.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    channel: lapin::Channel,
    /// Held while a publish gets its number and its frames their place.
    numbering: Arc<Mutex<()>>,
}

impl Channel {
    /// Queues the message for sending; nobody waits for the socket.
    ///
    /// An error says that it was certainly not sent.
    pub(crate) fn publish(&self, publish: Publish<'_>) -> Result<(), Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short(routing_key)?, to_lapin(properties)?);
        let options = BasicPublishOptions { mandatory, immediate: false };
        // Pinned where it is made: lapin's future is a kilobyte.
        let publishing = pin!(self.channel.basic_publish(exchange, routing_key, options, body, properties));
        match start_pinned(publishing) {
            Some(Err(error)) => Err(operation_error(&error, "publish")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Publishes and resolves when the message, and every one published before it, is on the socket.
    ///
    /// What is sent afterwards, an ack above all, then really goes out after it.
    pub(crate) async fn publish_written(&self, publish: Publish<'_>) -> Result<(), Error> {
        self.publish_for_confirm(publish).await.map(drop)
    }

    /// Publishes on a channel in confirm mode; resolves when the message is on the socket.
    pub(crate) async fn publish_for_confirm(&self, publish: Publish<'_>) -> Result<Confirm, Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short(routing_key)?, to_lapin(properties)?);
        let options = BasicPublishOptions { mandatory, immediate: false };
        self.numbered(self.channel.basic_publish(exchange, routing_key, options, body, properties)).await
    }

    /// Drives a publish whose first poll, which numbers it and queues its frames, no other one's interrupts.
    async fn numbered(
        &self,
        publishing: impl Future<Output = lapin::Result<lapin::PublisherConfirm>>,
    ) -> Result<Confirm, Error> {
        let mut publishing = pin!(publishing);
        let published = poll_fn(|cx| {
            let _one_at_a_time = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
            publishing.as_mut().poll(cx)
        });
        match published.await {
            Ok(confirm) => Ok(Confirm { confirm }),
            Err(error) => Err(operation_error(&error, "publish")),
        }
    }

    /// Queues a publish on a channel in confirm mode: others can be queued behind it before it is on the socket.
    pub(crate) fn queue_for_confirm(&self, publish: Publish<'_>) -> Result<Queued, Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short(routing_key)?, to_lapin(properties)?);
        let options = BasicPublishOptions { mandatory, immediate: false };
        let (channel, body) = (self.channel.clone(), body.to_vec());
        let mut sending: Sending = Box::pin(async move {
            match channel.basic_publish(exchange, routing_key, options, &body, properties).await {
                Ok(confirm) => Ok(Confirm { confirm }),
                Err(error) => Err(operation_error(&error, "publish")),
            }
        });
        let _one_at_a_time = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        match sending.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(confirm)) => Ok(Queued { sending: Box::pin(std::future::ready(Ok(confirm))) }),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Queued { sending }),
        }
    }

    /// Publishes what was received once more, to a queue, persistent, with further headers; on a channel in confirm mode.
    ///
    /// Left out are `expiration`, by which the copy would go as the original did, and `user_id`, which only that user
    /// may set.
    pub(crate) async fn republish(
        &self,
        delivery: &Delivery,
        queue: &str,
        headers: Vec<(Cow<'static, str>, HeaderValue)>,
    ) -> Result<Confirm, Error> {
        let original = &delivery.received.delivery.properties;
        let mut table = original.headers().clone().unwrap_or_default();
        for (name, value) in headers {
            table.insert(short(name)?, value_to_lapin(value));
        }
        let mut properties = BasicProperties::default().with_headers(table).with_delivery_mode(PERSISTENT);
        macro_rules! keep {
            ($($getter:ident $setter:ident),+ $(,)?) => {
                $(if let Some(value) = original.$getter().clone() {
                    properties = properties.$setter(value);
                })+
            };
        }
        keep!(
            content_type with_content_type,
            content_encoding with_content_encoding,
            priority with_priority,
            correlation_id with_correlation_id,
            reply_to with_reply_to,
            message_id with_message_id,
            timestamp with_timestamp,
            kind with_type,
            app_id with_app_id,
            cluster_id with_cluster_id,
        );
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, routing_key) = (short("")?, short(queue)?);
        self.numbered(self.channel.basic_publish(exchange, routing_key, options, delivery.body(), properties)).await
    }

    /// Queues an ack, a requeue or a discard for sending.
    pub(crate) fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        let outcome = match settlement {
            Settlement::Ack { delivery_tag, multiple } => {
                start(self.channel.basic_ack(delivery_tag, BasicAckOptions { multiple }))
            }
            Settlement::Requeue { delivery_tag } => {
                let options = BasicNackOptions { multiple: false, requeue: true };
                start(self.channel.basic_nack(delivery_tag, options))
            }
        };
        match outcome {
            Some(Err(error)) => Err(operation_error(&error, "settle a delivery")),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The messages returned so far on this channel outside confirm mode.
    pub(crate) fn drain_returned(&self) -> Vec<Returned> {
        match start(self.channel.wait_for_confirms()) {
            Some(Ok(messages)) => messages.iter().map(returned).collect(),
            // Only a channel in confirm mode waits, and a failed one has nothing more to tell.
            Some(Err(_)) | None => Vec::new(),
        }
    }

    pub(crate) async fn confirm_select(&self) -> Result<(), Error> {
        self.channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|error| operation_error(&error, "switch to confirm mode"))
    }

    /// Declares the exchanges of `topology`.
    pub(crate) async fn declare_request_exchanges(&self) -> Result<(), Error> {
        self.declare_exchange(topology::OTHER_EXCHANGE, lapin::ExchangeKind::Topic, FieldTable::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert(short("alternate-exchange")?, AMQPValue::LongString(topology::OTHER_EXCHANGE.into()));
        self.declare_exchange(topology::EXCHANGE, lapin::ExchangeKind::Direct, arguments).await
    }

    /// Declares the exchange for cancels.
    pub(crate) async fn declare_cancel_exchange(&self) -> Result<(), Error> {
        self.declare_exchange(topology::CANCEL_EXCHANGE, lapin::ExchangeKind::Direct, FieldTable::default()).await
    }

    /// Declares the exchange for dead letters.
    pub(crate) async fn declare_dead_exchange(&self) -> Result<(), Error> {
        self.declare_exchange(topology::DEAD_EXCHANGE, lapin::ExchangeKind::Headers, FieldTable::default()).await
    }

    async fn declare_exchange(
        &self,
        name: &str,
        kind: lapin::ExchangeKind,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        self.channel
            .exchange_declare(short(name)?, kind, options, arguments)
            .await
            .map_err(|error| operation_error(&error, &format!("declare exchange '{name}'")))
    }

    pub(crate) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
        let options = QueueDeclareOptions {
            passive: false,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: queue.auto_delete,
            nowait: false,
        };
        self.channel
            .queue_declare(short(queue.name)?, options, arguments_to_lapin(queue.arguments)?)
            .await
            .map(drop)
            .map_err(|error| operation_error(&error, &format!("declare queue '{}'", queue.name)))
    }

    /// Whether the queue exists. When it does not, the broker closes this channel: use one made for the question.
    pub(crate) async fn queue_exists(&self, queue: &str) -> Result<bool, Error> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(short(queue)?, options, FieldTable::default()).await;
        match declared.map_err(|error| operation_error(&error, &format!("look for queue '{queue}'"))) {
            Ok(_) => Ok(true),
            Err(Error::Refused { reply_code: NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn bind_queue(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        self.bind(queue, exchange, routing_key, FieldTable::default()).await
    }

    pub(crate) async fn bind_queue_by_headers(
        &self,
        queue: &str,
        exchange: &str,
        arguments: &[(&'static str, HeaderValue)],
    ) -> Result<(), Error> {
        self.bind(queue, exchange, "", arguments_to_lapin(arguments)?).await
    }

    async fn bind(&self, queue: &str, exchange: &str, routing_key: &str, arguments: FieldTable) -> Result<(), Error> {
        self.channel
            .queue_bind(short(queue)?, short(exchange)?, short(routing_key)?, QueueBindOptions::default(), arguments)
            .await
            .map_err(|error| operation_error(&error, &format!("bind queue '{queue}' to exchange '{exchange}'")))
    }

    /// Bounds the unacknowledged deliveries of consumers started afterwards.
    pub(crate) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        self.channel
            .basic_qos(prefetch_count, BasicQosOptions { global: false })
            .await
            .map_err(|error| operation_error(&error, "set the prefetch count"))
    }

    pub(crate) async fn consume(&self, queue: &str, consumer_tag: &str, no_ack: bool) -> Result<Consumer, Error> {
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        self.channel
            .basic_consume(short(queue)?, short(consumer_tag)?, options, FieldTable::default())
            .await
            .map(|consumer| Consumer { consumer })
            .map_err(|error| operation_error(&error, &format!("consume from queue '{queue}'")))
    }

    pub(crate) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        self.channel
            .basic_cancel(short(consumer_tag)?, BasicCancelOptions::default())
            .await
            .map_err(|error| operation_error(&error, "cancel the consumer"))
    }

    /// Closes the channel. The broker answers after it handled everything sent on it before.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.channel
            .close(REPLY_SUCCESS, short("done")?)
            .await
            .map_err(|error| operation_error(&error, "close the channel"))
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Confirm, Error>> + Send>>;

/// A publish on its way to the socket.
pub(crate) struct Queued {
    sending: Sending,
}

impl Queued {
    /// Resolves when it is on the socket.
    pub(crate) async fn written(self) -> Result<Confirm, Error> {
        self.sending.await
    }
}

/// A publish that waits for the broker's word.
#[derive(Debug)]
pub(crate) struct Confirm {
    confirm: lapin::PublisherConfirm,
}

impl Confirm {
    /// Acked or not, and the returned message that came inside this confirm, which may be another publish's.
    pub(crate) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        match self.confirm.await {
            Ok(confirmation) => Ok((confirmation.is_ack(), confirmation.take_message().as_ref().map(returned))),
            Err(error) => Err(operation_error(&error, "publish")),
        }
    }
}

/// The deliveries of one consumer. Bounded by the prefetch count; unbounded without acks.
#[derive(Debug)]
pub(crate) struct Consumer {
    consumer: lapin::Consumer,
}

impl Consumer {
    /// The next delivery; `Ok(None)` when the broker cancelled the consumer.
    ///
    /// # Cancel safety
    /// Dropping the future loses no delivery.
    pub(crate) async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        Pin::new(&mut self.consumer).poll_next(cx).map(|delivery| match delivery {
            Some(Ok(delivery)) => {
                let received = Received { delivery, is_claimed: AtomicBool::new(false) };
                Ok(Some(Delivery { received: Arc::new(received) }))
            }
            Some(Err(error)) => Err(operation_error(&error, "consume")),
            None => Ok(None),
        })
    }

    /// A delivery that has arrived already.
    pub(crate) fn next_ready(&mut self) -> Option<Delivery> {
        match self.poll_next(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(delivery)) => delivery,
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }
}

/// One received message. Properties are read where they lie; clones share them.
///
/// lapin's is half a kilobyte: behind a pointer, everything that carries it stays small.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    received: Arc<Received>,
}

#[derive(Debug)]
struct Received {
    delivery: lapin::message::Delivery,
    is_claimed: AtomicBool,
}

/// A delivery that may be dealt with already; it holds no body in memory. The default is of none.
#[derive(Debug, Default)]
pub(crate) struct WeakDelivery {
    received: Weak<Received>,
}

impl WeakDelivery {
    pub(crate) fn upgrade(&self) -> Option<Delivery> {
        self.received.upgrade().map(|received| Delivery { received })
    }
}

impl Delivery {
    pub(crate) fn downgrade(&self) -> WeakDelivery {
        WeakDelivery { received: Arc::downgrade(&self.received) }
    }

    /// True for the first who asks, of all who share the delivery: that one decides what becomes of it.
    pub(crate) fn claim(&self) -> bool {
        !self.received.is_claimed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn delivery_tag(&self) -> u64 {
        self.received.delivery.delivery_tag
    }

    pub(crate) fn redelivered(&self) -> bool {
        self.received.delivery.redelivered
    }

    pub(crate) fn routing_key(&self) -> &str {
        self.received.delivery.routing_key.as_str()
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.received.delivery.data
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        self.received.delivery.properties.content_type().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn kind(&self) -> Option<&str> {
        self.received.delivery.properties.kind().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn correlation_id(&self) -> Option<&str> {
        self.received.delivery.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn reply_to(&self) -> Option<&str> {
        self.received.delivery.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn message_id(&self) -> Option<&str> {
        self.received.delivery.properties.message_id().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn app_id(&self) -> Option<&str> {
        self.received.delivery.properties.app_id().as_ref().map(ShortString::as_str)
    }

    pub(crate) fn priority(&self) -> Option<u8> {
        *self.received.delivery.properties.priority()
    }

    /// `expiration` in milliseconds; `None` when absent or not a number.
    pub(crate) fn expiration_ms(&self) -> Option<u64> {
        self.received.delivery.properties.expiration().as_ref()?.as_str().parse().ok()
    }

    pub(crate) fn header(&self, name: &str) -> Option<HeaderValue> {
        let headers = self.received.delivery.properties.headers().as_ref()?;
        value_from_lapin(headers.inner().get(name)?)
    }
}

/// Polls a future once, for its effect, and drops it.
fn start<F: Future>(future: F) -> Option<F::Output> {
    start_pinned(pin!(future))
}

fn start_pinned<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// lapin's properties are 300 bytes and every setter moves them: those of each call are set in one chain, and the
/// others only when there are any.
fn to_lapin(properties: Properties<'_>) -> Result<BasicProperties, Error> {
    match properties {
        Properties {
            content_type: None,
            kind: None,
            correlation_id: Some(correlation_id),
            reply_to: Some(reply_to),
            expiration_ms: Some(expiration_ms),
            message_id: None,
            delivery_mode: None,
            priority: None,
            headers,
        } if headers.is_empty() => Ok(BasicProperties::default()
            .with_correlation_id(short(correlation_id)?)
            .with_reply_to(short(reply_to)?)
            .with_expiration(short(expiration_ms.to_string())?)),
        Properties {
            content_type: None,
            kind: None,
            correlation_id: Some(correlation_id),
            reply_to: None,
            expiration_ms: None,
            message_id: None,
            delivery_mode: None,
            priority: None,
            headers,
        } if headers.is_empty() => Ok(BasicProperties::default().with_correlation_id(short(correlation_id)?)),
        properties => any_to_lapin(properties),
    }
}

fn any_to_lapin(properties: Properties<'_>) -> Result<BasicProperties, Error> {
    let mut out = BasicProperties::default();
    if let Some(content_type) = properties.content_type {
        out = out.with_content_type(short(content_type)?);
    }
    if let Some(kind) = properties.kind {
        out = out.with_type(short(kind)?);
    }
    if let Some(correlation_id) = properties.correlation_id {
        out = out.with_correlation_id(short(correlation_id)?);
    }
    if let Some(reply_to) = properties.reply_to {
        out = out.with_reply_to(short(reply_to)?);
    }
    if let Some(message_id) = properties.message_id {
        out = out.with_message_id(short(message_id)?);
    }
    if let Some(expiration_ms) = properties.expiration_ms {
        out = out.with_expiration(short(expiration_ms.to_string())?);
    }
    if let Some(delivery_mode) = properties.delivery_mode {
        out = out.with_delivery_mode(delivery_mode);
    }
    if let Some(priority) = properties.priority {
        out = out.with_priority(priority);
    }
    if !properties.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, value) in properties.headers {
            headers.insert(short(name)?, value_to_lapin(value));
        }
        out = out.with_headers(headers);
    }
    Ok(out)
}

fn arguments_to_lapin(arguments: &[(&'static str, HeaderValue)]) -> Result<FieldTable, Error> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(short(*name)?, value_to_lapin(value.clone()));
    }
    Ok(table)
}

fn value_to_lapin(value: HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Bool(value) => AMQPValue::Boolean(value),
        HeaderValue::Integer(value) => AMQPValue::LongLongInt(value),
        HeaderValue::Float(value) => AMQPValue::Double(value),
        HeaderValue::Text(value) => AMQPValue::LongString(value.into()),
        HeaderValue::Bytes(value) => AMQPValue::ByteArray(value.into()),
    }
}

fn value_from_lapin(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
        AMQPValue::ShortShortInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::ShortInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::ShortUInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::LongInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::LongUInt(value) => HeaderValue::Integer((*value).into()),
        AMQPValue::LongLongInt(value) => HeaderValue::Integer(*value),
        AMQPValue::Timestamp(value) => HeaderValue::Integer(i64::try_from(*value).ok()?),
        AMQPValue::Float(value) => HeaderValue::Float((*value).into()),
        AMQPValue::Double(value) => HeaderValue::Float(*value),
        AMQPValue::ShortString(value) => HeaderValue::Text(value.as_str().to_owned()),
        AMQPValue::LongString(value) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(value.as_bytes().to_vec()),
        },
        AMQPValue::ByteArray(value) => HeaderValue::Bytes(value.as_slice().to_vec()),
        _ => return None,
    })
}

fn returned(message: &lapin::message::BasicReturnMessage) -> Returned {
    Returned {
        correlation_id: message.delivery.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned()),
        reply_text: message.reply_text.as_str().to_owned(),
    }
}

fn short(text: impl Into<String>) -> Result<ShortString, Error> {
    let text = text.into();
    let bytes = text.len();
    ShortString::try_new(text)
        .map_err(|_| Error::Configuration(format!("a name of {bytes} bytes does not fit AMQP's short string of 255")))
}

#[cfg(feature = "tls")]
fn tls_config(options: &super::ClientTlsOptions) -> Result<lapin::tcp::OwnedTLSConfig, Error> {
    let identity = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let (pem, key) = (cert.clone().into_bytes(), key.clone().into_bytes());
            Some(lapin::tcp::OwnedIdentity::PKCS8 { pem, key })
        }
        (None, None) => None,
        _ => return Err(Error::Configuration("a client certificate needs a key, and a key a certificate".to_owned())),
    };
    Ok(lapin::tcp::OwnedTLSConfig { identity, cert_chain: options.ca.clone() })
}

/// Why a connection could not be opened, told apart as far as AMQP does.
fn opening_error(error: &lapin::Error, endpoint: &Endpoint) -> Error {
    if let ErrorKind::ProtocolError(amqp) = error.kind() {
        let reply_text = amqp.get_message().as_str().to_owned();
        return match amqp.get_id() {
            ACCESS_REFUSED => Error::AuthenticationRefused { user: endpoint.user.clone(), reply_text },
            NOT_ALLOWED => Error::VhostRefused { vhost: endpoint.vhost.clone(), reply_text },
            reply_code => Error::Refused { operation: "open the connection".to_owned(), reply_code, reply_text },
        };
    }
    Error::Unreachable { address: endpoint.address.clone(), reason: error.to_string() }
}

fn operation_error(error: &lapin::Error, operation: &str) -> Error {
    match error.kind() {
        ErrorKind::ProtocolError(amqp)
            if !matches!(amqp.kind(), AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED)) =>
        {
            Error::Refused {
                operation: operation.to_owned(),
                reply_code: amqp.get_id(),
                reply_text: amqp.get_message().as_str().to_owned(),
            }
        }
        _ => Error::Disconnected { reason: error.to_string() },
    }
}

/// AMQP 0-9-1 §4.6: delivery_mode 2 survives a restart of the broker in a durable queue.
const PERSISTENT: u8 = 2;

/// AMQP 0-9-1 §1.2: reply-success.
const REPLY_SUCCESS: u16 = 200;
/// AMQP 0-9-1 §1.2: access-refused.
const ACCESS_REFUSED: u16 = 403;
/// AMQP 0-9-1 §1.2: not-found.
const NOT_FOUND: u16 = 404;
/// AMQP 0-9-1 §1.2: not-allowed.
const NOT_ALLOWED: u16 = 530;

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
//! - Its own recovery is silent: calls in flight are never told, and server-named queues come back dead. It stays off.
//! - Receivers of `events_listener` compete: each event reaches one of them. There is one.
//! - `Acker::ack` spawns a task for each ack: we ack by tag on the channel.
//! - `Consumer` buffers without bound: `basic.qos` comes before `basic.consume`, always.
//! - Calling a channel's method inside a consumer's delegate deadlocks: we use the stream.
//! - A lost connection leaves a task behind, its heartbeat's, asleep for half the heartbeat (30 s by default).
//! - A connection is a thread and about 7 MB.
//! - Built without TLS it takes `amqps` for `amqp`: `uri.rs` refuses it.
//! - `ShortString::from` panics above 255 bytes: every name goes through [`short`].

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
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
};

use super::{
    ConnectionOptions,
    transport::{
        ACCESS_REFUSED, Arguments, Event, Events, ExchangeKind, HeaderValue, NOT_ALLOWED, NOT_FOUND, PERSISTENT,
        Properties, Publish, QueueDeclaration, REPLY_SUCCESS, Returned, Settlement, overlong,
    },
    uri::Endpoint,
};
use crate::error::Error;

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
    pub(super) fn events(&self) -> Events {
        Box::pin(LapinEvents(Box::pin(self.connection.events_listener())))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        match self.connection.create_channel().await {
            Ok(channel) => Ok(Channel { channel, numbering: Arc::default() }),
            Err(error) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => {
                Err(Error::NoChannelLeft { channel_max: self.connection.configuration().channel_max() })
            }
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

struct LapinEvents(Pin<Box<dyn Stream<Item = lapin::Event> + Send>>);

impl Stream for LapinEvents {
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
pub(super) struct Channel {
    channel: lapin::Channel,
    /// Held while a publish gets its number and its frames their place.
    numbering: Arc<Mutex<()>>,
}

impl Channel {
    /// Queues the message for sending; nobody waits for the socket.
    ///
    /// An error says that it was certainly not sent.
    pub(super) fn publish(&self, publish: Publish<'_>) -> Result<(), Error> {
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
    pub(super) async fn publish_written(&self, publish: Publish<'_>) -> Result<(), Error> {
        self.publish_for_confirm(publish).await.map(drop)
    }

    /// Publishes on a channel in confirm mode; resolves when the message is on the socket.
    pub(super) async fn publish_for_confirm(&self, publish: Publish<'_>) -> Result<Confirm, Error> {
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
    pub(super) fn queue_for_confirm(&self, publish: Publish<'_>) -> Result<Queued, Error> {
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

    pub(super) async fn republish(
        &self,
        message: &Message,
        queue: &str,
        headers: Vec<(Cow<'static, str>, HeaderValue)>,
    ) -> Result<Confirm, Error> {
        let original = &message.delivery.properties;
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
        self.numbered(self.channel.basic_publish(exchange, routing_key, options, message.body(), properties)).await
    }

    /// Queues an ack, a requeue or a discard for sending.
    pub(super) fn settle(&self, settlement: Settlement) -> Result<(), Error> {
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
    pub(super) fn drain_returned(&self) -> Vec<Returned> {
        match start(self.channel.wait_for_confirms()) {
            Some(Ok(messages)) => messages.iter().map(returned).collect(),
            // Only a channel in confirm mode waits, and a failed one has nothing more to tell.
            Some(Err(_)) | None => Vec::new(),
        }
    }

    pub(super) async fn confirm_select(&self) -> Result<(), Error> {
        self.channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|error| operation_error(&error, "switch to confirm mode"))
    }

    /// A durable exchange.
    pub(super) async fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let kind = match kind {
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
            ExchangeKind::Headers => lapin::ExchangeKind::Headers,
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        self.channel
            .exchange_declare(short(name)?, kind, options, arguments_to_lapin(arguments)?)
            .await
            .map_err(|error| operation_error(&error, &format!("declare exchange '{name}'")))
    }

    pub(super) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
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
    pub(super) async fn queue_exists(&self, queue: &str) -> Result<bool, Error> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(short(queue)?, options, FieldTable::default()).await;
        match declared.map_err(|error| operation_error(&error, &format!("look for queue '{queue}'"))) {
            Ok(_) => Ok(true),
            Err(Error::Refused { reply_code: NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn bind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let arguments = arguments_to_lapin(arguments)?;
        self.channel
            .queue_bind(short(queue)?, short(exchange)?, short(routing_key)?, QueueBindOptions::default(), arguments)
            .await
            .map_err(|error| operation_error(&error, &format!("bind queue '{queue}' to exchange '{exchange}'")))
    }

    /// Bounds the unacknowledged deliveries of consumers started afterwards.
    pub(super) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        self.channel
            .basic_qos(prefetch_count, BasicQosOptions { global: false })
            .await
            .map_err(|error| operation_error(&error, "set the prefetch count"))
    }

    pub(super) async fn consume(&self, queue: &str, consumer_tag: &str, no_ack: bool) -> Result<Consumer, Error> {
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        self.channel
            .basic_consume(short(queue)?, short(consumer_tag)?, options, FieldTable::default())
            .await
            .map(|consumer| Consumer { consumer })
            .map_err(|error| operation_error(&error, &format!("consume from queue '{queue}'")))
    }

    pub(super) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        self.channel
            .basic_cancel(short(consumer_tag)?, BasicCancelOptions::default())
            .await
            .map_err(|error| operation_error(&error, "cancel the consumer"))
    }

    /// Closes the channel. The broker answers after it handled everything sent on it before.
    pub(super) async fn close(&self) -> Result<(), Error> {
        self.channel
            .close(REPLY_SUCCESS, short("done")?)
            .await
            .map_err(|error| operation_error(&error, "close the channel"))
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Confirm, Error>> + Send>>;

/// A publish on its way to the socket.
pub(super) struct Queued {
    sending: Sending,
}

impl Queued {
    /// Resolves when it is on the socket.
    pub(super) async fn written(self) -> Result<Confirm, Error> {
        self.sending.await
    }
}

/// A publish that waits for the broker's word.
#[derive(Debug)]
pub(super) struct Confirm {
    confirm: lapin::PublisherConfirm,
}

impl Confirm {
    /// Acked or not, and the returned message that came inside this confirm, which may be another publish's.
    pub(super) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        match self.confirm.await {
            Ok(confirmation) => Ok((confirmation.is_ack(), confirmation.take_message().as_ref().map(returned))),
            Err(error) => Err(operation_error(&error, "publish")),
        }
    }
}

/// The deliveries of one consumer. Bounded by the prefetch count; unbounded without acks.
#[derive(Debug)]
pub(super) struct Consumer {
    consumer: lapin::Consumer,
}

impl Consumer {
    pub(super) fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        Pin::new(&mut self.consumer).poll_next(cx).map(|delivery| match delivery {
            Some(Ok(delivery)) => Ok(Some(Message { delivery })),
            Some(Err(error)) => Err(operation_error(&error, "consume")),
            None => Ok(None),
        })
    }
}

/// One received message. Properties are read where they lie.
#[derive(Debug)]
pub(super) struct Message {
    delivery: lapin::message::Delivery,
}

impl Message {
    pub(super) fn delivery_tag(&self) -> u64 {
        self.delivery.delivery_tag
    }

    pub(super) fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    pub(super) fn routing_key(&self) -> &str {
        self.delivery.routing_key.as_str()
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.delivery.data
    }

    pub(super) fn content_type(&self) -> Option<&str> {
        self.delivery.properties.content_type().as_ref().map(ShortString::as_str)
    }

    pub(super) fn kind(&self) -> Option<&str> {
        self.delivery.properties.kind().as_ref().map(ShortString::as_str)
    }

    pub(super) fn correlation_id(&self) -> Option<&str> {
        self.delivery.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    pub(super) fn reply_to(&self) -> Option<&str> {
        self.delivery.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        self.delivery.properties.message_id().as_ref().map(ShortString::as_str)
    }

    pub(super) fn app_id(&self) -> Option<&str> {
        self.delivery.properties.app_id().as_ref().map(ShortString::as_str)
    }

    pub(super) fn priority(&self) -> Option<u8> {
        *self.delivery.properties.priority()
    }

    pub(super) fn expiration(&self) -> Option<&str> {
        self.delivery.properties.expiration().as_ref().map(ShortString::as_str)
    }

    pub(super) fn header(&self, name: &str) -> Option<HeaderValue> {
        let headers = self.delivery.properties.headers().as_ref()?;
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
    ShortString::try_new(text).map_err(|_| overlong(bytes))
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

//! The transport that uses lapin, and the only file that names lapin: its traps are contained here.
//!
//! - `basic_publish(..).await` and `basic_ack(..).await` resolve after the socket write, two thread round trips a
//!   call. Their frames are queued by the first poll already, so [`start`] polls once and drops the future.
//! - lapin sends methods before queued messages: an ack overtakes a message that is not on the socket yet, and a
//!   `channel.close` discards it. [`Channel::publish_written`] is the barrier.
//! - The reason why the broker closed a channel reaches consumers and confirms alone: [`Channel::watch`] starts a consumer of
//!   direct replies, which costs the broker nothing, on channels that have neither.
//! - Outside confirm mode returned messages pile up silently: [`Returns`] looks for them from time to time.
//! - In confirm mode a return arrives inside the confirm of any publish: [`Confirm::wait`] hands it over as it is,
//!   to be matched by correlation_id.
//! - Two threads that publish on one channel in confirm mode may get each other's confirm, because lapin numbers a publish
//!   before it queues its frames. [`Channel::publish_for_confirm`] lets one thread at a time do both.
//! - lapin's own recovery is silent: calls in flight never end, and consumers of server-named queues stay dead. It stays off.
//! - Receivers of `events_listener` compete: each event reaches one of them. There is one.
//! - `Acker::ack` spawns a task for each ack: we ack by tag on the channel.
//! - `Consumer` buffers without bound: `basic.qos` comes before `basic.consume`, always.
//! - Calling a channel's method inside a consumer's delegate deadlocks: we use the stream.
//! - A lost connection leaves its heartbeat task behind, asleep for half the heartbeat (5 s by default).
//! - Publishes that are not on the socket yet have no bound, and are not to be seen: [`Unwritten`] counts them by barriers.
//! - A connection is a thread and about 7 MB.
//! - Built without TLS it takes `amqps` for `amqp`: `uri.rs` refuses it.
//! - `ShortString::from` panics above 255 bytes: every name passes through [`short`].

use std::{
    borrow::Cow,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Poll, Waker},
    time::Duration,
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
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    amqp::{
        Arguments, DEADLINE_HEADER, DIRECT_REPLIES, Event, ExchangeKind, HeaderValue, PERSISTENT, Properties, Publish,
        QueueCounts, QueueDeclaration, REPLY_SUCCESS, Refusal, Returned, SECRET_REASON, Settlement, Urgency,
    },
    fields::{short, table},
    limit::{ANSWER_LIMIT, within},
    options::{ConnectionOptions, HEARTBEAT_S},
    uri::{Address, AuthMechanism, Endpoint},
};
use crate::{error::Error, lock::lock, task::AbortOnDrop};

/// One AMQP connection: a socket and lapin's io thread.
#[derive(Debug)]
pub(super) struct Link {
    connection: lapin::Connection,
    was_used: Arc<AtomicBool>,
    unwritten: Arc<Unwritten>,
    address: Option<Arc<Address>>,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        let properties = ConnectionProperties::default().with_connection_name(options.name.as_str().into());
        let mut uri = uri(endpoint);
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let frame_max = uri.query.frame_max.filter(|wanted| *wanted > 0);
        uri.query.frame_max = Some(frame_max.map_or(FRAME_MAX, |wanted| wanted.min(FRAME_MAX)));
        #[cfg(not(feature = "tls"))]
        let connecting = lapin::Connection::connect_uri(uri, properties);
        #[cfg(feature = "tls")]
        let connecting = {
            let runtime = lapin::runtime::default_runtime().map_err(|error| opening_error(&error, endpoint))?;
            let tls = tls_config(&options.tls);
            lapin::Connection::connect_uri_with_config(uri, properties, tls, runtime)
        };
        match connecting.await {
            Ok(connection) => {
                let unwritten = Arc::new(Unwritten::new(options.outbox_max_bytes));
                Ok(Self { connection, was_used: Arc::default(), unwritten, address: endpoint.shown_address() })
            }
            Err(error) => Err(opening_error(&error, endpoint)),
        }
    }

    pub(super) fn events(&self) -> Events {
        Events(Box::pin(self.connection.events_listener()))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn address(&self) -> Option<&Arc<Address>> {
        self.address.as_ref()
    }

    pub(super) fn frame_max_bytes(&self) -> usize {
        match self.connection.configuration().frame_max() {
            0 => FRAME_MAX as usize,
            frame_max => frame_max as usize,
        }
    }

    pub(super) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Relaxed)
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        const OPERATION: &str = "open a channel";
        let opened = async {
            self.connection.create_channel().await.map_err(|error| match error.kind() {
                ErrorKind::ChannelsLimitReached => {
                    Error::NoChannelLeft { channel_max: self.connection.configuration().channel_max() }
                }
                _ => operation_error(&error, OPERATION),
            })
        };
        let channel = within(ANSWER_LIMIT, OPERATION, opened).await?;
        let (numbering, published, watch) = Default::default();
        let (link, was_used) = (self.connection.status().clone(), Arc::clone(&self.was_used));
        let unwritten = Arc::clone(&self.unwritten);
        Ok(Channel { channel, numbering, published, watch, link, was_used, unwritten })
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        let closing = self.connection.close(REPLY_SUCCESS, short("closed by the application")?);
        let closed = tokio::select! {
            closed = closing => closed,
            () = self.ended() => Ok(()),
        };
        match closed {
            Ok(()) => Ok(()),
            // A channel that is opened or closed at the same moment is an error to lapin, which drops the connection at once.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => Ok(()),
            Err(error) => match operation_error(&error, "close the connection") {
                // So is the answer to a method that was under way, such as a cancel of a consumer.
                Error::Refused { reply_code: UNEXPECTED_FRAME, .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    pub(super) async fn update_secret(&self, secret: &str) -> Result<(), Error> {
        let updated = self.connection.update_secret(secret.into(), short(SECRET_REASON)?).await;
        updated.map_err(|error| operation_error(&error, "update the secret"))
    }

    /// Waits until the connection has ended. lapin may tell so to no one who waits for its close: channels that are opened at the
    /// same moment are an error to it.
    async fn ended(&self) {
        let status = self.connection.status();
        while !(status.closed() || status.errored()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// lapin takes a URI in its own form.
fn uri(endpoint: &Endpoint) -> AMQPUri {
    let userinfo = AMQPUserInfo { username: endpoint.user.clone(), password: endpoint.password.clone() };
    AMQPUri {
        scheme: if endpoint.is_tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority { userinfo, host: endpoint.host.clone(), port: endpoint.port },
        vhost: endpoint.vhost.clone(),
        query: AMQPQueryString {
            frame_max: endpoint.frame_max,
            channel_max: endpoint.channel_max,
            heartbeat: endpoint.heartbeat_s,
            connection_timeout: endpoint
                .connection_timeout
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            auth_mechanism: endpoint.auth_mechanism.map(|mechanism| match mechanism {
                AuthMechanism::Plain => SASLMechanism::Plain,
                AuthMechanism::AmqPlain => SASLMechanism::AMQPlain,
                AuthMechanism::Anonymous => SASLMechanism::Anonymous,
                AuthMechanism::External => SASLMechanism::External,
                AuthMechanism::RabbitCrDemo => SASLMechanism::RabbitCrDemo,
            }),
        },
    }
}

/// The events of one connection.
pub(super) struct Events(Pin<Box<dyn Stream<Item = lapin::Event> + Send>>);

impl Events {
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            match poll_fn(|cx| self.0.as_mut().poll_next(cx)).await? {
                lapin::Event::ConnectionBlocked(reason) => return Some(Event::Blocked(reason)),
                lapin::Event::ConnectionUnblocked => return Some(Event::Unblocked),
                lapin::Event::Error(error) => {
                    let reason = error.to_string();
                    return Some(if is_unreadable(error.kind()) {
                        Event::Unreadable(reason)
                    } else {
                        Event::Failed(reason)
                    });
                }
                _ => {}
            }
        }
    }
}

/// Whether lapin cannot read what the broker has sent, and would send again.
fn is_unreadable(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::ParsingError(_) => true,
        // RabbitMQ adds `x-death` to a content header, however large it is.
        ErrorKind::ProtocolError(error) => error.get_message().as_str().starts_with("frame too large"),
        _ => false,
    }
}

/// One AMQP channel.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    channel: lapin::Channel,
    /// Held while a publish gets its number and its frames their place.
    numbering: Arc<Mutex<()>>,
    published: Arc<Published>,
    /// Notices the end of the channel.
    watch: Arc<Mutex<Option<lapin::Consumer>>>,
    link: lapin::ConnectionStatus,
    was_used: Arc<AtomicBool>,
    unwritten: Arc<Unwritten>,
}

impl Channel {
    pub(super) fn note_use(&self) {
        self.was_used.store(true, Ordering::Relaxed);
    }

    /// Lets [`refusal`](Self::refusal) know the reason why the channel has ended.
    pub(super) async fn watch(&self) -> Result<(), Error> {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumed = self.channel.basic_consume(DIRECT_REPLIES.into(), "".into(), options, FieldTable::default());
        let consumer = answered("watch a channel", consumed).await?;
        *lock(&self.watch) = Some(consumer);
        Ok(())
    }

    /// The broker's reason, if it has closed the channel and not the connection. Of a channel that is watched and has ended;
    /// asked again, it has forgotten the reason.
    pub(super) async fn refusal(&self) -> Option<Refusal> {
        let mut watch = lock(&self.watch).take()?;
        // Confirms learn of the end a moment earlier.
        let noticed = timeout(NOTICE_LIMIT, poll_fn(|cx| Pin::new(&mut watch).poll_next(cx))).await;
        Refusal::of(&operation_error(&noticed.ok()??.err()?, "")).filter(|_| self.link.connected())
    }

    pub(super) fn publish(&self, publish: Publish<'_>) -> Result<(), Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short_of(routing_key)?, to_lapin(properties)?);
        let options = BasicPublishOptions { mandatory, immediate: false };
        // Pinned where it is made: lapin's future is a kilobyte.
        let publishing = pin!(self.channel.basic_publish(exchange, routing_key, options, body, properties));
        match start_pinned(publishing) {
            Some(Err(error)) if is_unsent(&error) => Err(operation_error(&error, "publish")),
            // After any other error the channel ends, and its consumers with it.
            Some(_) | None => {
                self.published.note();
                Ok(())
            }
        }
    }

    /// Publishes, unless so much is not on the socket yet that requests must wait; returns whether it has.
    pub(super) fn publish_if_room(&self, publish: Publish<'_>) -> Result<bool, Error> {
        let unwritten = &self.unwritten;
        if unwritten.is_full() {
            return Ok(false);
        }
        if !unwritten.needs_barrier(publish.body.len() + PROPERTIES_BYTES) {
            return self.publish(publish).map(|()| true);
        }
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let begun = self.begin(short(exchange)?, short_of(routing_key)?, mandatory, body, to_lapin(properties)?)?;
        let written = match begun {
            Begun::Over(_) => None,
            Begun::Sending(writing) => Some(writing),
        };
        self.published.note();
        Unwritten::settle_with(unwritten, written);
        Ok(true)
    }

    pub(super) async fn room(&self) {
        self.unwritten.room(|| self.has_ended()).await;
    }

    /// Publishes, and resolves once the message, and every one published before it, is on the socket.
    pub(super) async fn publish_written(&self, publish: Publish<'_>) -> Result<(), Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short_of(routing_key)?, to_lapin(properties)?);
        let options = BasicPublishOptions { mandatory, immediate: false };
        self.published.note();
        let published = self.channel.basic_publish(exchange, routing_key, options, body, properties).await;
        published.map(drop).map_err(|error| operation_error(&error, "publish"))
    }

    pub(super) fn publish_for_confirm(&self, publish: Publish<'_>) -> Result<Confirm, Error> {
        let Publish { exchange, routing_key, mandatory, properties, body } = publish;
        let (exchange, routing_key, properties) = (short(exchange)?, short_of(routing_key)?, to_lapin(properties)?);
        let _one_at_a_time = lock(&self.numbering);
        self.begin(exchange, routing_key, mandatory, body, properties).map(Confirm::from)
    }

    /// Queues the frames of a publish that lives on without its caller: others can be queued after it before it is on the socket.
    fn begin(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        mandatory: bool,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Begun, Error> {
        let options = BasicPublishOptions { mandatory, immediate: false };
        let (channel, body) = (self.channel.clone(), body.to_vec());
        let mut sending: Sending =
            Box::pin(async move { channel.basic_publish(exchange, routing_key, options, &body, properties).await });
        match sending.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) if is_unsent(&error) => Err(operation_error(&error, "publish")),
            Poll::Ready(queued) => Ok(Begun::Over(queued)),
            Poll::Pending => Ok(Begun::Sending(sending)),
        }
    }

    pub(super) fn republish(
        &self,
        message: &Message,
        queue: &str,
        headers: &[(Cow<'static, str>, HeaderValue)],
    ) -> Result<Confirm, Error> {
        let original = &message.delivery.properties;
        // The broker would send copies to the queues that the original's sender named in CC, with the rights of this user.
        let mut table = FieldTable::default();
        for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
            if !matches!(name.as_str(), "CC" | "BCC") {
                table.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in headers {
            table.insert(short(&**name)?, value.into());
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
        let (exchange, queue) = (short("")?, short(queue)?);
        let _one_at_a_time = lock(&self.numbering);
        self.begin(exchange, queue, true, message.body(), properties).map(Confirm::from)
    }

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

    pub(super) fn has_ended(&self) -> bool {
        !self.channel.status().connected()
    }

    pub(super) fn returned(&self) -> Returns {
        Returns {
            channel: self.channel.clone(),
            published: Arc::clone(&self.published),
            found: VecDeque::new(),
            pause: LOOK_FIRST,
            looks_until: Instant::now(),
        }
    }

    pub(super) async fn confirm_select(&self) -> Result<(), Error> {
        answered("switch to confirm mode", self.channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// A durable exchange.
    pub(super) async fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        is_passive: bool,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let kind = match kind {
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
            ExchangeKind::Headers => lapin::ExchangeKind::Headers,
        };
        let options = ExchangeDeclareOptions { passive: is_passive, durable: true, ..Default::default() };
        let declared = self.channel.exchange_declare(short(name)?, kind, options, table(arguments)?);
        answered(&format!("declare exchange '{name}'"), declared).await
    }

    pub(super) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
        let options = QueueDeclareOptions {
            passive: false,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: queue.auto_delete,
            nowait: false,
        };
        let declared = self.channel.queue_declare(short(queue.name)?, options, table(queue.arguments)?);
        answered(&format!("declare queue '{}'", queue.name), declared).await.map(drop)
    }

    pub(super) async fn queue_counts(&self, queue: &str) -> Result<QueueCounts, Error> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(short(queue)?, options, FieldTable::default());
        let found = answered(&format!("look for queue '{queue}'"), declared).await?;
        Ok(QueueCounts { ready: found.message_count(), consumers: found.consumer_count() })
    }

    pub(super) async fn bind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let (arguments, options) = (table(arguments)?, QueueBindOptions::default());
        let bound = self.channel.queue_bind(short(queue)?, short(exchange)?, short(routing_key)?, options, arguments);
        answered(&format!("bind queue '{queue}' to exchange '{exchange}'"), bound).await
    }

    pub(super) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        let set = self.channel.basic_qos(prefetch_count, BasicQosOptions { global: false });
        answered("set the prefetch count", set).await
    }

    pub(super) async fn consume(&self, queue: &str, consumer_tag: &str, no_ack: bool) -> Result<Consumer, Error> {
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        let consumed = self.channel.basic_consume(short(queue)?, short(consumer_tag)?, options, FieldTable::default());
        let consumer = answered(&format!("consume from queue '{queue}'"), consumed).await?;
        Ok(Consumer { consumer })
    }

    pub(super) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        self.channel
            .basic_cancel(short(consumer_tag)?, BasicCancelOptions::default())
            .await
            .map_err(|error| operation_error(&error, "cancel the consumer"))
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        self.channel
            .close(REPLY_SUCCESS, short("done")?)
            .await
            .map_err(|error| operation_error(&error, "close the channel"))
    }
}

type Sending = Pin<Box<dyn Future<Output = lapin::Result<lapin::PublisherConfirm>> + Send>>;

/// A publish after its first poll, which queues its frames.
enum Begun {
    Over(lapin::Result<lapin::PublisherConfirm>),
    Sending(Sending),
}

/// A published message on its way to the socket, and then to its confirm.
pub(crate) struct Confirm {
    sending: Sending,
}

impl From<Begun> for Confirm {
    fn from(begun: Begun) -> Self {
        match begun {
            Begun::Over(queued) => Self { sending: Box::pin(std::future::ready(queued)) },
            Begun::Sending(sending) => Self { sending },
        }
    }
}

impl Confirm {
    pub(super) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        let confirmed = async { self.sending.await?.await };
        match confirmed.await {
            Ok(confirmation) => Ok((confirmation.is_ack(), confirmation.take_message().as_ref().map(returned))),
            Err(error) => Err(operation_error(&error, "publish")),
        }
    }
}

/// The requests of a connection that are not on the socket yet: an upper bound, which falls whenever a barrier has passed. A barrier is
/// the one publish in an eighth of the bound whose future is awaited.
#[derive(Debug)]
struct Unwritten {
    /// From which on requests wait.
    max_bytes: usize,
    bytes: AtomicUsize,
    /// Those before the barrier, and the task that awaits it.
    barrier: Mutex<Option<(usize, AbortOnDrop)>>,
    room: Notify,
}

impl Unwritten {
    fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: AtomicUsize::new(0), barrier: Mutex::default(), room: Notify::new() }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.max_bytes
    }

    /// Counts a request; true if it is to be the next barrier.
    fn needs_barrier(&self, bytes: usize) -> bool {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        bytes >= self.max_bytes / BARRIERS && lock(&self.barrier).is_none()
    }

    /// Awaits a barrier: all that was counted until now is on the socket then.
    fn settle_with(unwritten: &Arc<Self>, writing: Option<Sending>) {
        let mut barrier = lock(&unwritten.barrier);
        let before = unwritten.bytes.load(Ordering::Relaxed);
        let Some(writing) = writing else {
            unwritten.bytes.fetch_sub(before, Ordering::Relaxed);
            return unwritten.room.notify_waiters();
        };
        let weak = Arc::downgrade(unwritten);
        let task = AbortOnDrop::spawn(async move {
            // An error says that the channel has ended: nothing of it will be written.
            drop(writing.await);
            let Some(unwritten) = weak.upgrade() else { return };
            if let Some((before, _)) = lock(&unwritten.barrier).take() {
                unwritten.bytes.fetch_sub(before, Ordering::Relaxed);
            }
            unwritten.room.notify_waiters();
        });
        *barrier = Some((before, task));
    }

    async fn room(&self, has_ended: impl Fn() -> bool) {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if !self.is_full() || has_ended() {
                return;
            }
            // The end of a connection gives no sign here.
            drop(timeout(LOOK_LAST, room).await);
        }
    }
}

/// lapin reserves 32 times what is agreed on: a broker that offers 4 GiB would end the process.
const FRAME_MAX: u32 = 131_072;
/// AMQP 0-9-1 §1.2: unexpected-frame. lapin ends a connection with it.
const UNEXPECTED_FRAME: u16 = 505;
/// In the bytes that may be unwritten.
const BARRIERS: usize = 8;
/// Those of a request besides its body, about.
const PROPERTIES_BYTES: usize = 256;

/// Whether something was published on a channel since the last look for returned messages.
#[derive(Debug, Default)]
struct Published {
    is_news: AtomicBool,
    looker: Notify,
}

impl Published {
    fn note(&self) {
        if !self.is_news.swap(true, Ordering::AcqRel) {
            self.looker.notify_one();
        }
    }
}

/// Looks for the returned messages of a channel. lapin gives no sign of them, so the looks follow a publish: the first after
/// [`LOOK_FIRST`], the next ones after twice the pause each, until [`LOOKS_END`] after the last publish, and for as long as a
/// returned message is awaited.
pub(crate) struct Returns {
    channel: lapin::Channel,
    published: Arc<Published>,
    found: VecDeque<Returned>,
    pause: Duration,
    looks_until: Instant,
}

impl Returns {
    pub(super) async fn next(&mut self, is_awaited: impl Fn() -> bool) -> Option<Returned> {
        loop {
            if let Some(returned) = self.next_ready() {
                return Some(returned);
            }
            if !self.channel.status().connected() {
                return None;
            }
            let now = Instant::now();
            if self.published.is_news.swap(false, Ordering::AcqRel) {
                self.pause = LOOK_FIRST;
                self.looks_until = now + LOOKS_END;
            } else {
                self.pause = (self.pause * 2).min(LOOK_LAST);
            }
            let published = self.published.looker.notified();
            if now >= self.looks_until && !is_awaited() {
                published.await;
            } else if self.pause == LOOK_FIRST {
                sleep(self.pause).await;
            } else {
                tokio::select! {
                    () = published => {}
                    () = sleep(self.pause) => {}
                }
            }
        }
    }

    pub(super) fn next_ready(&mut self) -> Option<Returned> {
        if self.found.is_empty()
            && let Some(Ok(messages)) = start(self.channel.wait_for_confirms())
        {
            self.found.extend(messages.iter().map(returned));
        }
        self.found.pop_front()
    }
}

/// The end of a channel reaches its consumers within this time.
const NOTICE_LIMIT: Duration = Duration::from_secs(1);

/// Most calls are answered within this time.
const LOOK_FIRST: Duration = Duration::from_millis(2);
/// A return that was slower than all looks before is found at most this late.
const LOOK_LAST: Duration = Duration::from_millis(250);
/// A message that no call awaits is found by then, or after the next publish.
const LOOKS_END: Duration = Duration::from_secs(60);

/// The deliveries of one consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
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

/// One received message.
#[derive(Debug)]
pub(crate) struct Message {
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

    pub(super) fn correlation_id_bytes(&self) -> Option<&[u8]> {
        self.correlation_id().map(str::as_bytes)
    }

    pub(super) fn reply_to(&self) -> Option<&[u8]> {
        self.delivery.properties.reply_to().as_ref().map(|name| name.as_str().as_bytes())
    }

    pub(super) fn message_id(&self) -> Option<&[u8]> {
        self.delivery.properties.message_id().as_ref().map(|id| id.as_str().as_bytes())
    }

    pub(super) fn user_id(&self) -> Option<&str> {
        self.delivery.properties.user_id().as_ref().map(ShortString::as_str)
    }

    pub(super) fn app_id(&self) -> Option<&str> {
        self.delivery.properties.app_id().as_ref().map(ShortString::as_str)
    }

    pub(super) fn priority(&self) -> Option<u8> {
        *self.delivery.properties.priority()
    }

    pub(super) fn has_reply_to(&self) -> bool {
        self.reply_to().is_some_and(|reply_to| !reply_to.is_empty())
    }

    /// `None` when absent or not a number.
    pub(super) fn expiration_ms(&self) -> Option<u64> {
        self.delivery.properties.expiration().as_ref()?.as_str().parse().ok()
    }

    pub(super) fn urgency(&self) -> Urgency<'_> {
        Urgency {
            reply_to: self.reply_to(),
            budget_ms: self.expiration_ms(),
            deadline_ms: self.header(DEADLINE_HEADER).and_then(|deadline_ms| deadline_ms.as_i64()),
        }
    }

    pub(super) fn has_more_headers(&self) -> bool {
        self.delivery.properties.headers().is_some()
    }

    pub(super) fn header(&self, name: &str) -> Option<HeaderValue> {
        let headers = self.delivery.properties.headers().as_ref()?;
        value_from_lapin(headers.inner().get(name)?)
    }

    /// All but `rpc-deadline`.
    pub(super) fn headers(&self) -> Vec<(Cow<'static, str>, HeaderValue)> {
        let Some(headers) = self.delivery.properties.headers() else { return Vec::new() };
        let others = headers.inner().iter().filter(|(name, _)| name.as_str() != DEADLINE_HEADER);
        others.filter_map(|(name, value)| Some((Cow::Owned(name.to_string()), value_from_lapin(value)?))).collect()
    }
}

/// Whether a publish failed before its frames were queued. After any other error they may have been sent.
fn is_unsent(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidChannelState(..))
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
            user_id: None,
            headers,
            deadline_ms: Some(deadline_ms),
        } if headers.is_empty() => {
            let mut headers = FieldTable::default();
            headers.insert(DEADLINE_HEADER.into(), AMQPValue::LongLongInt(deadline_ms));
            Ok(BasicProperties::default()
                .with_headers(headers)
                .with_correlation_id(short_of(&correlation_id)?)
                .with_reply_to(short_of(reply_to)?)
                .with_expiration(short(expiration_ms.to_string())?))
        }
        Properties {
            content_type: None,
            kind: None,
            correlation_id: Some(correlation_id),
            reply_to: None,
            expiration_ms: None,
            message_id: None,
            delivery_mode: None,
            priority: None,
            user_id: None,
            headers,
            deadline_ms: None,
        } if headers.is_empty() => Ok(BasicProperties::default().with_correlation_id(short_of(&correlation_id)?)),
        properties => any_to_lapin(properties),
    }
}

/// Text as it is. lapin receives no other bytes, so there are none to send back.
fn short_of(bytes: &[u8]) -> Result<ShortString, Error> {
    short(String::from_utf8_lossy(bytes))
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
        out = out.with_correlation_id(short_of(&correlation_id)?);
    }
    if let Some(reply_to) = properties.reply_to {
        out = out.with_reply_to(short_of(reply_to)?);
    }
    if let Some(message_id) = properties.message_id {
        out = out.with_message_id(short_of(&message_id)?);
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
    if let Some(user_id) = properties.user_id {
        out = out.with_user_id(short(user_id)?);
    }
    if !properties.headers.is_empty() || properties.deadline_ms.is_some() {
        let mut headers = FieldTable::default();
        for (name, value) in &properties.headers {
            headers.insert(short(&**name)?, value.into());
        }
        if let Some(deadline_ms) = properties.deadline_ms {
            headers.insert(DEADLINE_HEADER.into(), AMQPValue::LongLongInt(deadline_ms));
        }
        out = out.with_headers(headers);
    }
    Ok(out)
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

#[cfg(feature = "tls")]
fn tls_config(options: &super::tls::ClientTlsOptions) -> lapin::tcp::OwnedTLSConfig {
    let identity = options.identity.as_ref().map(|identity| lapin::tcp::OwnedIdentity::PKCS8 {
        pem: identity.cert.clone().into_bytes(),
        key: identity.key.clone().into_bytes(),
    });
    lapin::tcp::OwnedTLSConfig { identity, cert_chain: options.ca.clone() }
}

/// The error of a connection that could not be opened, as precise as AMQP allows.
fn opening_error(error: &lapin::Error, endpoint: &Endpoint) -> Error {
    if let ErrorKind::ProtocolError(amqp) = error.kind() {
        return endpoint.refusal(amqp.get_id(), amqp.get_message().as_str());
    }
    endpoint.unreachable(&error.to_string())
}

/// Waits for the broker's answer, at most for [`ANSWER_LIMIT`].
async fn answered<T>(operation: &str, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    let answer = async { answer.await.map_err(|error| operation_error(&error, operation)) };
    within(ANSWER_LIMIT, operation, answer).await
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

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::Broker;

    async fn channel(broker: &Broker) -> (Link, Channel) {
        let endpoint = Endpoint::parse(broker.uri()).expect("the broker's URI is one");
        let link = Link::open(&endpoint, &ConnectionOptions::default()).await.expect("the broker is there");
        let channel = link.channel().await.expect("the connection is open");
        (link, channel)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_return_is_looked_for_as_long_as_a_call_awaits_it() {
        let broker = Broker::start().await.unwrap();
        let (_link, channel) = channel(&broker).await;
        let mut returns = channel.returned();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        // Not by `Channel::publish`, after which the looks would go on for a minute.
        let published =
            channel.channel.basic_publish("".into(), "missing".into(), options, b"", BasicProperties::default());
        drop(published.await.unwrap());
        let returned = timeout(Duration::from_secs(10), returns.next(|| true)).await.expect("it is looked for");
        assert_eq!(returned.unwrap().reply_text, "NO_ROUTE");
    }

    proptest! {
        /// Not for IPv6 addresses, which lapin's parser ignores. An empty password it takes for none, which is `guest`.
        #[test]
        fn every_uri_that_lapin_takes_is_taken_for_the_same(
            uri in "(amqp|AMQP|amqps):/{1,3}(u?(:[pq%4@:]{1,4})?@)?(h|H\\.%61|127\\.0\\.0\\.1)?(:[0-9]{0,4})?\
                (/[vw@:%2f/]{0,5})?(\\?[xy@]{0,2}(=[12@]?)?(&(heartbeat|frame_max|channel_max|connection_timeout)=[0-9]{0,5}){0,3}\
                (&auth_mechanism=(plain|EXTERNAL|x))?)?(#[f@]{0,2})?"
        ) {
            let theirs = uri.parse::<AMQPUri>();
            match Endpoint::parse(&uri) {
                Ok(mut endpoint) => {
                    if endpoint.password.is_empty() {
                        endpoint.password = "guest".to_owned();
                    }
                    prop_assert_eq!(theirs, Ok(super::uri(&endpoint)));
                }
                Err(Error::InvalidUri { reason }) if reason.contains("feature 'tls'") => {}
                Err(_) => prop_assert!(theirs.is_err(), "{:?}", theirs),
            }
        }
    }
}

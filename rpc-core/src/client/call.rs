//! One call: built, sent, awaited.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Client, WhenFull,
    oneway::{OneWay, Settled},
    reply_queue::{NotSent, Outcome},
};
use crate::{
    codec::{Codec, CodecError},
    connection::{
        Backoff, Delivery,
        transport::{HeaderValue, Publish},
    },
    envelope::{self, CallHeaders, ReplyStatus},
    error::{CallError, Error, TimeoutStage},
    service::{MethodDescriptor, ServiceDescriptor},
    topology,
    worker::inherited_deadline,
};

/// A call that is not sent yet: set its options, then `.await` it.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(call: rpc_core::Call<u64>) -> Result<(), rpc_core::CallError> {
/// let answer = call.timeout(Duration::from_millis(200)).priority(5).await?;
/// # Ok(()) }
/// ```
///
/// A call of a one-way method resolves when the broker has confirmed the request.
///
/// # Cancel safety
/// Dropping the future before it resolves cancels the call: the service's workers are told, a handler that runs is
/// stopped at its next `.await` (unless its method is `#[rpc(no_cancel)]`, or on a thread already), a request that is
/// queued is skipped. That message may be lost or come too late, so what was sent may have been executed; a reply that
/// comes later is dropped. So it is with a call whose deadline has passed.
#[must_use = "a call is sent when it is awaited"]
pub struct Call<T, E = Infallible> {
    request: Request,
    decode_error: DecodeError<E>,
    // `fn() -> T`: a call holds no `T`, so it is `Send` whatever `T` is.
    result: std::marker::PhantomData<fn() -> T>,
}

/// How a service error is read.
pub(super) type DecodeError<E> = fn(Codec, &[u8]) -> Result<E, CodecError>;

/// For methods whose handler cannot fail.
pub(super) fn no_service_error(_: Codec, _: &[u8]) -> Result<Infallible, CodecError> {
    Err(Codec::unexpected_service_error())
}

struct Request {
    client: Client,
    service: &'static ServiceDescriptor,
    method: &'static MethodDescriptor,
    body: Result<Vec<u8>, CodecError>,
    timeout: Option<Duration>,
    headers: CallHeaders,
}

impl<T, E> Call<T, E> {
    pub(super) fn new(
        client: Client,
        service: &'static ServiceDescriptor,
        method: usize,
        body: Result<Vec<u8>, CodecError>,
        decode_error: DecodeError<E>,
    ) -> Self {
        let method = &service.methods[method];
        let headers = CallHeaders::default();
        let request = Request { client, service, method, body, timeout: None, headers };
        Self { request, decode_error, result: std::marker::PhantomData }
    }

    /// The budget of the whole call, waiting for a connection included.
    ///
    /// Inside a handler it is cut to what the caller of that handler still waits.
    ///
    /// The default is the method's (`#[rpc(timeout = "…")]`), else [`ClientOptions::timeout`](crate::ClientOptions).
    pub const fn timeout(mut self, budget: Duration) -> Self {
        self.request.timeout = Some(budget);
        self
    }

    /// Waits for ever. The call still ends when the connection is lost.
    pub const fn without_timeout(self) -> Self {
        self.timeout(Duration::MAX)
    }

    /// The AMQP priority; it matters when the service queue was declared with `x-max-priority`.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.request.headers.priority = Some(priority);
        self
    }

    /// Adds a header, which the handler reads through its `&Context`.
    ///
    /// Names that start with `rpc-` are the framework's, and RabbitMQ 4 drops those that start with `x-`.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) -> Self {
        self.request.headers.headers.push((name.into(), value.into()));
        self
    }

    /// Sends this `message_id`, by which the handler recognises the same logical call.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.headers.message_id = Some(key.into());
        self
    }
}

impl<T, E> fmt::Debug for Call<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("routing_key", &self.request.method.routing_key)
            .field("timeout", &self.request.timeout)
            .field("headers", &self.request.headers)
            .finish_non_exhaustive()
    }
}

impl<T, E> IntoFuture for Call<T, E>
where
    T: DeserializeOwned + 'static,
    E: 'static,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = CallFuture<T, E>;

    fn into_future(self) -> CallFuture<T, E> {
        let Self { request, decode_error, .. } = self;
        CallFuture { running: Box::pin(run(request, decode_error)) }
    }
}

/// A call under way; resolves with its result.
#[must_use = "a call is sent when it is awaited"]
pub struct CallFuture<T, E = Infallible> {
    running: Pin<Box<dyn Future<Output = Result<T, CallError<E>>> + Send>>,
}

impl<T, E> Future for CallFuture<T, E> {
    type Output = Result<T, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.running.as_mut().poll(cx)
    }
}

impl<T, E> fmt::Debug for CallFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

async fn run<T: DeserializeOwned, E>(request: Request, decode_error: DecodeError<E>) -> Result<T, CallError<E>> {
    let method = request.method;
    let default_codec = request.service.codec;
    let outcome = if method.oneway {
        // `()` in every codec: a one-way method has no other result.
        Box::pin(request.send_oneway()).await.map(|()| default_codec.decode(default_codec.nothing()))
    } else {
        match request.send().await {
            Ok(Reply { delivery, status }) => {
                let codec = delivery.content_type().map_or(Some(default_codec), Codec::from_content_type);
                let Some(codec) = codec else {
                    let content_type = delivery.content_type().unwrap_or_default();
                    return Err(CallError::BadReply { message: format!("unknown content_type '{content_type}'") });
                };
                match status {
                    Status::Ok => Ok(codec.decode(delivery.body())),
                    Status::Service => match decode_error(codec, delivery.body()) {
                        Ok(error) => return Err(CallError::Service(error)),
                        Err(error) => Ok(Err(error)),
                    },
                }
            }
            Err(error) => Err(error),
        }
    };
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CallError::BadReply { message: error.to_string() }),
        Err(error) => {
            tracing::debug!(routing_key = method.routing_key, code = error.code(), %error, "call failed");
            Err(error.map_service(|never| match never {}))
        }
    }
}

/// A reply whose body is worth reading.
struct Reply {
    delivery: Delivery,
    status: Status,
}

enum Status {
    Ok,
    Service,
}

impl Request {
    /// The budget, and the moment it ends.
    fn deadline(&self) -> (Duration, Instant) {
        let budget = self.timeout.or(self.method.timeout).unwrap_or_else(|| self.client.options().timeout);
        let now = Instant::now();
        let deadline = now.checked_add(budget).unwrap_or_else(|| now + FOREVER);
        match inherited_deadline() {
            Some(inherited) if inherited < deadline => (inherited.saturating_duration_since(now), inherited),
            _ => (budget, deadline),
        }
    }

    /// The body, if it can be sent.
    fn take_body(&mut self) -> Result<Vec<u8>, CallError> {
        if self.client.is_shut_down() {
            return Err(CallError::Shutdown { maybe_executed: false });
        }
        let body = std::mem::replace(&mut self.body, Ok(Vec::new()))
            .map_err(|error| CallError::BadRequest { message: error.to_string() })?;
        let limit_bytes = self.client.options().max_body_bytes;
        if body.len() > limit_bytes {
            return Err(CallError::PayloadTooLarge { body_bytes: body.len(), limit_bytes });
        }
        Ok(body)
    }

    /// The default exchange in the bare profile.
    fn exchange(&self) -> &'static str {
        if self.service.queue.is_some() { "" } else { topology::EXCHANGE }
    }

    /// Sends until there is an answer, or the deadline has come, or a request that may have been executed must not
    /// be sent again.
    async fn send(mut self) -> Result<Reply, CallError> {
        let (budget, deadline) = self.deadline();
        let body = self.take_body()?;
        if self.method.idempotent {
            self.headers.message_id.get_or_insert_with(|| self.client.next_message_id());
        }
        let mut sent = 0;
        let mut backoff = Backoff::new(RESEND_DELAY_MIN, RESEND_DELAY_MAX);
        loop {
            let maybe_executed = match self.attempt(budget, deadline, &body, sent + 1).await {
                Ok(reply) => return Ok(reply),
                // What an earlier send may have done outweighs that this one was not even taken.
                Err(Failure::Final(error)) if sent > 0 && !error.maybe_executed() => {
                    return Err(CallError::Disconnected { maybe_executed: true });
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost { maybe_executed }) => maybe_executed,
            };
            sent += u32::from(maybe_executed);
            let is_resendable = self.method.idempotent || !maybe_executed;
            if !is_resendable || self.client.is_shut_down() {
                return Err(CallError::Disconnected { maybe_executed });
            }
            if Box::pin(timeout_at(deadline, sleep(backoff.pause()))).await.is_err() {
                return Err(match sent {
                    0 => CallError::Timeout { stage: TimeoutStage::Connecting, after: budget },
                    _ => CallError::Disconnected { maybe_executed: true },
                });
            }
            tracing::debug!(routing_key = self.method.routing_key, sent, "sending again");
        }
    }

    /// Sends once and waits for what becomes of it.
    async fn attempt(&self, budget: Duration, deadline: Instant, body: &[u8], number: u32) -> Result<Reply, Failure> {
        let timed_out = |stage| Failure::Final(CallError::Timeout { stage, after: budget });
        if number == 1 && deadline <= Instant::now() {
            return Err(timed_out(TimeoutStage::Connecting));
        }
        let session = match self.client.current_session() {
            Some(session) => session,
            // Boxed: opening a session is rare, and its state would triple that of every call.
            None => match Box::pin(timeout_at(deadline, self.client.session())).await {
                Ok(session) => session.map_err(not_connected)?,
                // What an earlier attempt may have done outweighs where this one stood.
                Err(_) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
                Err(_) => return Err(timed_out(TimeoutStage::Connecting)),
            },
        };
        let mut waiter = loop {
            match session.begin(deadline) {
                Ok(waiter) => break waiter,
                Err(NotSent::Full) if self.client.options().when_full == WhenFull::Refuse => {
                    let message = format!("{} calls are in flight", self.client.options().max_in_flight);
                    return Err(Failure::Final(CallError::Overloaded { message }));
                }
                Err(NotSent::Full) => {
                    if Box::pin(timeout_at(deadline, session.freed())).await.is_err() {
                        return Err(timed_out(TimeoutStage::InFlightLimit));
                    }
                }
                Err(error) => return Err(not_sent(error)),
            }
        };
        let remaining = (budget < FOREVER).then(|| deadline.saturating_duration_since(Instant::now()));
        let mut call = self.headers.clone();
        if number > 1 {
            call.headers.push((envelope::ATTEMPT_HEADER.into(), number.into()));
        }
        let reply_to = session.reply_queue();
        let properties = envelope::call_properties(self.service, self.method, waiter.id(), reply_to, remaining, call);
        let publish = Publish {
            exchange: self.exchange(),
            routing_key: self.method.routing_key,
            mandatory: true,
            properties,
            body,
        };
        tracing::trace!(routing_key = self.method.routing_key, correlation_id = waiter.id(), "call");
        let cancellable = (!self.method.no_cancel).then_some(self.service.name);
        waiter.publish(publish, cancellable).map_err(not_sent)?;
        match waiter.outcome().await {
            Outcome::Reply(delivery) => {
                match envelope::reply_status(delivery.kind(), |name| delivery.header(name), budget) {
                    ReplyStatus::Ok => Ok(Reply { delivery, status: Status::Ok }),
                    ReplyStatus::Service => Ok(Reply { delivery, status: Status::Service }),
                    ReplyStatus::Failed(error) => Err(Failure::Final(error)),
                }
            }
            Outcome::Returned { reply_text } => Err(Failure::Final(self.no_such_service(reply_text))),
            Outcome::Expired => Err(timed_out(TimeoutStage::Unknown)),
            Outcome::Disconnected => Err(Failure::Lost { maybe_executed: true }),
            Outcome::Shutdown => Err(Failure::Final(CallError::Shutdown { maybe_executed: true })),
        }
    }

    async fn send_oneway(mut self) -> Result<(), CallError> {
        let (budget, deadline) = self.deadline();
        let timed_out = |stage| CallError::Timeout { stage, after: budget };
        let body = self.take_body()?;
        let channel = match timeout_at(deadline, self.client.confirm_channel()).await {
            Ok(channel) => channel.map_err(|error| not_connected(error).into_call_error())?,
            Err(_) => return Err(timed_out(TimeoutStage::Connecting)),
        };
        let call = std::mem::take(&mut self.headers);
        let message_id = self.client.next_message_id();
        let (settled, outcome) = oneshot::channel();
        let request = OneWay {
            exchange: self.exchange(),
            routing_key: self.method.routing_key,
            properties: envelope::oneway_properties(self.service, self.method, message_id, call),
            body,
            settled,
        };
        match timeout_at(deadline, channel.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(CallError::Disconnected { maybe_executed: false }),
            Err(_) => return Err(timed_out(TimeoutStage::InFlightLimit)),
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(Settled::Confirmed)) => Ok(()),
            Ok(Ok(Settled::Returned { reply_text })) => Err(self.no_such_service(reply_text)),
            Ok(Ok(Settled::Nacked)) => {
                Err(CallError::Overloaded { message: "the broker refused the request (basic.nack)".to_owned() })
            }
            Ok(Ok(Settled::Lost { maybe_sent })) => Err(CallError::Disconnected { maybe_executed: maybe_sent }),
            Ok(Ok(Settled::Refused(error))) => Err(not_sent(NotSent::Refused(error)).into_call_error()),
            // The channel's task is gone: shut down, or the last client with it.
            Ok(Err(_)) if self.client.is_shut_down() => Err(CallError::Shutdown { maybe_executed: true }),
            Ok(Err(_)) => Err(CallError::Disconnected { maybe_executed: true }),
            Err(_) => Err(timed_out(TimeoutStage::Unconfirmed)),
        }
    }

    fn no_such_service(&self, reply_text: String) -> CallError {
        CallError::NoSuchService { routing_key: self.method.routing_key.to_owned(), reply_text }
    }
}

/// Why an attempt gave no answer.
enum Failure {
    /// The call ends so.
    Final(CallError),
    /// The session was lost: another attempt may be made.
    Lost { maybe_executed: bool },
}

impl Failure {
    /// For those who make no other attempt.
    fn into_call_error(self) -> CallError {
        match self {
            Self::Final(error) => error,
            Self::Lost { maybe_executed } => CallError::Disconnected { maybe_executed },
        }
    }
}

fn not_connected(error: Error) -> Failure {
    match error {
        Error::Disconnected { .. } => Failure::Lost { maybe_executed: false },
        Error::Closed { .. } => Failure::Final(CallError::Disconnected { maybe_executed: false }),
        error => Failure::Final(CallError::Topology(error)),
    }
}

fn not_sent(reason: NotSent) -> Failure {
    match reason {
        NotSent::Refused(error) => Failure::Final(CallError::BadRequest { message: error.to_string() }),
        NotSent::Ended | NotSent::Full => Failure::Lost { maybe_executed: false },
    }
}

/// Pauses before a call is sent again: until the loss of a connection is known to all, a new session may be lost too.
const RESEND_DELAY_MIN: Duration = Duration::from_millis(10);
const RESEND_DELAY_MAX: Duration = Duration::from_secs(1);

/// Thirty years: a deadline that never comes, and that every timer can hold.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

//! Sends a call: at once when the session is ready, otherwise by a boxed future that waits and sends again.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Client, WhenFull,
    in_flight::{NotSent, Outcome, Waiter},
    oneway::{OneWay, Settled},
    reply_queue::Session,
};
use crate::{
    budget::inherited_deadline,
    call_error::{CallError, TimeoutStage},
    codec::{Codec, CodecError},
    connection::{Backoff, Delivery, Verdict, amqp::Publish},
    envelope::{self, CallHeaders, ReplyStatus},
    error::Error,
    service::{MethodDescriptor, ServiceDescriptor},
    topology,
};

/// A request, and the limits it is sent within.
pub(super) struct Request {
    client: Client,
    service: &'static ServiceDescriptor,
    method: &'static MethodDescriptor,
    body: Result<Vec<u8>, CodecError>,
    pub(super) timeout: Option<Duration>,
    pub(super) headers: CallHeaders,
    /// Fixed when the call is first polled.
    limits: Option<Limits>,
}

/// How long a call may take.
#[derive(Clone, Copy)]
struct Limits {
    budget: Duration,
    /// The end of the budget, counted from the first poll.
    deadline: Instant,
}

/// A reply whose body is to be decoded.
pub(super) enum Reply {
    Result(Delivery),
    ServiceError(Delivery),
    /// The broker confirmed a one-way request.
    Nothing,
}

/// Why the fast path of a call ended.
pub(super) enum Obstacle {
    /// The call ends with this error.
    Final(CallError),
    /// The method is one-way: the broker's confirm is awaited instead of a reply.
    OneWay,
    /// No session is open, the session is full, or the broker has blocked the connection.
    NotYet,
    /// The first attempt failed.
    Failed(Failure),
}

type Detour = Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send>>;

impl Obstacle {
    /// The future that continues the call, or the error that ends it.
    pub(super) fn over(self, request: &mut Request) -> Result<Detour, CallError> {
        Ok(match self {
            Self::Final(error) | Self::Failed(Failure::Final(error)) => return Err(error),
            Self::OneWay => Box::pin(request.take().send_oneway()),
            Self::NotYet => Box::pin(request.take().send(None)),
            Self::Failed(failure) => Box::pin(request.take().send(Some(failure))),
        })
    }
}

impl Request {
    pub(super) fn new(
        client: Client,
        service: &'static ServiceDescriptor,
        method: &'static MethodDescriptor,
        body: Result<Vec<u8>, CodecError>,
    ) -> Self {
        Self { client, service, method, body, timeout: None, headers: CallHeaders::default(), limits: None }
    }

    pub(super) fn codec(&self) -> Codec {
        self.service.codec
    }

    pub(super) fn service_name(&self) -> &'static str {
        self.service.name
    }

    pub(super) fn method_name(&self) -> &'static str {
        self.method.name
    }

    pub(super) fn routing_key(&self) -> &'static str {
        self.method.routing_key
    }

    /// Moves the request out, into a future of its own.
    fn take(&mut self) -> Self {
        Self {
            client: self.client.clone(),
            service: self.service,
            method: self.method,
            body: std::mem::replace(&mut self.body, Ok(Vec::new())),
            timeout: self.timeout,
            headers: std::mem::take(&mut self.headers),
            limits: self.limits,
        }
    }

    fn limits(&mut self) -> Limits {
        if let Some(limits) = self.limits {
            return limits;
        }
        let budget = self.timeout.or(self.method.timeout).unwrap_or_else(|| self.client.options().timeout);
        let now = Instant::now();
        let deadline = now.checked_add(budget).unwrap_or_else(|| now + FOREVER);
        let limits = match inherited_deadline() {
            Some(inherited) if inherited < deadline => {
                Limits { budget: inherited.saturating_duration_since(now), deadline: inherited }
            }
            _ => Limits { budget, deadline },
        };
        *self.limits.insert(limits)
    }

    /// Sends the request if it can be sent at once.
    pub(super) fn begin(&mut self) -> Result<Waiter, Obstacle> {
        let limits = self.limits();
        self.check().map_err(Obstacle::Final)?;
        if self.method.oneway {
            return Err(Obstacle::OneWay);
        }
        if self.method.idempotent && self.headers.message_id.is_none() {
            self.headers.message_id = Some(self.client.next_message_id());
        }
        if limits.budget.is_zero() {
            return Err(Obstacle::Final(self.timed_out(TimeoutStage::Connecting)));
        }
        if self.client.is_blocked() {
            return Err(Obstacle::NotYet);
        }
        if self.service.max_length.is_some() {
            // The queue may refuse the request, so it needs a publisher confirm.
            return Err(Obstacle::NotYet);
        }
        let session = self.client.current_session().ok_or(Obstacle::NotYet)?;
        let mut waiter = session.begin(limits.deadline).map_err(|_| Obstacle::NotYet)?;
        // The budget starts with this poll, so all of it is left.
        self.publish(&session, &mut waiter, limits.budget, 1).map_err(Obstacle::Failed)?;
        Ok(waiter)
    }

    /// Whether the call can be sent at all.
    fn check(&self) -> Result<(), CallError> {
        if self.client.is_shut_down() {
            return Err(CallError::shutdown(self.service.name, self.method.name, false));
        }
        let body_bytes = match &self.body {
            Ok(body) => body.len(),
            Err(error) => return Err(self.bad_request(error)),
        };
        let limit_bytes = self.client.options().max_body_bytes;
        match body_bytes > limit_bytes {
            true => Err(CallError::payload_too_large(self.service.name, self.method.name, body_bytes, limit_bytes)),
            false => Ok(()),
        }
    }

    /// The default exchange in the bare profile.
    fn exchange(&self) -> &'static str {
        if self.service.queue.is_some() { "" } else { topology::EXCHANGE }
    }

    fn publish(&self, session: &Session, waiter: &mut Waiter, remaining: Duration, number: u32) -> Result<(), Failure> {
        let publish = self.message(session, waiter.id(), remaining, number);
        waiter.publish(publish, self.cancellable()).map_err(|reason| self.not_sent(reason))
    }

    /// Publishes on the channel in confirm mode.
    async fn publish_confirmed(
        &self,
        session: &Session,
        waiter: &mut Waiter,
        remaining: Duration,
        number: u32,
    ) -> Result<(), Failure> {
        let publish = self.message(session, waiter.id(), remaining, number);
        let connection = &self.client.inner.connection;
        let published = session.publish_confirmed(connection, waiter, publish, self.cancellable()).await;
        published.map_err(|reason| self.not_sent(reason))
    }

    /// The service to notify when the call is cancelled; `None` for `#[rpc(no_cancel)]`.
    fn cancellable(&self) -> Option<&'static str> {
        (!self.method.no_cancel).then_some(self.service.name)
    }

    fn message<'a>(
        &'a self,
        session: &'a Session,
        correlation_id: u64,
        remaining: Duration,
        number: u32,
    ) -> Publish<'a> {
        let mut call = match self.headers.is_empty() {
            true => CallHeaders::default(),
            false => self.headers.clone(),
        };
        if number > 1 {
            call.headers.push((envelope::ATTEMPT_HEADER.into(), number.into()));
        }
        let remaining = (remaining < FOREVER).then_some(remaining);
        let reply_to = session.reply_queue();
        tracing::trace!(routing_key = self.method.routing_key, correlation_id, "call");
        Publish {
            exchange: self.exchange(),
            routing_key: self.method.routing_key,
            mandatory: true,
            properties: envelope::call_properties(self.service, self.method, correlation_id, reply_to, remaining, call),
            body: self.body.as_deref().unwrap_or_default(),
        }
    }

    /// Turns the end of an attempt into a reply, or into the reason for its failure.
    pub(super) fn conclude(&self, outcome: Outcome) -> Result<Reply, Failure> {
        let (service, method) = (self.service, self.method);
        let error = match outcome {
            Outcome::Reply(delivery) => {
                let header = |name: &str| delivery.header(name);
                match envelope::reply_status(service, method, delivery.kind(), header, self.budget()) {
                    ReplyStatus::Ok => return Ok(Reply::Result(delivery)),
                    ReplyStatus::Service => return Ok(Reply::ServiceError(delivery)),
                    ReplyStatus::Failed(error) => error,
                }
            }
            Outcome::Disconnected => return Err(Failure::Lost { maybe_executed: true }),
            Outcome::Returned { reply_text } => self.no_such_service(&reply_text),
            Outcome::Refused => CallError::overloaded(service.name, method.name, "the queue is full"),
            Outcome::Expired => self.timed_out(TimeoutStage::Unknown),
            Outcome::Shutdown => CallError::shutdown(service.name, method.name, true),
        };
        Err(Failure::Final(error))
    }

    /// Sends until a reply arrives, the deadline passes, or a request that may have been executed must not be sent
    /// again. `failure` is that of a first attempt.
    async fn send(mut self, failure: Option<Failure>) -> Result<Reply, CallError> {
        let limits = self.limits();
        let mut sent = 0;
        // None before the first resend: the next session is one of a connection that lives.
        let mut backoff: Option<Backoff> = None;
        let mut outcome = match failure {
            Some(failure) => Err(failure),
            None => self.attempt(limits, 1).await,
        };
        loop {
            let maybe_executed = match outcome {
                Ok(reply) => return Ok(reply),
                // A broker that restarted without the service's queue: a worker will declare it again.
                Err(Failure::Final(CallError::NoSuchService { .. })) if sent > 0 && self.method.idempotent => false,
                // An earlier attempt may have been executed, so report that, not that this attempt was rejected.
                Err(Failure::Final(error)) if sent > 0 && !error.maybe_executed() => {
                    return Err(self.disconnected(true));
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost { maybe_executed }) => maybe_executed,
            };
            sent += u32::from(maybe_executed);
            let is_resendable = self.method.idempotent || !maybe_executed;
            if !is_resendable || self.client.is_shut_down() {
                return Err(self.disconnected(maybe_executed));
            }
            let pause = backoff.as_mut().map_or(Duration::ZERO, Backoff::pause);
            backoff.get_or_insert_with(|| Backoff::new(RESEND_DELAY_INITIAL, RESEND_DELAY_MAX));
            if Instant::now() >= limits.deadline || timeout_at(limits.deadline, wait(pause)).await.is_err() {
                return Err(match sent {
                    0 => self.timed_out(TimeoutStage::Connecting),
                    _ => self.disconnected(true),
                });
            }
            tracing::debug!(routing_key = self.method.routing_key, sent, "sending again");
            outcome = self.attempt(limits, sent + 1).await;
        }
    }

    /// Sends once and waits for the end of that attempt.
    async fn attempt(&self, limits: Limits, number: u32) -> Result<Reply, Failure> {
        let timed_out = |stage| Failure::Final(self.timed_out(stage));
        if timeout_at(limits.deadline, self.client.unblocked()).await.is_err() {
            return Err(timed_out(if number > 1 { TimeoutStage::Unknown } else { TimeoutStage::Blocked }));
        }
        let session = match timeout_at(limits.deadline, self.client.session()).await {
            Ok(session) => session.map_err(|error| self.not_connected(error))?,
            // An earlier attempt may have been executed, so report that, not that this one is still connecting.
            Err(_) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
            Err(_) => return Err(timed_out(TimeoutStage::Connecting)),
        };
        let mut waiter = loop {
            match session.begin(limits.deadline) {
                Ok(waiter) => break waiter,
                Err(NotSent::Full) if self.client.options().when_full == WhenFull::Refuse => {
                    let message = format!("{} calls are in flight", self.client.options().max_in_flight);
                    let error = CallError::overloaded(self.service.name, self.method.name, message);
                    return Err(Failure::Final(error));
                }
                Err(NotSent::Full) => {
                    if timeout_at(limits.deadline, session.freed()).await.is_err() {
                        return Err(timed_out(TimeoutStage::InFlightLimit));
                    }
                }
                Err(reason) => return Err(self.not_sent(reason)),
            }
        };
        let remaining = match limits.budget < FOREVER {
            true => limits.deadline.saturating_duration_since(Instant::now()),
            false => limits.budget,
        };
        if self.service.max_length.is_none() {
            self.publish(&session, &mut waiter, remaining, number)?;
        } else {
            let publishing = self.publish_confirmed(&session, &mut waiter, remaining, number);
            match timeout_at(limits.deadline, publishing).await {
                Ok(published) => published?,
                Err(_) => return Err(timed_out(TimeoutStage::Unconfirmed)),
            }
        }
        self.conclude(waiter.outcome().await)
    }

    async fn send_oneway(mut self) -> Result<Reply, CallError> {
        let limits = self.limits();
        let body = std::mem::replace(&mut self.body, Ok(Vec::new())).unwrap_or_default();
        if timeout_at(limits.deadline, self.client.unblocked()).await.is_err() {
            return Err(self.timed_out(TimeoutStage::Blocked));
        }
        let channel = match timeout_at(limits.deadline, self.client.confirm_channel()).await {
            Ok(channel) => channel.map_err(|error| self.last_failure(self.not_connected(error)))?,
            Err(_) => return Err(self.timed_out(TimeoutStage::Connecting)),
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
        match timeout_at(limits.deadline, channel.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.disconnected(false)),
            Err(_) => return Err(self.timed_out(TimeoutStage::InFlightLimit)),
        }
        match timeout_at(limits.deadline, outcome).await {
            Ok(Ok(Settled::Sent(Verdict::Confirmed))) => Ok(Reply::Nothing),
            Ok(Ok(Settled::Sent(Verdict::Returned { reply_text }))) => Err(self.no_such_service(&reply_text)),
            Ok(Ok(Settled::Sent(Verdict::Refused))) => {
                let message = "the broker refused the request (basic.nack)";
                Err(CallError::overloaded(self.service.name, self.method.name, message))
            }
            Ok(Ok(Settled::Sent(Verdict::Lost))) => Err(self.disconnected(true)),
            Ok(Ok(Settled::NotSent)) => Err(self.disconnected(false)),
            Ok(Ok(Settled::Refused(error))) => Err(self.bad_request(&error)),
            // The channel's task has ended: the client was shut down, or its last clone was dropped.
            Ok(Err(_)) if self.client.is_shut_down() => {
                Err(CallError::shutdown(self.service.name, self.method.name, true))
            }
            Ok(Err(_)) => Err(self.disconnected(true)),
            Err(_) => Err(self.timed_out(TimeoutStage::Unconfirmed)),
        }
    }

    fn budget(&self) -> Duration {
        self.limits.map_or(Duration::ZERO, |limits| limits.budget)
    }

    fn timed_out(&self, stage: TimeoutStage) -> CallError {
        CallError::timeout(self.service.name, self.method.name, stage, self.budget())
    }

    fn disconnected(&self, maybe_executed: bool) -> CallError {
        CallError::disconnected(self.service.name, self.method.name, maybe_executed)
    }

    fn bad_request(&self, reason: &dyn fmt::Display) -> CallError {
        CallError::bad_request(self.service.name, self.method.name, reason.to_string())
    }

    fn no_such_service(&self, reply_text: &str) -> CallError {
        let message = format!("no queue is bound with routing key '{}' ({reply_text})", self.method.routing_key);
        CallError::no_such_service(self.service.name, self.method.name, message)
    }

    fn not_connected(&self, error: Error) -> Failure {
        match error {
            Error::Disconnected { .. } => Failure::Lost { maybe_executed: false },
            Error::Closed { .. } => Failure::Final(self.disconnected(false)),
            error => Failure::Final(CallError::topology(self.service.name, self.method.name, error)),
        }
    }

    fn not_sent(&self, reason: NotSent) -> Failure {
        match reason {
            NotSent::Refused(error) => Failure::Final(self.bad_request(&error)),
            NotSent::Ended | NotSent::Full => Failure::Lost { maybe_executed: false },
        }
    }

    /// The error of a call that is not sent again.
    fn last_failure(&self, failure: Failure) -> CallError {
        match failure {
            Failure::Final(error) => error,
            Failure::Lost { maybe_executed } => self.disconnected(maybe_executed),
        }
    }
}

/// Why an attempt failed.
pub(super) enum Failure {
    /// The call ends with this error.
    Final(CallError),
    /// The session was lost: the request may be sent again.
    Lost { maybe_executed: bool },
}

/// Sleeps, unless there is nothing to wait for: a timer costs at least a millisecond.
async fn wait(pause: Duration) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
}

/// Pauses before a call is sent for the third time and later: a request that ends its channel each time (RabbitMQ closes the
/// channel of a message that is too large) must not be sent in a tight loop.
const RESEND_DELAY_INITIAL: Duration = Duration::from_millis(10);
const RESEND_DELAY_MAX: Duration = Duration::from_secs(1);

/// Thirty years: a deadline that never comes, and that every timer can hold.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

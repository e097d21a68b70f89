//! What a call sends, and how: at once when it can, else over detours.

use std::{future::Future, pin::Pin, time::Duration};

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
    codec::{Codec, CodecError},
    connection::{Backoff, Delivery, Verdict, amqp::Publish},
    envelope::{self, CallHeaders, ReplyStatus},
    error::{CallError, Error, TimeoutStage},
    service::{MethodDescriptor, ServiceDescriptor},
    topology,
};

/// A request and what is known of its sending.
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
    /// All of it.
    budget: Duration,
    /// When it ends.
    deadline: Instant,
}

impl Limits {
    fn timed_out(self, stage: TimeoutStage) -> CallError {
        CallError::Timeout { method: "", stage, after: self.budget }
    }
}

/// A reply worth reading.
pub(super) enum Reply {
    Result(Delivery),
    ServiceError(Delivery),
    /// To a one-way request.
    Nothing,
}

/// Why a call did not just go out and come back.
pub(super) enum Obstacle {
    /// It ends so.
    Final(CallError),
    /// It is one-way: nobody replies.
    OneWay,
    /// There is no session, or no place in it.
    NotYet,
    /// It was sent, or tried to be.
    Failed(Failure),
}

type Detour = Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send>>;

impl Obstacle {
    /// The way around it; the error is the call's when there is none.
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

    pub(super) fn routing_key(&self) -> &'static str {
        self.method.routing_key
    }

    /// All of it, for a future of its own.
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
            return Err(Obstacle::Final(limits.timed_out(TimeoutStage::Connecting)));
        }
        if self.client.is_blocked() {
            return Err(Obstacle::NotYet);
        }
        if self.service.max_length.is_some() {
            // The broker's word takes longer.
            return Err(Obstacle::NotYet);
        }
        let session = self.client.current_session().ok_or(Obstacle::NotYet)?;
        let mut waiter = session.begin(limits.deadline).map_err(|_| Obstacle::NotYet)?;
        // Nothing of the budget is spent yet.
        self.publish(&session, &mut waiter, limits.budget, 1).map_err(Obstacle::Failed)?;
        Ok(waiter)
    }

    /// Whether the call can be sent at all.
    fn check(&self) -> Result<(), CallError> {
        if self.client.is_shut_down() {
            return Err(CallError::Shutdown { method: "", maybe_executed: false });
        }
        match &self.body {
            Err(error) => Err(CallError::BadRequest { message: error.to_string() }),
            Ok(body) => {
                let limit_bytes = self.client.options().max_body_bytes;
                match body.len() > limit_bytes {
                    true => Err(CallError::PayloadTooLarge { method: "", body_bytes: body.len(), limit_bytes }),
                    false => Ok(()),
                }
            }
        }
    }

    /// The default exchange in the bare profile.
    fn exchange(&self) -> &'static str {
        if self.service.queue.is_some() { "" } else { topology::EXCHANGE }
    }

    fn publish(&self, session: &Session, waiter: &mut Waiter, remaining: Duration, number: u32) -> Result<(), Failure> {
        let publish = self.message(session, waiter.id(), remaining, number);
        waiter.publish(publish, self.cancellable()).map_err(not_sent)
    }

    /// Publishes where the broker says what becomes of it.
    async fn publish_confirmed(
        &self,
        session: &Session,
        waiter: &mut Waiter,
        remaining: Duration,
        number: u32,
    ) -> Result<(), Failure> {
        let publish = self.message(session, waiter.id(), remaining, number);
        let connection = &self.client.inner.connection;
        session.publish_confirmed(connection, waiter, publish, self.cancellable()).await.map_err(not_sent)
    }

    /// The service whose workers are told when the call is given up.
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

    /// What the end of an attempt means for the call.
    pub(super) fn conclude(&self, outcome: Outcome) -> Result<Reply, Failure> {
        let budget = self.limits.map_or(Duration::ZERO, |limits| limits.budget);
        match outcome {
            Outcome::Reply(delivery) => {
                match envelope::reply_status(delivery.kind(), |name| delivery.header(name), budget) {
                    ReplyStatus::Ok => Ok(Reply::Result(delivery)),
                    ReplyStatus::Service => Ok(Reply::ServiceError(delivery)),
                    ReplyStatus::Failed(error) => Err(Failure::Final(error)),
                }
            }
            Outcome::Returned { reply_text } => Err(Failure::Final(self.no_such_service(reply_text))),
            Outcome::Refused => Err(Failure::Final(CallError::Overloaded { message: "the queue is full".to_owned() })),
            Outcome::Expired => {
                Err(Failure::Final(CallError::Timeout { method: "", stage: TimeoutStage::Unknown, after: budget }))
            }
            Outcome::Disconnected => Err(Failure::Lost { maybe_executed: true }),
            Outcome::Shutdown => Err(Failure::Final(CallError::Shutdown { method: "", maybe_executed: true })),
        }
    }

    /// Sends until there is an answer, or the deadline has come, or a request that may have been executed must not
    /// be sent again. `failure` is what became of a first attempt.
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
                // A broker that came back without the service's queue gets it when a worker is back.
                Err(Failure::Final(CallError::NoSuchService { .. })) if sent > 0 && self.method.idempotent => false,
                // What an earlier send may have done outweighs that this one was not even taken.
                Err(Failure::Final(error)) if sent > 0 && !error.maybe_executed() => {
                    return Err(CallError::Disconnected { method: "", maybe_executed: true });
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost { maybe_executed }) => maybe_executed,
            };
            sent += u32::from(maybe_executed);
            let is_resendable = self.method.idempotent || !maybe_executed;
            if !is_resendable || self.client.is_shut_down() {
                return Err(CallError::Disconnected { method: "", maybe_executed });
            }
            let pause = backoff.as_mut().map_or(Duration::ZERO, Backoff::pause);
            backoff.get_or_insert_with(|| Backoff::new(RESEND_DELAY_INITIAL, RESEND_DELAY_MAX));
            if Instant::now() >= limits.deadline || timeout_at(limits.deadline, wait(pause)).await.is_err() {
                return Err(match sent {
                    0 => limits.timed_out(TimeoutStage::Connecting),
                    _ => CallError::Disconnected { method: "", maybe_executed: true },
                });
            }
            tracing::debug!(routing_key = self.method.routing_key, sent, "sending again");
            outcome = self.attempt(limits, sent + 1).await;
        }
    }

    /// Sends once and waits for what becomes of it.
    async fn attempt(&self, limits: Limits, number: u32) -> Result<Reply, Failure> {
        let timed_out = |stage| Failure::Final(limits.timed_out(stage));
        if timeout_at(limits.deadline, self.client.unblocked()).await.is_err() {
            return Err(timed_out(if number > 1 { TimeoutStage::Unknown } else { TimeoutStage::Blocked }));
        }
        let session = match timeout_at(limits.deadline, self.client.session()).await {
            Ok(session) => session.map_err(not_connected)?,
            // What an earlier attempt may have done outweighs where this one stood.
            Err(_) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
            Err(_) => return Err(timed_out(TimeoutStage::Connecting)),
        };
        let mut waiter = loop {
            match session.begin(limits.deadline) {
                Ok(waiter) => break waiter,
                Err(NotSent::Full) if self.client.options().when_full == WhenFull::Refuse => {
                    let message = format!("{} calls are in flight", self.client.options().max_in_flight);
                    return Err(Failure::Final(CallError::Overloaded { message }));
                }
                Err(NotSent::Full) => {
                    if timeout_at(limits.deadline, session.freed()).await.is_err() {
                        return Err(timed_out(TimeoutStage::InFlightLimit));
                    }
                }
                Err(error) => return Err(not_sent(error)),
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
            return Err(limits.timed_out(TimeoutStage::Blocked));
        }
        let channel = match timeout_at(limits.deadline, self.client.confirm_channel()).await {
            Ok(channel) => channel.map_err(|error| not_connected(error).into_call_error())?,
            Err(_) => return Err(limits.timed_out(TimeoutStage::Connecting)),
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
            Ok(Err(_)) => return Err(CallError::Disconnected { method: "", maybe_executed: false }),
            Err(_) => return Err(limits.timed_out(TimeoutStage::InFlightLimit)),
        }
        match timeout_at(limits.deadline, outcome).await {
            Ok(Ok(Settled::Sent(Verdict::Confirmed))) => Ok(Reply::Nothing),
            Ok(Ok(Settled::Sent(Verdict::Returned { reply_text }))) => Err(self.no_such_service(reply_text)),
            Ok(Ok(Settled::Sent(Verdict::Refused))) => {
                Err(CallError::Overloaded { message: "the broker refused the request (basic.nack)".to_owned() })
            }
            Ok(Ok(Settled::Sent(Verdict::Lost))) => Err(CallError::Disconnected { method: "", maybe_executed: true }),
            Ok(Ok(Settled::NotSent)) => Err(CallError::Disconnected { method: "", maybe_executed: false }),
            Ok(Ok(Settled::Refused(error))) => Err(not_sent(NotSent::Refused(error)).into_call_error()),
            // The channel's task is gone: shut down, or the last client with it.
            Ok(Err(_)) if self.client.is_shut_down() => Err(CallError::Shutdown { method: "", maybe_executed: true }),
            Ok(Err(_)) => Err(CallError::Disconnected { method: "", maybe_executed: true }),
            Err(_) => Err(limits.timed_out(TimeoutStage::Unconfirmed)),
        }
    }

    fn no_such_service(&self, reply_text: String) -> CallError {
        CallError::NoSuchService { routing_key: self.method.routing_key.to_owned(), reply_text }
    }
}

/// Why an attempt gave no answer.
pub(super) enum Failure {
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
            Self::Lost { maybe_executed } => CallError::Disconnected { method: "", maybe_executed },
        }
    }
}

fn not_connected(error: Error) -> Failure {
    match error {
        Error::Disconnected { .. } => Failure::Lost { maybe_executed: false },
        Error::Closed { .. } => Failure::Final(CallError::Disconnected { method: "", maybe_executed: false }),
        error => Failure::Final(CallError::Topology(error)),
    }
}

fn not_sent(reason: NotSent) -> Failure {
    match reason {
        NotSent::Refused(error) => Failure::Final(CallError::BadRequest { message: error.to_string() }),
        NotSent::Ended | NotSent::Full => Failure::Lost { maybe_executed: false },
    }
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

//! A request: sent at once when all is open; otherwise `resend.rs` and `tell.rs` wait and send.

use std::time::Duration;

use bytes::Bytes;
use tokio::{runtime::Handle, time::Instant};

use super::{
    Client,
    attempt::AttemptOf,
    clock,
    in_flight::{NotSent, Outcome, Waiter},
    kept::outside,
    line::Line,
    opening::Exchange,
    pending::Tag,
    reach::Nack,
};
use crate::{
    budget::{self, inherited_deadline},
    call_error::{CallError, ErrorDetails, TimeoutStage},
    codec::{Codec, CodecError},
    connection::{
        Delivery,
        amqp::{Properties, Publish},
    },
    envelope::{self, CallHeaders, ReplyStatus},
    error::Error,
    nesting::NestedCall,
    service::{MethodDescriptor, ServiceDescriptor},
};

/// A request, and the limits it is sent within.
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) service: &'static ServiceDescriptor,
    pub(super) method: &'static MethodDescriptor,
    /// Its place in the service.
    pub(super) method_index: usize,
    pub(super) body: Result<Vec<u8>, CodecError>,
    pub(super) timeout: Option<Duration>,
    pub(super) headers: CallHeaders,
    /// By which workers recognise the call: the caller's own, or one that the method needs.
    pub(super) message_id: Option<String>,
    /// Fixed when the call is first polled.
    pub(super) limits: Option<Limits>,
    /// The call is one of a handler, which may leave its slot meanwhile.
    nested: Option<NestedCall>,
    /// The logical call of which this is an attempt, behind the layers of its client.
    pub(super) attempt_of: Option<AttemptOf>,
}

/// How long a call may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) budget: Duration,
    /// The end of the budget, counted from the first poll.
    pub(super) deadline: Instant,
}

/// A reply whose body is to be decoded.
pub(super) enum Reply {
    Result(Delivery),
    ServiceError(Delivery),
    /// The broker confirmed a one-way request.
    Nothing,
    /// A layer gave it, perhaps that of the worker.
    Layered(LayeredReply),
}

/// A result, or the service's error, that came through layers.
pub(super) struct LayeredReply {
    /// Of an error, what it says of itself.
    pub(super) error: Option<Option<Box<ErrorDetails>>>,
    pub(super) codec: Codec,
    pub(super) body: Bytes,
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

impl Request {
    #[inline]
    pub(super) fn new(
        client: Client,
        service: &'static ServiceDescriptor,
        method_index: usize,
        body: Result<Vec<u8>, CodecError>,
    ) -> Self {
        Self {
            client,
            service,
            method: &service.methods[method_index],
            method_index,
            body,
            timeout: None,
            headers: CallHeaders::default(),
            message_id: None,
            limits: None,
            nested: None,
            attempt_of: None,
        }
    }

    /// An attempt of a logical call, within its limits.
    #[inline]
    pub(super) fn new_attempt(
        client: &Client,
        attempt: AttemptOf,
        limits: Limits,
        headers: CallHeaders,
        body: Vec<u8>,
    ) -> Self {
        let method = attempt.call.method;
        // Attempts are not counted, so any index will do.
        let request = Self::new(client.clone(), attempt.call.service, 0, Ok(body));
        Self { method, headers, limits: Some(limits), attempt_of: Some(attempt), ..request }
    }

    /// Notes that the call has ended: its handler goes on.
    pub(super) fn end(&mut self) {
        self.nested = None;
    }

    pub(super) fn codec(&self) -> Codec {
        self.service.codec
    }

    pub(super) fn max_depth(&self) -> u32 {
        self.service.max_depth
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
    pub(super) fn take(&mut self) -> Self {
        Self {
            client: self.client.clone(),
            service: self.service,
            method: self.method,
            method_index: self.method_index,
            body: std::mem::replace(&mut self.body, Ok(Vec::new())),
            timeout: self.timeout,
            headers: std::mem::take(&mut self.headers),
            message_id: self.message_id.take(),
            limits: self.limits,
            nested: self.nested.take(),
            attempt_of: self.attempt_of.take(),
        }
    }

    pub(super) fn limits(&mut self) -> Limits {
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
    #[inline]
    pub(super) fn begin(&mut self) -> Result<Waiter, Obstacle> {
        let Ok(here) = Handle::try_current() else {
            return Err(Obstacle::Final(self.topology(outside())));
        };
        let limits = self.limits();
        self.check().map_err(Obstacle::Final)?;
        if self.method.oneway {
            self.inherit(budget::forwarded());
            return Err(Obstacle::OneWay);
        }
        match budget::nested_call() {
            None => {}
            Some(Ok(nested)) => {
                self.inherit(nested.forwarded());
                self.nested = Some(nested);
            }
            Some(Err(reason)) => {
                let error = CallError::overloaded(self.service.name, self.method.name, reason);
                return Err(Obstacle::Final(error));
            }
        }
        if self.method.idempotent {
            self.identify();
        }
        if limits.budget.is_zero() {
            return Err(Obstacle::Final(self.timed_out(TimeoutStage::Connecting)));
        }
        if self.client.is_blocked() {
            return Err(Obstacle::NotYet);
        }
        let line = self.client.current_line(self.exchange()).ok_or(Obstacle::NotYet)?;
        // The session's timers stand still with their runtime, so a call from another one has a timer of its own.
        if self.needs_confirm(&line) || line.session.runtime != here.id() {
            return Err(Obstacle::NotYet);
        }
        let mut waiter = line.begin(limits.deadline, self.tag(&line, false)).map_err(|_| Obstacle::NotYet)?;
        // The budget starts with this poll, so all of it is left.
        match self.publish(&line, &mut waiter, limits.budget, 1) {
            Ok(()) => Ok(waiter),
            Err(Failure::NoRoom) => Err(Obstacle::NotYet),
            Err(failure) => Err(Obstacle::Failed(failure)),
        }
    }

    /// Whether the call can be sent at all.
    fn check(&self) -> Result<(), CallError> {
        if self.client.is_shut_down() {
            return Err(CallError::shutdown(self.service.name, self.method.name, false));
        }
        if let Some((name, _)) = self.headers.headers.iter().find(|(name, _)| envelope::is_reserved(name)) {
            return Err(
                self.bad_request(&format_args!("the header {name} is reserved for the broker: choose another name"))
            );
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

    /// The exchange that it is meant for: the default exchange in the bare profile.
    pub(super) fn exchange(&self) -> Exchange {
        match (self.service.queue, &self.nested) {
            (Some(_), _) => Exchange::Default,
            (None, None) => Exchange::Requests,
            (None, Some(_)) => Exchange::Nested,
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// Whether the broker may refuse the request alone: its queue may be full, or not be reached, or it is larger than all before.
    pub(super) fn needs_confirm(&self, line: &Line) -> bool {
        !line.reaches(self.method) || !self.is_plain(line)
    }

    /// Whether the broker takes the request if it reaches its queue.
    fn is_plain(&self, line: &Line) -> bool {
        self.service.max_length.is_none() && line.session.in_flight.sizes.is_accepted(self.body().len())
    }

    pub(super) fn tag(&self, line: &Line, is_confirmed: bool) -> Tag {
        Tag {
            exchange: line.exchange.index() as u8,
            is_confirmed,
            is_idempotent: self.method.idempotent,
            body_bytes: u32::try_from(self.body().len()).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn publish(
        &self,
        line: &Line,
        waiter: &mut Waiter,
        remaining: Duration,
        number: u32,
    ) -> Result<(), Failure> {
        let correlation_id = waiter.correlation_id();
        let publish = self.message(line, correlation_id.as_bytes(), remaining, self.attempt_number(number));
        let published = line.publish(waiter, publish, self.cancellable()).map_err(|reason| self.not_sent(reason));
        if published.is_ok() {
            self.note_sent();
        }
        published
    }

    /// Publishes on the channel in confirm mode.
    pub(super) async fn publish_confirmed(
        &self,
        line: &Line,
        waiter: &mut Waiter,
        remaining: Duration,
        number: u32,
    ) -> Result<(), Failure> {
        let correlation_id = waiter.correlation_id();
        let publish = self.message(line, correlation_id.as_bytes(), remaining, self.attempt_number(number));
        // Dropped while it waits for room, it may have been sent.
        self.note_sent();
        let published = line.publish_confirmed(waiter, publish, self.method, self.cancellable()).await;
        published.map_err(|reason| match reason {
            // Without confirms rather than not at all.
            NotSent::Refused(Error::NoChannelLeft { .. }) if self.is_plain(line) => {
                line.note_reached(self.method);
                Failure::Lost { maybe_executed: false }
            }
            reason => self.not_sent(reason),
        })
    }

    /// That of the logical call, if this is an attempt of one.
    pub(super) fn message_id(&self) -> Option<&str> {
        match &self.attempt_of {
            Some(attempt) => attempt.call.message_id.as_deref(),
            None => self.message_id.as_deref(),
        }
    }

    /// The number of an attempt, given that of the core's own loop.
    pub(super) fn attempt_number(&self, number: u32) -> u32 {
        self.attempt_of.as_ref().map_or(number, |attempt| attempt.call.progress.next_number())
    }

    /// Notes that the broker may have the request.
    pub(super) fn note_sent(&self) {
        if let Some(attempt) = &self.attempt_of {
            attempt.note_sent();
        }
    }

    /// The service to notify when the call is cancelled; `None` for `#[rpc(no_cancel)]`.
    fn cancellable(&self) -> Option<&'static str> {
        (!self.method.no_cancel).then_some(self.service.name)
    }

    #[inline]
    fn message<'a>(
        &'a self,
        line: &'a Line,
        correlation_id: &'a [u8],
        remaining: Duration,
        number: u32,
    ) -> Publish<'a> {
        let reply_to = line.session.reply_to();
        let mut properties = self.properties(reply_to, correlation_id, remaining, number);
        properties.user_id = line.session.in_flight.users.own();
        Publish {
            exchange: line.exchange.name(),
            routing_key: self.method.routing_key.as_bytes(),
            mandatory: true,
            properties,
            body: self.body(),
        }
    }

    /// All but the `user_id`. Inlined in spite of its second caller: the properties are 200 bytes, which would be copied.
    #[inline(always)]
    pub(super) fn properties<'a>(
        &'a self,
        reply_to: &'a str,
        correlation_id: &'a [u8],
        remaining: Duration,
        number: u32,
    ) -> Properties<'a> {
        let mut call = match self.headers.is_empty() {
            true => CallHeaders::default(),
            false => self.headers.clone(),
        };
        if number > 1 {
            call.headers.push((envelope::ATTEMPT_HEADER.into(), number.into()));
        }
        if let Some(nested) = &self.nested {
            call.headers.push((envelope::DEPTH_HEADER.into(), nested.depth().into()));
            if nested.is_within_retry() {
                call.headers.push((envelope::WITHIN_RETRY_HEADER.into(), true.into()));
            }
        }
        let limits = self.limits.filter(|_| remaining < FOREVER);
        let wait = limits.map(|limits| (remaining, clock::unix_ms(limits.deadline)));
        tracing::trace!(routing_key = self.method.routing_key, correlation_id = %correlation_id.escape_ascii(), "call");
        let mut properties = envelope::call_properties(self.service, self.method, correlation_id, reply_to, wait, call);
        properties.message_id = self.message_id().map(|id| id.as_bytes().into());
        properties
    }

    /// Turns the end of an attempt into a reply, or into the reason for its failure.
    pub(super) fn conclude(&self, outcome: Outcome) -> Result<Reply, Failure> {
        let (service, method) = (self.service, self.method);
        let error = match outcome {
            Outcome::Reply(delivery) => {
                self.client.inner.seen.note(service);
                let header = |name: &str| delivery.header(name);
                match envelope::reply_status(service, method, delivery.kind(), header, self.budget()) {
                    ReplyStatus::Ok => return Ok(Reply::Result(delivery)),
                    ReplyStatus::Service => return Ok(Reply::ServiceError(delivery)),
                    ReplyStatus::Failed(error) => error,
                }
            }
            Outcome::Disconnected => return Err(Failure::Lost { maybe_executed: true }),
            Outcome::Unsent => return Err(Failure::Lost { maybe_executed: false }),
            Outcome::TooLarge { limit_bytes } => self.too_large(limit_bytes),
            Outcome::Denied(refusal) => self.denied(&refusal),
            Outcome::Returned { reply_text } => self.returned(&reply_text),
            Outcome::Refused(nack) => return Err(self.refused(nack)),
            Outcome::Expired => self.timed_out(TimeoutStage::Unknown),
            Outcome::Shutdown => CallError::shutdown(service.name, method.name, true),
        };
        Err(Failure::Final(error))
    }

    /// A queue with a bound may be the reason of a nack, so the next one is its last.
    pub(super) fn refused(&self, nack: Nack) -> Failure {
        let (service, method) = (self.service, self.method);
        match nack {
            Nack::Full => Failure::Final(CallError::overloaded(service.name, method.name, "the queue is full")),
            Nack::Young if service.max_length.is_some() => Failure::Final(self.not_taken()),
            Nack::Replaced | Nack::Young => Failure::Refused,
        }
    }
}

/// Why an attempt failed.
pub(super) enum Failure {
    /// The call ends with this error.
    Final(CallError),
    /// The session was lost: the request may be sent again.
    Lost { maybe_executed: bool },
    /// The broker refused the request, which may reach its queue by another channel.
    Refused,
    /// The connection has no room for the request: it was not sent.
    NoRoom,
}

/// Thirty years: a deadline that never comes, and that every timer can hold.
pub(super) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

//! A call of a client with layers: through them, to the core, and back.
//!
//! ```text
//!  Request::pass ──► outermost layer ─ … ─► innermost layer ──► Sender::run ──► Attempt ──► Sending
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Client,
    attempt::AttemptOf,
    layered::Layered,
    request::{FOREVER, LayeredReply, Limits, Obstacle, Reply, Request},
    sending::{Sending, codec_of},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::Delivery,
    envelope::CallHeaders,
    layer::{
        self, Body, BoxError, BoxFuture, Core, Extensions, Foreign, Layers, LazyHeaders, LogicalCall, Outcome,
        Progress, Response, RpcLayer, Run,
    },
};

impl Client {
    /// A client that shares everything with this one, and whose calls also pass through `layer`.
    ///
    /// The layers of a client stand in the order in which they are added, the first one outermost. Adding one makes the services of
    /// all of them anew: a limit that the earlier client is to share belongs into the layer, as in
    /// `tower::limit::GlobalConcurrencyLimitLayer`. See the guide's chapter on [layers](crate::guide::layers).
    pub fn layer(&self, layer: impl RpcLayer) -> Self {
        let layers = Layers::with(self.layered.as_ref().map(|layered| &layered.layers), layer);
        let core = Arc::new(Sender { client: Self { inner: Arc::clone(&self.inner), layered: None } });
        Self { inner: Arc::clone(&self.inner), layered: Some(Arc::new(Layered { layers, core })) }
    }
}

/// The service behind the innermost layer: sends.
struct Sender {
    /// Without layers.
    client: Client,
}

impl Core for Sender {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let layer::Request { call, headers, body, .. } = request;
        let body = body.into_vec();
        let budget = call.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let deadline = call.deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        let headers = CallHeaders { priority: call.priority, headers: headers.into_inner() };
        let attempt = AttemptOf::new(call);
        let limits = Limits { budget, deadline };
        let sending = Sending::new(Request::new_attempt(&self.client, attempt.clone(), limits, headers, body));
        Box::pin(Attempt { sending, attempt, is_awaited: false })
    }
}

/// An attempt under way. It ends at the call's deadline.
struct Attempt {
    sending: Sending,
    attempt: AttemptOf,
    /// By the task of the call, which therefore needs no timer.
    is_awaited: bool,
}

impl Future for Attempt {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_awaited {
            self.is_awaited = self.attempt.call.progress.begin_awaiting();
        }
        self.sending.poll(cx).map(|outcome| {
            let response = self.sending.request.response(outcome);
            if !response.maybe_executed() {
                self.attempt.note_not_executed();
            }
            Ok(response)
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_awaited {
            self.attempt.call.progress.end_awaiting();
        }
    }
}

impl Request {
    /// Begins to pass the call through the layers of its client.
    pub(super) fn enter_layers(&mut self, layered: &Layered) -> Result<Box<Passing>, Obstacle> {
        let limits = self.limits();
        let body = std::mem::replace(&mut self.body, Ok(Vec::new()));
        let body = body.map_err(|error| Obstacle::Final(self.bad_request(&error)))?;
        let CallHeaders { priority, headers } = std::mem::take(&mut self.headers);
        let message_id = self.message_id.take().unwrap_or_else(|| self.client.next_message_id());
        let call = Arc::new(LogicalCall {
            service: self.service,
            method: self.method,
            budget: limits.budget,
            deadline: (limits.budget < FOREVER).then_some(limits.deadline),
            message_id: Some(message_id),
            priority,
            served: None,
            progress: Progress::default(),
        });
        let request = layer::Request {
            call: Arc::clone(&call),
            core: Arc::clone(&layered.core),
            headers: LazyHeaders::Own(headers),
            body: Body::written(body),
            extensions: Extensions::default(),
        };
        Ok(Box::new(Passing { stack: layered.layers.pass(request), call, timer: None }))
    }

    /// The end of the call that has passed through layers.
    pub(super) fn leave_layers(
        &self,
        answered: Option<Result<Response, BoxError>>,
        call: &LogicalCall,
    ) -> Result<Reply, CallError> {
        let maybe_executed = call.progress.maybe_executed();
        match answered {
            Some(Ok(response)) => self.reply(response, maybe_executed),
            Some(Err(error)) => Err(self.layer_failed(error, maybe_executed)),
            None if maybe_executed => Err(self.timed_out(TimeoutStage::Unknown)),
            None => Err(self.timed_out(TimeoutStage::Layer)),
        }
    }

    /// The end of an attempt, for the layers.
    fn response(&self, outcome: Result<Reply, CallError>) -> Response {
        let data = |delivery: &Delivery| {
            let codec = codec_of(delivery, self.codec())?;
            Ok::<_, String>((Some(codec), Body::received(delivery.clone())))
        };
        let (outcome, reply) = match outcome {
            Ok(Reply::Nothing) => (Ok(Outcome::Nothing), None),
            Ok(Reply::Result(delivery)) => {
                (data(&delivery).map(|(codec, body)| Outcome::Ok(codec, body)), Some(delivery))
            }
            Ok(Reply::ServiceError(delivery)) => {
                (data(&delivery).map(|(codec, body)| Outcome::Service(codec, body)), Some(delivery))
            }
            Ok(Reply::Layered(LayeredReply { is_error, codec, body })) => {
                (Ok(if is_error { Outcome::Service } else { Outcome::Ok }(Some(codec), Body::Shared(body))), None)
            }
            Err(CallError::Other { error, .. }) => (Ok(Outcome::Other(error)), None),
            Err(error) => (Ok(Outcome::Failed(error)), None),
        };
        let (service, method) = (self.service_name(), self.method_name());
        let outcome = outcome.unwrap_or_else(|unknown| Outcome::Failed(CallError::bad_reply(service, method, unknown)));
        let headers = reply.map_or(LazyHeaders::NONE, LazyHeaders::received);
        Response { outcome, headers }
    }

    /// The end of the call, from that which the outermost layer gave.
    fn reply(&self, response: Response, maybe_executed: bool) -> Result<Reply, CallError> {
        let layered = |is_error, codec: Option<_>, body: Body| {
            Ok(match body.into_parts() {
                Ok(delivery) if is_error => Reply::ServiceError(delivery),
                Ok(delivery) => Reply::Result(delivery),
                Err(body) => {
                    Reply::Layered(LayeredReply { is_error, codec: codec.unwrap_or_else(|| self.codec()), body })
                }
            })
        };
        let (service, method) = (self.service_name(), self.method_name());
        match response.outcome {
            Outcome::Ok(codec, body) => layered(false, codec, body),
            Outcome::Service(codec, body) => layered(true, codec, body),
            Outcome::Nothing => Ok(Reply::Nothing),
            // An earlier attempt may have been executed, so report that, not that this one was not.
            Outcome::Failed(error) if maybe_executed && !error.maybe_executed() => {
                Err(CallError::layer(service, method, error, true))
            }
            Outcome::Failed(error) => Err(error),
            Outcome::Other(mut error) => {
                error.maybe_executed = maybe_executed;
                Err(CallError::Other { service, method, error })
            }
            Outcome::Coded(code, message) => {
                Err(CallError::layer(service, method, format!("{}: {message}", code.name()), maybe_executed))
            }
        }
    }

    /// The error of a call whose layer failed.
    fn layer_failed(&self, error: BoxError, maybe_executed: bool) -> CallError {
        let (service, method) = (self.service_name(), self.method_name());
        let error = match error.downcast::<CallError>() {
            Ok(error) if error.maybe_executed() || !maybe_executed => return *error,
            Ok(error) => error as BoxError,
            Err(error) => error,
        };
        match Foreign::of(&error) {
            // It may have been sent, so far as that layer knows.
            Foreign::Elapsed => self.timed_out(TimeoutStage::Unknown),
            Foreign::Overloaded if !maybe_executed => CallError::overloaded(service, method, error.to_string()),
            Foreign::Overloaded | Foreign::Unknown => CallError::layer(service, method, error, maybe_executed),
        }
    }
}

/// A call in its layers.
pub(super) struct Passing {
    stack: Run,
    pub(super) call: Arc<LogicalCall>,
    /// Only while no attempt of its own task has one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Passing {
    /// Its answer; `None` when its deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Response, BoxError>>> {
        let Self { stack, call, timer } = self;
        let progress = &call.progress;
        if let Poll::Ready(answered) = progress.polling(|| Pin::new(stack).poll(cx)) {
            return Poll::Ready(Some(answered));
        }
        let Some(deadline) = call.deadline.filter(|_| !progress.is_awaited()) else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

//! A call of a client with layers: through them, to the core, and back.
//!
//! ```text
//!  Request::pass ──► outermost layer ─ … ─► innermost layer ─(► Retrying ─)─► Sender::run ──► Attempt ──► Sending
//! ```

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Client,
    attempt::AttemptOf,
    layered::Layered,
    request::{FOREVER, LayeredReply, Limits, Reply, Request},
    sending::{Sending, codec_of},
};
use crate::{
    budget,
    call_error::{CallError, TimeoutStage},
    connection::Delivery,
    envelope::{self, CallHeaders},
    layer::{
        self, BoxError, BoxFuture, Core, Foreign, Layers, LogicalCall, OfCall, Outcome, Progress, Response, RetryLayer,
        RetryPolicy, RpcLayer,
    },
};

impl Client {
    /// A client that shares everything with this one, and whose calls also pass through `layer`.
    ///
    /// The layers of a client stand in the order in which they are added, the first one outermost. Adding one makes the services of
    /// all of them anew: a limit that the earlier client is to share belongs into the layer, as in
    /// `tower::limit::GlobalConcurrencyLimitLayer`. See the guide's chapter on [layers](crate::guide::layers).
    pub fn layer(&self, layer: impl RpcLayer) -> Self {
        let before = self.layered.as_deref();
        let layers = Arc::new(Layers::with(before.map(|layered| &*layered.layers), layer));
        let core = before.map_or_else(|| self.core(), |layered| Arc::clone(&layered.core));
        Self { inner: Arc::clone(&self.inner), layered: Some(Arc::new(Layered { layers, core, retry: None })) }
    }

    /// A client that shares everything with this one, and whose calls are sent again under the policies of its options.
    pub(super) fn retrying(self) -> Self {
        let layered = Layered { layers: Arc::default(), core: self.retrying_core(), retry: None };
        Self { layered: Some(Arc::new(layered)), ..self }
    }

    /// The same client for a call that is sent again under this policy, whatever those of the options are.
    pub(super) fn retrying_call(&self, policy: RetryPolicy) -> Self {
        let layers = self.layered.as_ref().map(|layered| Arc::clone(&layered.layers)).unwrap_or_default();
        let layered = Layered { layers, core: self.retrying_core(), retry: Some(Arc::new(policy)) };
        Self { inner: Arc::clone(&self.inner), layered: Some(Arc::new(layered)) }
    }

    fn core(&self) -> Arc<dyn Core> {
        Arc::new(Sender { client: Self { inner: Arc::clone(&self.inner), layered: None } })
    }

    /// Behind all layers, so that they see each call once.
    fn retrying_core(&self) -> Arc<dyn Core> {
        Arc::new(Retrying { retry: self.inner.retry.clone(), sender: self.core() })
    }
}

/// The service behind the innermost layer of a client that sends calls again.
struct Retrying {
    retry: RetryLayer,
    sender: Arc<dyn Core>,
}

impl Core for Retrying {
    fn run(&self, request: layer::Request) -> BoxFuture {
        self.retry.run(layer::Request { core: Arc::clone(&self.sender), ..request })
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
        let mut request = Request::new(self.client.clone(), call.service, call.method, Ok(body.into()));
        request.headers = CallHeaders { priority: call.priority, message_id: call.message_id.clone(), headers };
        let budget = call.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let deadline = call.deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        let attempt = Arc::new(AttemptOf::new(call));
        let sending = Sending::new(request.within(Limits { budget, deadline }, Arc::clone(&attempt)));
        Box::pin(Attempt { sending, attempt, is_awaited: false })
    }
}

/// An attempt under way. It ends at the call's deadline.
struct Attempt {
    sending: Sending,
    attempt: Arc<AttemptOf>,
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
    /// Passes the call through layers, within its deadline.
    pub(super) async fn pass(mut self, layered: Arc<Layered>) -> Result<Reply, CallError> {
        let limits = self.limits();
        let body = std::mem::replace(&mut self.body, Ok(Vec::new())).map_err(|error| self.bad_request(&error))?;
        let CallHeaders { priority, message_id, headers } = std::mem::take(&mut self.headers);
        let call = Arc::new(LogicalCall {
            service: self.service,
            method: self.method,
            deadline: (limits.budget < FOREVER).then_some(limits.deadline),
            message_id: Some(message_id.unwrap_or_else(|| self.client.next_message_id())),
            priority,
            is_within_retry: budget::is_within_retry(),
            served: None,
            progress: Progress::default(),
        });
        let request = layer::Request {
            call: Arc::clone(&call),
            core: Arc::clone(&layered.core),
            headers,
            body: Bytes::from(body),
            extensions: layered.retry.as_ref().map(|policy| OfCall(Arc::clone(policy)).into()).unwrap_or_default(),
        };
        let stack = pin!(layered.layers.pass(request));
        let answered = Passing { stack, call: &call, timer: None }.await;
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
            Ok::<_, String>((Some(codec), delivery.shared_body()))
        };
        let (outcome, reply) = match outcome {
            Ok(Reply::Nothing) => (Ok(Outcome::Nothing), None),
            Ok(Reply::Result(delivery)) => {
                (data(&delivery).map(|(codec, body)| Outcome::Ok(codec, body)), Some(delivery))
            }
            Ok(Reply::ServiceError(delivery)) => {
                let details = envelope::error_details(|name| delivery.header(name));
                (data(&delivery).map(|(codec, body)| Outcome::Service(codec, body, details)), Some(delivery))
            }
            Ok(Reply::Layered(LayeredReply { error: None, codec, body })) => (Ok(Outcome::Ok(Some(codec), body)), None),
            Ok(Reply::Layered(LayeredReply { error: Some(details), codec, body })) => {
                (Ok(Outcome::Service(Some(codec), body, details)), None)
            }
            Err(CallError::Other { error, .. }) => (Ok(Outcome::Other(error)), None),
            Err(error) => (Ok(Outcome::Failed(error)), None),
        };
        let (service, method) = (self.service_name(), self.method_name());
        let outcome = outcome.unwrap_or_else(|unknown| Outcome::Failed(CallError::bad_reply(service, method, unknown)));
        let headers = reply.map(|reply| reply.headers()).unwrap_or_default();
        Response { outcome, headers }
    }

    /// The end of the call, from that which the outermost layer gave.
    fn reply(&self, response: Response, maybe_executed: bool) -> Result<Reply, CallError> {
        let layered = |error, codec: Option<_>, body| {
            Ok(Reply::Layered(LayeredReply { error, codec: codec.unwrap_or_else(|| self.codec()), body }))
        };
        let (service, method) = (self.service_name(), self.method_name());
        match response.outcome {
            Outcome::Ok(codec, body) => layered(None, codec, body),
            Outcome::Service(codec, body, details) => layered(Some(details), codec, body),
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

/// A call in its layers, until its deadline; `None` when that has passed.
struct Passing<'a, S> {
    stack: Pin<&'a mut S>,
    call: &'a LogicalCall,
    /// Only while no attempt of its own task has one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S: Future<Output = Result<Response, BoxError>>> Future for Passing<'_, S> {
    type Output = Option<S::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stack, call, timer } = self.get_mut();
        let progress = &call.progress;
        if let Poll::Ready(answered) = progress.polling(|| stack.as_mut().poll(cx)) {
            return Poll::Ready(Some(answered));
        }
        let Some(deadline) = call.deadline.filter(|_| !progress.is_awaited()) else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

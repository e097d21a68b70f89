//! [`Passing`]: a call on its way through the layers of its client, to its end.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep_until};

use super::{
    layered::Layered,
    request::{FOREVER, LayeredReply, Obstacle, Reply, Request},
};
use crate::{
    budget,
    call_error::{CallError, TimeoutStage},
    envelope::CallHeaders,
    forward::Carried,
    layer::{self, Body, BoxError, BoxFuture, Foreign, LazyHeaders, LogicalCall, OfCall, Outcome, Progress, Response},
};

/// A call in its layers.
pub(super) struct Passing {
    answering: BoxFuture,
    pub(super) call: Arc<LogicalCall>,
    /// Only while no attempt of its own task has one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Passing {
    /// Its answer; `None` when its deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Response, BoxError>>> {
        let Self { answering, call, timer } = self;
        let progress = &call.progress;
        if let Poll::Ready(answered) = progress.polling(|| answering.as_mut().poll(cx)) {
            return Poll::Ready(Some(answered));
        }
        let Some(deadline) = call.deadline.filter(|_| !progress.is_awaited()) else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

impl Request {
    /// Begins to pass the call through the layers of its client.
    #[inline]
    pub(super) fn enter_layers(&mut self, layered: &Layered, cx: &mut Context<'_>) -> Result<Passing, Obstacle> {
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
            is_within_retry: budget::is_within_retry(),
            served: None,
            progress: Progress::default(),
        });
        let (headers, body) = (LazyHeaders::Own(headers), Body::written(body));
        let mut request = layer::Request::new(Arc::clone(&call), Arc::clone(&layered.core), headers, body);
        if let Some(policy) = &layered.retry {
            request.extensions = OfCall(Arc::clone(policy)).into();
        }
        if let Some(forwarded) = budget::forwarded() {
            let inherited = request.headers.change(|headers| forwarded.add_to(headers));
            request.carried = Some(Box::new(Carried { inherited, context: None }));
        }
        let answering = call.progress.polling(|| layered.layers.begin_to_pass(request, cx));
        Ok(Passing { answering, call, timer: None })
    }

    /// The end of the call that has passed through layers.
    #[inline]
    pub(super) fn leave_layers(
        &mut self,
        answered: Option<Result<Response, BoxError>>,
        call: &LogicalCall,
    ) -> Result<Reply, CallError> {
        let maybe_executed = call.progress.maybe_executed();
        let outcome = match answered {
            Some(Ok(response)) => self.reply(response, maybe_executed),
            Some(Err(error)) => Err(self.layer_failed(error, maybe_executed)),
            None if maybe_executed => Err(self.timed_out(TimeoutStage::Unknown)),
            None => Err(self.timed_out(TimeoutStage::Layer)),
        };
        if outcome.is_err() {
            // For the log.
            self.message_id.clone_from(&call.message_id);
        }
        outcome
    }

    /// The end of the call, from that which the outermost layer gave.
    fn reply(&self, response: Response, maybe_executed: bool) -> Result<Reply, CallError> {
        let layered = |error: Option<_>, codec: Option<_>, body: Body| {
            Ok(match body.into_parts() {
                Ok(delivery) if error.is_some() => Reply::ServiceError(delivery),
                Ok(delivery) => Reply::Result(delivery),
                Err(body) => Reply::Layered(LayeredReply { error, codec: codec.unwrap_or_else(|| self.codec()), body }),
            })
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

//! A call of a client with layers: through them, to the core, and back.
//!
//! ```text
//!  Request::pass ──► outermost layer ─ … ─► innermost layer ──► Sender::run ──► Sending
//! ```

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout_at;

use super::{
    Client,
    attempt::AttemptOf,
    request::{FOREVER, LayeredReply, Limits, Reply, Request},
    sending::{Sending, codec_of},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::Delivery,
    envelope::CallHeaders,
    layer::{self, BoxError, BoxFuture, Core, Extensions, Layers, LogicalCall, Outcome, Response},
};

/// The service behind the innermost layer: sends.
struct Sender {
    /// Without layers.
    client: Client,
    limits: Limits,
    priority: Option<u8>,
}

impl Core for Sender {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let layer::Request { call, headers, body, .. } = request;
        let mut request = Request::new(self.client.clone(), call.service, call.method, Ok(body.into()));
        request.headers = CallHeaders { priority: self.priority, message_id: call.message_id.clone(), headers };
        let mut sending = Sending::new(request.within(self.limits, AttemptOf::new(call)));
        Box::pin(async move {
            let outcome = poll_fn(|cx| sending.poll(cx)).await;
            Ok(sending.request.response(outcome))
        })
    }
}

impl Request {
    /// Passes the call through layers, within its deadline.
    pub(super) async fn pass(mut self, layers: Arc<Layers>) -> Result<Reply, CallError> {
        let limits = self.limits();
        let body = std::mem::replace(&mut self.body, Ok(Vec::new())).map_err(|error| self.bad_request(&error))?;
        let CallHeaders { priority, message_id, headers } = std::mem::take(&mut self.headers);
        let is_bounded = limits.budget < FOREVER;
        let call = Arc::new(LogicalCall {
            service: self.service,
            method: self.method,
            deadline: is_bounded.then_some(limits.deadline),
            message_id: Some(message_id.unwrap_or_else(|| self.client.next_message_id())),
            context: None,
            core: Arc::new(Sender { client: self.client.clone(), limits, priority }),
            progress: Arc::default(),
        });
        let request = layer::Request {
            call: Arc::clone(&call),
            headers,
            body: Bytes::from(body),
            extensions: Extensions::default(),
        };
        let answered = match is_bounded && limits.budget < Duration::MAX {
            true => timeout_at(limits.deadline, layers.pass(request)).await,
            false => Ok(layers.pass(request).await),
        };
        let maybe_executed = call.progress.maybe_executed();
        match answered {
            Ok(Ok(response)) => self.reply(response, maybe_executed),
            Ok(Err(error)) => Err(self.layer_failed(error, maybe_executed)),
            Err(_) if maybe_executed => Err(self.timed_out(TimeoutStage::Unknown)),
            Err(_) => Err(self.timed_out(TimeoutStage::Layer)),
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
                (data(&delivery).map(|(codec, body)| Outcome::Service(codec, body)), Some(delivery))
            }
            Ok(Reply::Layered(LayeredReply { is_error, codec, body })) => {
                (Ok(if is_error { Outcome::Service } else { Outcome::Ok }(Some(codec), body)), None)
            }
            Err(CallError::Other { error, .. }) => (Ok(Outcome::Other(error)), None),
            Err(error) => (Ok(Outcome::Failed(error)), None),
        };
        let (service, method) = (self.service_name(), self.method_name());
        let outcome = outcome.unwrap_or_else(|unknown| Outcome::Failed(CallError::bad_reply(service, method, unknown)));
        let headers = reply.map(|reply| reply.headers()).unwrap_or_default();
        let response = Response { outcome, headers };
        if let Some(attempt) = self.attempt_of().filter(|_| !response.maybe_executed()) {
            attempt.note_not_executed();
        }
        response
    }

    /// The end of the call, from that which the outermost layer gave.
    fn reply(&self, response: Response, maybe_executed: bool) -> Result<Reply, CallError> {
        let layered = |is_error, codec: Option<_>, body| {
            Ok(Reply::Layered(LayeredReply { is_error, codec: codec.unwrap_or_else(|| self.codec()), body }))
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
        match error.downcast::<CallError>() {
            Ok(error) if error.maybe_executed() || !maybe_executed => *error,
            Ok(error) => CallError::layer(self.service_name(), self.method_name(), *error, true),
            Err(error) => self.foreign_error(error, maybe_executed),
        }
    }

    fn foreign_error(&self, error: BoxError, maybe_executed: bool) -> CallError {
        let (service, method) = (self.service_name(), self.method_name());
        #[cfg(feature = "tower")]
        if error.is::<tower::timeout::error::Elapsed>() {
            // It may have been sent, so far as that layer knows.
            return self.timed_out(TimeoutStage::Unknown);
        }
        #[cfg(feature = "tower")]
        if !maybe_executed && error.is::<tower::load_shed::error::Overloaded>() {
            return CallError::overloaded(service, method, error.to_string());
        }
        CallError::layer(service, method, error, maybe_executed)
    }
}

//! [`Layered`]: a service behind layers.
//!
//! ```text
//!  dispatch ──► the pool's layers ──► the service's layers ──► Handlers::run ──► dedupe ──► handler
//! ```

use std::sync::Arc;

use super::{
    dedupe::Dedupe,
    dispatch::{Answer, Dispatch, Found, Handler, Request, Response, Sealed},
    stats::Counters,
};
use crate::{
    call_error::OtherError,
    context::Context,
    envelope::Code,
    layer::{self, BoxError, BoxFuture, Core, Extensions, Headers, Layers, LogicalCall, Outcome},
    service::ServiceDescriptor,
};

/// A service of a lane whose requests pass through layers.
pub(super) struct Layered(Arc<Inner>);

pub(super) struct Inner {
    pub(super) service: Arc<dyn Dispatch>,
    /// Of the pool, the outer ones.
    pub(super) of_pool: Option<Arc<Layers>>,
    pub(super) of_service: Option<Arc<Layers>>,
    /// Inside of the layers: a caller who is refused must not learn the answer to another one.
    pub(super) dedupe: Option<Arc<Dedupe>>,
    pub(super) counters: Arc<Counters>,
}

impl Layered {
    /// The service itself if it has no layers.
    pub(super) fn wrap(inner: Inner) -> Arc<dyn Dispatch> {
        match (&inner.of_pool, &inner.of_service) {
            (None, None) => inner.service,
            _ => Arc::new(Self(Arc::new(inner))),
        }
    }
}

impl Sealed for Layered {}

impl Dispatch for Layered {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        self.0.service.descriptor()
    }

    fn dispatch(&self, request: Request) -> Handler {
        Box::pin(Arc::clone(&self.0).pass(request))
    }
}

impl Inner {
    async fn pass(self: Arc<Self>, request: Request) -> Response {
        let (context, found) = request.into_parts();
        let descriptor = self.service.descriptor();
        let delivery = context.delivery();
        let handlers = Arc::new(Handlers { inner: Arc::clone(&self), context: context.clone(), found });
        let core: Arc<dyn Core> = match (&self.of_pool, &self.of_service) {
            (Some(_), Some(_)) => Arc::new(OfService { handlers }),
            _ => handlers,
        };
        let call = Arc::new(LogicalCall {
            service: descriptor,
            method: &descriptor.methods[found.method],
            deadline: context.deadline(),
            message_id: context.message_id().map(str::to_owned),
            context: Some(context.clone()),
            core,
            progress: Arc::default(),
        });
        let (headers, body) = (delivery.headers(), delivery.shared_body());
        let request = layer::Request { call: Arc::clone(&call), headers, body, extensions: Extensions::default() };
        let outer = self.of_pool.as_ref().or(self.of_service.as_ref());
        let answered = match outer {
            Some(layers) => layers.pass(request).await,
            None => call.core.run(request).await,
        };
        answer(answered, descriptor, call.progress.maybe_executed())
    }
}

/// Behind the pool's layers: those of the service.
struct OfService {
    handlers: Arc<Handlers>,
}

impl Core for OfService {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let handlers = Arc::clone(&self.handlers);
        let call = Arc::new(LogicalCall { core: Arc::clone(&handlers) as _, ..(*request.call).clone() });
        let request = layer::Request { call, ..request };
        Box::pin(async move {
            match &handlers.inner.of_service {
                Some(layers) => layers.pass(request).await,
                None => handlers.run(request).await,
            }
        })
    }
}

/// Behind the innermost layer.
struct Handlers {
    inner: Arc<Inner>,
    context: Context,
    found: Found,
}

impl Core for Handlers {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let layer::Request { call, headers, body, extensions } = request;
        let request = Request::layered(self.context.clone().layered(headers, extensions), self.found, body);
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            call.progress.note_sent(true);
            let service = Arc::clone(&inner.service);
            let response = match &inner.dedupe {
                None => service.dispatch(request).await,
                Some(dedupe) => {
                    let run = async |request| service.dispatch(request).await;
                    dedupe.answer(request, &inner.counters, run).await
                }
            };
            if !may_be_executed(&response) {
                call.progress.note_not_executed();
            }
            Ok(seen_by_layers(response))
        })
    }
}

fn may_be_executed(response: &Response) -> bool {
    match response.answer() {
        Some(Answer::Failed(code, _)) => code.maybe_executed(),
        _ => true,
    }
}

/// A handler's answer, for the layers.
fn seen_by_layers(response: Response) -> layer::Response {
    let outcome = match response.into_answer() {
        None => Outcome::Nothing,
        Some(Answer::Ok(codec, body)) => Outcome::Ok(Some(codec), body.into()),
        Some(Answer::ServiceError(codec, body)) => Outcome::Service(Some(codec), body.into()),
        Some(Answer::Failed(code, message)) => Outcome::Coded(code, message),
        Some(Answer::Other(error)) => Outcome::Other(error),
        // Made where answers are sent, behind all of this.
        Some(Answer::TooLarge { .. } | Answer::WithHeaders(..)) => Outcome::Coded(Code::Internal, String::new()),
    };
    outcome.into()
}

/// The answer to the caller, from that which the outermost layer gave. `is_executed` says whether a handler may have run.
fn answer(answered: Result<layer::Response, BoxError>, descriptor: &ServiceDescriptor, is_executed: bool) -> Response {
    let layer::Response { outcome, headers } = match answered {
        Ok(response) => response,
        Err(error) => return failed(&error, is_executed),
    };
    let answer = match outcome {
        Outcome::Nothing => return Response::NONE,
        Outcome::Ok(codec, body) => Answer::Ok(codec.unwrap_or(descriptor.codec), body.into()),
        Outcome::Service(codec, body) => Answer::ServiceError(codec.unwrap_or(descriptor.codec), body.into()),
        Outcome::Coded(code, message) => Answer::Failed(code, message),
        Outcome::Failed(error) => {
            let retryable = error.is_retryable();
            Answer::Other(Box::new(
                OtherError::new(error.code(), error.to_string()).maybe_executed(is_executed).retryable(retryable),
            ))
        }
        Outcome::Other(mut error) => {
            error.maybe_executed &= is_executed;
            Answer::Other(error)
        }
    };
    match travelling(headers) {
        headers if headers.is_empty() => answer.into(),
        headers => Answer::WithHeaders(Box::new(answer), headers).into(),
    }
}

/// The answer when a layer failed with an error of its own.
fn failed(error: &BoxError, is_executed: bool) -> Response {
    let message = format!("a layer of the workers failed: {error}");
    tracing::warn!(%error, is_executed, "a layer failed");
    #[cfg(feature = "tower")]
    if error.is::<tower::timeout::error::Elapsed>() {
        return Response::failed(Code::Timeout, message);
    }
    #[cfg(feature = "tower")]
    if !is_executed && error.is::<tower::load_shed::error::Overloaded>() {
        return Response::failed(Code::Overloaded, message);
    }
    Answer::Other(Box::new(OtherError::new("layer", message).maybe_executed(is_executed))).into()
}

/// The headers of a layer that go out with a reply: the content header of an answer must fit one frame.
fn travelling(mut headers: Headers) -> Headers {
    headers.retain(|(name, _)| !name.starts_with("rpc-") && !name.starts_with("x-") && name.len() <= 255);
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.encoded_bytes()).sum();
    if bytes > HEADERS_MAX_BYTES {
        tracing::warn!(
            bytes,
            limit = HEADERS_MAX_BYTES,
            "the headers that layers gave a reply are left out: they are too large"
        );
        return Headers::new();
    }
    headers
}

/// Of the headers that layers give to one reply.
const HEADERS_MAX_BYTES: usize = 1_024;

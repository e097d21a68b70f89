//! [`Layered`]: a service behind layers.
//!
//! ```text
//!  dispatch ──► the pool's layers ──► the service's layers ──► Handlers::run ──► dedupe ──► handler
//! ```

use std::{sync::Arc, time::Duration};

use super::{
    dedupe::Dedupe,
    dispatch::{Answer, Dispatch, Found, Handler, Request, Response, Sealed},
    stats::Counters,
};
use crate::{
    budget,
    call_error::OtherError,
    context::Context,
    envelope::Code,
    forward::Forwarded,
    layer::{
        self, Body, BoxError, BoxFuture, Core, Foreign, Headers, Layers, LazyHeaders, LogicalCall, Outcome, Progress,
        Served, headers,
    },
    printable::printable,
    service::ServiceDescriptor,
};

/// A service of a lane whose requests pass through layers.
pub(super) struct Layered {
    descriptor: &'static ServiceDescriptor,
    /// The outermost ones.
    layers: Arc<Layers>,
    /// Behind those.
    core: Arc<dyn Core>,
}

/// The layers of a service and those of its pool, and the memory of its answers.
pub(super) struct Parts {
    pub(super) service: Arc<dyn Dispatch>,
    /// The outer ones.
    pub(super) of_pool: Option<Arc<Layers>>,
    pub(super) of_service: Option<Arc<Layers>>,
    /// Inside of the layers: a caller who is refused must not learn the answer to another one.
    pub(super) dedupe: Option<Dedupe>,
    pub(super) counters: Arc<Counters>,
}

impl Layered {
    /// The service itself if it has no layers.
    pub(super) fn wrap(parts: Parts) -> Arc<dyn Dispatch> {
        let Parts { service, of_pool, of_service, dedupe, counters } = parts;
        let descriptor = service.descriptor();
        let handlers = |service| Arc::new(Handlers { service, dedupe, counters });
        match (of_pool, of_service) {
            (None, None) => service,
            (Some(layers), None) | (None, Some(layers)) => {
                Arc::new(Self { descriptor, layers, core: handlers(service) })
            }
            (Some(layers), Some(own)) => {
                let core = Arc::new(OfService { layers: own, handlers: handlers(service) });
                Arc::new(Self { descriptor, layers, core })
            }
        }
    }
}

impl Sealed for Layered {}

impl Dispatch for Layered {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        self.descriptor
    }

    fn dispatch(&self, request: Request) -> Handler {
        let (context, found) = request.into_parts();
        let descriptor = self.descriptor;
        let delivery = context.delivery().clone();
        let (headers, body) = (LazyHeaders::received(delivery.clone()), Body::received(delivery));
        let call = Arc::new(LogicalCall {
            service: descriptor,
            method: &descriptor.methods[found.method],
            budget: Duration::ZERO,
            deadline: context.deadline(),
            message_id: None,
            priority: context.priority(),
            is_within_retry: found.is_retry,
            served: Some(served(context, found)),
            progress: Progress::default(),
        });
        let (layers, core) = (Arc::clone(&self.layers), Arc::clone(&self.core));
        Box::pin(async move {
            let seen = Arc::clone(&call);
            let request = layer::Request::new(call, core, headers, body);
            let answered = layers.pass(request).await;
            answer(answered, &seen)
        })
    }
}

fn served(context: Context, found: Found) -> Served {
    let Found { method, codec, max_depth, has_headers, .. } = found;
    Served { context, method, codec, max_depth, has_headers }
}

/// Behind the pool's layers: those of the service.
struct OfService {
    layers: Arc<Layers>,
    handlers: Arc<Handlers>,
}

impl Core for OfService {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let layers = Arc::clone(&self.layers);
        let request = layer::Request { core: Arc::clone(&self.handlers) as _, ..request };
        Box::pin(async move { layers.pass(request).await })
    }
}

/// Behind the innermost layer.
struct Handlers {
    service: Arc<dyn Dispatch>,
    dedupe: Option<Dedupe>,
    counters: Arc<Counters>,
}

impl Handlers {
    /// The request as the handler gets it; `None` of a client's.
    fn request(request: layer::Request) -> Option<(Arc<LogicalCall>, Request)> {
        let layer::Request { call, headers, body, extensions, .. } = request;
        let Served { context, method, codec, max_depth, .. } = call.served.as_ref()?;
        let (has_headers, is_retry) = (!headers.is_empty(), call.is_within_retry);
        let found = Found { method: *method, codec: *codec, max_depth: *max_depth, has_headers, is_retry };
        let request = Request::new(context.clone().layered(headers, extensions, body), found);
        Some((call, request))
    }
}

impl Handlers {
    /// The headers that the handler's calls carry on; `None` when it has none, and had none before the layers.
    fn forwards(&self, request: &layer::Request) -> Option<Option<Arc<Forwarded>>> {
        let had_headers = request.call.served.as_ref().is_some_and(|served| served.has_headers);
        let context = request.carried.as_ref().and_then(|carried| carried.context.as_ref());
        let has_some = had_headers || !request.headers.is_empty() || context.is_some();
        has_some.then(|| self.counters.forwarding.of_headers(request.headers.get(), context))
    }
}

impl Core for Handlers {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let forwards = self.forwards(&request);
        let Some((call, request)) = Self::request(request) else {
            return Box::pin(std::future::ready(Err("a request of a client does not belong into a pool".into())));
        };
        let handler = match &self.dedupe {
            None => self.service.dispatch(request),
            Some(dedupe) => dedupe.dispatch(&self.service, &self.counters, request),
        };
        Box::pin(async move {
            if let Some(forwarded) = forwards {
                budget::forward(forwarded);
            }
            let attempt = call.progress.begin_attempt();
            call.progress.note_sent(attempt);
            let response = seen_by_layers(handler.await);
            if !response.maybe_executed() {
                call.progress.note_not_executed(attempt);
            }
            Ok(response)
        })
    }
}

/// A handler's answer, for the layers.
fn seen_by_layers(response: Response) -> layer::Response {
    let outcome = match response.into_answer() {
        None => Outcome::Nothing,
        Some(Answer::Ok(codec, body)) => Outcome::Ok(Some(codec), Body::written(body)),
        Some(Answer::ServiceError(codec, body)) => Outcome::Service(Some(codec), Body::written(body), None),
        Some(Answer::DetailedError(error)) => {
            let (codec, body, details) = *error;
            Outcome::Service(Some(codec), Body::written(body), Some(Box::new(details)))
        }
        Some(Answer::Failed(code, message)) => Outcome::Coded(code, message),
        Some(Answer::Other(error)) => Outcome::Other(error),
        // Made where answers are sent, behind all of this.
        Some(Answer::TooLarge { .. } | Answer::WithHeaders(..)) => Outcome::Coded(Code::Internal, String::new()),
    };
    outcome.into()
}

/// Warns of a request, which it names.
macro_rules! log_call {
    ($call:expr, $($fields:tt)+) => {
        tracing::warn!(
            service = $call.service.name,
            method = $call.method.name,
            message_id = %printable($call.message_id().unwrap_or_default()),
            redelivered = $call.served.as_ref().is_some_and(|served| served.context.redelivered()),
            $($fields)+
        )
    };
}

/// The answer to the caller, from that which the outermost layer gave.
fn answer(answered: Result<layer::Response, BoxError>, call: &LogicalCall) -> Response {
    let (descriptor, is_executed) = (call.service, call.progress.maybe_executed());
    let layer::Response { outcome, headers } = match answered {
        Ok(response) => response,
        Err(error) => return failed(&error, call, is_executed),
    };
    let answer = match outcome {
        Outcome::Nothing => return Response::NONE,
        Outcome::Ok(codec, body) => Answer::Ok(codec.unwrap_or(descriptor.codec), body.into_vec()),
        Outcome::Service(codec, body, None) => Answer::ServiceError(codec.unwrap_or(descriptor.codec), body.into_vec()),
        Outcome::Service(codec, body, Some(details)) => {
            Answer::DetailedError(Box::new((codec.unwrap_or(descriptor.codec), body.into_vec(), *details)))
        }
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
    match travelling(headers.into_inner(), call) {
        headers if headers.is_empty() => answer.into(),
        headers => Answer::WithHeaders(Box::new(answer), headers).into(),
    }
}

/// The answer when a layer failed with an error of its own.
fn failed(error: &BoxError, call: &LogicalCall, is_executed: bool) -> Response {
    let message = format!("a layer of the workers failed: {error}");
    log_call!(call, %error, is_executed, "a layer failed");
    match Foreign::of(error) {
        Foreign::Elapsed => Response::failed(Code::Timeout, message),
        Foreign::Overloaded if !is_executed => Response::failed(Code::Overloaded, message),
        Foreign::Overloaded | Foreign::Unknown => {
            Answer::Other(Box::new(OtherError::new("layer", message).maybe_executed(is_executed))).into()
        }
    }
}

/// The headers of a layer that go out with a reply: the content header of an answer must fit one frame.
fn travelling(mut headers: Headers, call: &LogicalCall) -> Headers {
    headers.retain(|(name, _)| !headers::is_unfit(name));
    let bytes = headers::encoded_bytes(&headers);
    if bytes > HEADERS_MAX_BYTES {
        let words = "the headers that layers gave a reply are left out: they are too large";
        log_call!(call, bytes, limit = HEADERS_MAX_BYTES, "{words}");
        return Headers::new();
    }
    headers
}

/// Of the headers that layers give to one reply.
const HEADERS_MAX_BYTES: usize = 1_024;

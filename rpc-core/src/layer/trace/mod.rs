//! [`TraceLayer`]: a span around every call, and around every request of a pool.
//!
//! ```text
//!  client   CLIENT   │ the call, with all attempts further in │      pool   SERVER   │ the handler │
//!           PRODUCER │ a one-way request, until its confirm   │             CONSUMER │ the handler │
//! ```

mod ending;
#[cfg(feature = "otel")]
mod otel;
mod span;
#[cfg(feature = "otel")]
mod w3c;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Level, Span};

use self::{
    ending::{Ending, REQUESTS},
    span::Side,
};
use super::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
    stack::Next,
};

/// A layer that traces: a `tracing` span around each call of a client, or around each request of a pool.
///
/// The spans have the level DEBUG and the target `rpc_core::layer::trace`; their names, kinds and attributes are those of
/// OpenTelemetry, for the crate `tracing-opentelemetry`. A span whose level is off costs a call one atomic load. No span holds
/// arguments, results or headers.
///
/// | side | method | kind | name |
/// |---|---|---|---|
/// | client | with a reply | `client` | `service/method` |
/// | pool | with a reply | `server` | `service/method` |
/// | client | one-way | `producer` | `publish exchange:routing_key` |
/// | pool | one-way | `consumer` | `consume exchange:routing_key:queue` |
///
/// A span ends with the code of its call in `rpc.response.status_code`, and in `error.type` unless that is `ok`. One that is dropped
/// ends with `timeout` after its deadline, with `internal` (in a client `_OTHER`) when something further in panicked, and otherwise
/// with `cancelled`. The guide's chapter on [traces](crate::guide::traces) has the attributes, and how they are exported.
///
/// ```
/// use rpc_core::{Client, Connection, WorkerPool, layer::TraceLayer};
///
/// fn traced(connection: &Connection) -> (Client, WorkerPool) {
///     let client = Client::new(connection).layer(TraceLayer::new());
///     let pool = WorkerPool::new(connection).layer(TraceLayer::new().log_requests(true));
///     (client, pool)
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer is added with `layer`"]
pub struct TraceLayer {
    logs_requests: bool,
}

impl TraceLayer {
    /// A layer that makes spans, and logs no requests.
    pub const fn new() -> Self {
        Self { logs_requests: false }
    }

    /// Whether each call, or each request of a pool, is logged when it has ended: one event of the level INFO with the target
    /// `rpc_core::requests` and the fields `kind`, `method`, `code`, `duration_ms`, and, in a pool, `queue_wait_ms` if the request
    /// says how long its caller waits. The default is false.
    pub const fn log_requests(mut self, logs_requests: bool) -> Self {
        self.logs_requests = logs_requests;
        self
    }
}

impl Layer<Next> for TraceLayer {
    type Service = TraceService;

    fn layer(&self, next: Next) -> TraceService {
        TraceService { next, logs_requests: self.logs_requests }
    }
}

impl TraceService {
    /// Passes the request on in its span, and in the context of its trace.
    fn call_in(&mut self, side: Side, span: Span, context: Option<Attached>, request: Request) -> BoxFuture {
        let is_logged = self.logs_requests && tracing::enabled!(target: REQUESTS, Level::INFO);
        if span.is_disabled() && !is_logged {
            return attached(context, || self.next.call(request));
        }
        let mut ending = Ending::new(span.clone(), side, Arc::clone(&request.call), is_logged);
        let response = span.in_scope(|| attached(context, || self.next.call(request)));
        let traced = async move {
            let answered = response.await;
            ending.end(&answered);
            answered
        };
        Box::pin(traced.instrument(span))
    }
}

/// The context of a trace, for what runs in it.
#[cfg(feature = "otel")]
type Attached = opentelemetry::Context;
#[cfg(not(feature = "otel"))]
type Attached = std::convert::Infallible;

/// Calls the next service in the context.
#[cfg(feature = "otel")]
fn attached(context: Option<Attached>, call: impl FnOnce() -> BoxFuture) -> BoxFuture {
    use opentelemetry::context::FutureExt;
    let Some(context) = context else { return call() };
    let response = {
        let _attached = context.clone().attach();
        call()
    };
    Box::pin(response.with_context(context))
}

#[cfg(not(feature = "otel"))]
fn attached(_: Option<Attached>, call: impl FnOnce() -> BoxFuture) -> BoxFuture {
    call()
}

/// The service of [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct TraceService {
    next: Next,
    logs_requests: bool,
}

impl Service<Request> for TraceService {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    #[cfg_attr(not(feature = "otel"), expect(unused_mut, reason = "its headers stay as they are"))]
    fn call(&mut self, mut request: Request) -> BoxFuture {
        let side = Side::of(&request.call);
        let span = side.span(&request);
        #[cfg(feature = "otel")]
        let context = match side.is_in_pool() {
            true => otel::extract(&span, &mut request),
            false => {
                otel::inject(&span, &mut request);
                None
            }
        };
        #[cfg(not(feature = "otel"))]
        let context = None;
        self.call_in(side, span, context, request)
    }
}

//! OpenTelemetry's context of a call: read from the headers of a pool's requests, written into those of a client's.

use opentelemetry::{Context, baggage::BaggageExt, trace::TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    super::{headers, request::Request},
    w3c,
};
use crate::forward::{CONTEXT, Carried, TRACE_PARENT};

/// Writes the context of a call into its headers, unless the caller has set a `traceparent` itself.
///
/// It is that of the call's span; without one that is exported, that of the caller. A handler whose pool has no trace layer has none:
/// then the span continues the trace of the handler's request.
pub(super) fn inject(span: &Span, request: &mut Request) {
    let is_inherited = inherits(request, TRACE_PARENT);
    if headers::get(request.headers.get(), TRACE_PARENT).is_some() && !is_inherited {
        return;
    }
    let outside = current();
    if is_inherited
        && !has_span(&outside)
        && let Some(remote) = w3c::read(request.headers.get())
    {
        // An error says that the span is not exported.
        drop(span.set_parent(remote));
    }
    let context = Some(span.context()).filter(has_span).unwrap_or(outside);
    // Without a span, baggage alone does not replace the trace of the handler's request.
    if has_span(&context) || (!is_inherited && !context.baggage().is_empty()) {
        replace(request, &context);
    }
}

/// Replaces the headers of a context by those of another one; headers that the caller has set stay.
fn replace(request: &mut Request, context: &Context) {
    let written = w3c::write(context);
    for name in CONTEXT {
        if inherits(request, name) {
            request.remove_header(name);
        }
        if let Some(value) =
            headers::get(&written, name).filter(|_| headers::get(request.headers.get(), name).is_none())
        {
            request.set_header(name, value.clone());
            carried(request).inherited.note(name);
        }
    }
}

/// Makes the span of a request one of its caller's trace. Returns the context of the handler: that of the span, or, without one that
/// is exported, that of the caller.
pub(super) fn extract(span: &Span, request: &mut Request) -> Option<Context> {
    let remote = w3c::read(request.headers.get());
    if let Some(remote) = &remote {
        // An error says that the span is not exported.
        drop(span.set_parent(remote.clone()));
    }
    let context = Some(span.context()).filter(has_span).or(remote)?;
    // For calls of clients without this layer.
    carried(request).context = Some(w3c::write(&context));
    Some(context)
}

fn inherits(request: &Request, name: &str) -> bool {
    request.carried.as_ref().is_some_and(|carried| carried.inherited.has(name))
}

fn carried(request: &mut Request) -> &mut Carried {
    request.carried.get_or_insert_default()
}

/// The context here: that of the current span, or the one that is attached.
fn current() -> Context {
    Some(Span::current().context()).filter(has_span).unwrap_or_else(Context::current)
}

fn has_span(context: &Context) -> bool {
    context.span().span_context().is_valid()
}

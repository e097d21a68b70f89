//! Traces and metrics of one process.

use std::collections::HashMap;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use rpc_core::{health::Health, layer::MetricsLayer};
use rpc_examples::Failure;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Spans get trace ids, and metrics a page. An exporter would be one line more: see the example `traced`.
pub fn start(health: &Health) -> Result<SdkTracerProvider, Failure> {
    let provider = SdkTracerProvider::builder().build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("orders"));
    let recorded = EnvFilter::new("off,rpc_core::layer::trace=debug,orders=info");
    let logged = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(logged);
    tracing_subscriber::registry().with(spans.with_filter(recorded)).with(log).init();
    let durations = Matcher::Suffix("duration".to_owned());
    let prometheus = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(durations, &MetricsLayer::BUCKETS)?
        .install_recorder()?;
    health.metrics(move || prometheus.render());
    Ok(provider)
}

/// A span for a request over HTTP, in the trace that its headers name.
pub fn span_of(headers: &axum::http::HeaderMap) -> Span {
    let text = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    let carrier: HashMap<_, _> = ["traceparent", "tracestate"].into_iter().filter_map(text).collect();
    let span = tracing::info_span!("http");
    // Without a trace around it the span begins one.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    span
}

/// For the demonstration: the trace that this process is in.
pub fn print_trace(role: &str) {
    println!("{role} is in trace {}", Span::current().context().span().span_context().trace_id());
}

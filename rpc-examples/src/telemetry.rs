//! Traces and metrics of a program, before its exporters.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use rpc_core::layer::MetricsLayer;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Hands the spans of calls, and those of the program of that name, to `provider`; log lines go to standard error, as `RUST_LOG` says,
/// or else as `logged` does.
pub fn trace(provider: &SdkTracerProvider, program: &'static str, logged: &str) {
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer(program));
    let exported = EnvFilter::new(format!("off,rpc_core::layer::trace=debug,{program}=info"));
    let logged = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(logged));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(logged);
    tracing_subscriber::registry().with(spans.with_filter(exported)).with(log).init();
}

/// Says which trace this part of the program is in.
pub fn print_trace(part: &str) {
    println!("{part} is in trace {}", Span::current().context().span().span_context().trace_id());
}

/// An exporter whose metrics have the names that Prometheus asks for, and whose times are histograms.
///
/// # Errors
/// None that can be expected: the buckets are there.
pub fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    let durations = Matcher::Suffix("duration".to_owned());
    PrometheusBuilder::new().with_recommended_naming(true).set_buckets_for_metric(durations, &MetricsLayer::BUCKETS)
}

//! Collects the spans and the logged requests of this process.

use std::{
    fmt,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use opentelemetry::{
    Value,
    trace::{SpanId, SpanKind, Status, TraceId, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use rpc_tests::eventually;
use tokio::sync::MutexGuard;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Begins to collect for one case, and forgets the spans of others: the same case on another broker has services of the same names.
pub(crate) async fn collect() -> MutexGuard<'static, ()> {
    let turn = TURNS.lock().await;
    COLLECTED.reset();
    LOGGED.lock().expect("no case panics while it holds the lock").clear();
    turn
}

/// One case at a time collects.
static TURNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

static COLLECTED: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("rpc-tests"))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target("rpc_core::layer::trace", Level::DEBUG).with_target("it", Level::INFO));
    let requests = Requests.with_filter(Targets::new().with_target("rpc_core::requests", Level::INFO));
    tracing_subscriber::registry().with(spans).with(requests).init();
    exporter
});

/// A span that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended(SpanData);

impl Ended {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn kind(&self) -> &SpanKind {
        &self.0.span_kind
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.0.span_context.trace_id()
    }

    pub(crate) fn id(&self) -> SpanId {
        self.0.span_context.span_id()
    }

    pub(crate) fn parent(&self) -> SpanId {
        self.0.parent_span_id
    }

    pub(crate) fn is_root(&self) -> bool {
        self.parent() == SpanId::INVALID
    }

    pub(crate) fn is_remote_child(&self) -> bool {
        self.0.parent_span_is_remote
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self.0.status, Status::Error { .. })
    }

    /// The text of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let found = self.0.attributes.iter().find(|attribute| attribute.key.as_str() == name)?;
        Some(match &found.value {
            Value::String(text) => text.as_str().to_owned(),
            other => other.as_str().into_owned(),
        })
    }

    /// The names of all attributes but those that are not ours.
    pub(crate) fn attributes(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        names.retain(|name| !["busy_ns", "idle_ns", "target", "level"].contains(name));
        names.sort_unstable();
        names
    }

    /// All of it, to look for what must not be there.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The spans that name this service, once there are so many of them, in the order of their ends.
pub(crate) async fn spans_of(service: &str, count: usize) -> Vec<Ended> {
    let found = || {
        let spans = COLLECTED.get_finished_spans().expect("it collects");
        let is_of = |span: &SpanData| span.name.contains(service);
        spans.into_iter().filter(is_of).map(Ended).collect::<Vec<_>>()
    };
    let limit = Duration::from_secs(20);
    eventually(limit, &format!("{count} spans of {service} end"), async || found().len() >= count).await;
    let spans = found();
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

/// The one of this kind.
#[track_caller]
pub(crate) fn only(spans: &[Ended], kind: &SpanKind) -> Ended {
    let found: Vec<_> = spans.iter().filter(|span| span.kind() == kind).collect();
    assert_eq!(found.len(), 1, "{kind:?}: {spans:#?}");
    found[0].clone()
}

/// The logged requests of this service, once there are so many of them: their fields as text.
pub(crate) async fn requests_of(service: &str, count: usize) -> Vec<String> {
    let found = || {
        let logged = LOGGED.lock().expect("no case panics while it holds the lock");
        logged.iter().filter(|line| line.contains(service)).cloned().collect::<Vec<_>>()
    };
    let limit = Duration::from_secs(20);
    eventually(limit, &format!("{count} requests of {service} are logged"), async || found().len() >= count).await;
    let logged = found();
    assert_eq!(logged.len(), count, "{logged:#?}");
    logged
}

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the events that log requests.
struct Requests;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Requests {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        LOGGED.lock().expect("no case panics while it holds the lock").push(line.0);
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

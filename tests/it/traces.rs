//! Traces: spans around calls, their contexts in headers, and headers that handlers' calls carry on.

use std::time::Duration;

use opentelemetry::{
    Context as TraceContext, KeyValue,
    baggage::BaggageExt,
    context::FutureExt,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use rpc_core::{
    CallError, Context, FakePool,
    layer::{self, Next, Request, Response, TraceLayer},
    service,
};
use rpc_tests::{Stage, on_both_brokers, proxy::Proxy};
use tokio::time::sleep;
use tracing::Instrument;

pub(crate) use self::spans::{collect, spans_of};
use self::spans::{only, requests_of};
use crate::layers::desk::{Clerk, Refused, desk};

mod forwarding;
mod spans;

on_both_brokers!(
    a_call_is_a_client_span_and_a_server_span_of_one_trace,
    errors_are_named_by_their_codes,
    a_oneway_request_is_a_producer_and_a_consumer,
    handlers_their_tasks_and_threads_continue_the_trace,
    a_span_holds_all_attempts_of_its_call,
    a_call_without_an_answer_ends_its_spans,
    a_context_without_spans_travels_as_well,
    the_header_of_the_caller_wins,
    a_client_without_the_layer_stays_in_the_trace,
    requests_are_logged_when_asked_for,
);

const SOON: Duration = Duration::from_secs(20);
const SECRET: &str = "the-secret-argument";

async fn a_call_is_a_client_span_and_a_server_span_of_one_trace(stage: &Stage) {
    desk!("traces-call");
    let _turn = collect().await;
    let (clerk, _) = Clerk::echo();
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    let outside = tracing::info_span!("traces-call of a test");
    let call = client.ask(SECRET.to_owned()).header("token", SECRET).idempotency_key("traces-key").into_future();
    assert_eq!(call.instrument(outside.clone()).await.unwrap(), SECRET);
    drop(outside);
    let spans = spans_of("traces-call", 3).await;
    let [client, server, outside] =
        [&SpanKind::Client, &SpanKind::Server, &SpanKind::Internal].map(|kind| only(&spans, kind));
    assert_eq!((client.name(), server.name()), ("traces-call/ask", "traces-call/ask"));
    assert!(outside.is_root() && client.parent() == outside.id() && server.parent() == client.id());
    assert!(!client.is_remote_child() && server.is_remote_child());
    assert!(spans.iter().all(|span| span.trace_id() == outside.trace_id() && !span.is_error()));
    let both = ["messaging.message.id", "rpc.method", "rpc.response.status_code", "rpc.system.name"];
    assert_eq!(client.attributes(), [&both[..], &["server.address", "server.port"]].concat());
    let address = format!("{}:{}", client.get("server.address").unwrap(), client.get("server.port").unwrap());
    assert_eq!(address, rpc_tests::address_of(stage.broker_uri()));
    assert_eq!(server.attributes(), [&both[..], &["rpc_amqp.redelivered"]].concat());
    for span in [&client, &server] {
        assert_eq!(span.get("rpc.system.name").unwrap(), "rpc_amqp");
        assert_eq!(span.get("rpc.method").unwrap(), "traces-call/ask");
        assert_eq!(span.get("rpc.response.status_code").unwrap(), "ok");
        assert_eq!(span.get("messaging.message.id").unwrap(), "traces-key");
        assert!(!span.text().contains(SECRET), "neither arguments nor headers: {}", span.text());
    }
    assert_eq!(server.get("rpc_amqp.redelivered").unwrap(), "false");
}

#[tokio::test]
async fn a_call_of_a_fake_is_a_client_span_and_a_server_span_of_one_trace() {
    desk!("traces-fake");
    let _turn = collect().await;
    let pool = FakePool::new().layer(TraceLayer::new()).serve(DeskServer::new(Clerk::echo().0));
    let client = DeskClient::from_client(pool.client()).layer(TraceLayer::new());
    client.ask(SECRET.to_owned()).await.unwrap();
    let spans = spans_of("traces-fake", 2).await;
    let [client, server] = [&SpanKind::Client, &SpanKind::Server].map(|kind| only(&spans, kind));
    assert!(client.is_root() && server.parent() == client.id() && server.is_remote_child());
    assert_eq!(server.trace_id(), client.trace_id());
    assert_eq!(client.get("server.address"), None, "there is no broker");
}

async fn errors_are_named_by_their_codes(stage: &Stage) {
    desk!("traces-errors");
    let _turn = collect().await;
    let clerk = Clerk::with(|question, _| async move {
        match &*question {
            "panic" => panic!("for a test"),
            _ => Err(Refused::Closed),
        }
    });
    let refuse = layer::from_fn(|request: Request, next: Next| async move {
        match request.header("refuse") {
            Some(_) => Ok(Response::refuse("permission_denied", "as the test asks")),
            None => next.run(request).await,
        }
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new()).layer(refuse);
    let _pool = pool.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    // The code, and whether the server's span has failed.
    let cases = [("service", false), ("internal", true), ("permission_denied", false)];
    for (at, (code, fails)) in cases.into_iter().enumerate() {
        let question = if code == "internal" { "panic" } else { "closed" };
        let call = client.ask(question.to_owned());
        let call = if code == "permission_denied" { call.header("refuse", true) } else { call };
        assert_eq!(call.await.unwrap_err().code(), code);
        let spans = spans_of("traces-errors", 2 * at + 2).await.split_off(2 * at);
        for span in [&SpanKind::Client, &SpanKind::Server].map(|kind| only(&spans, kind)) {
            assert_eq!(span.get("error.type").as_deref(), Some(code));
            assert_eq!(span.get("rpc.response.status_code").as_deref(), Some(code));
            assert_eq!(span.is_error(), fails || *span.kind() == SpanKind::Client, "{code}");
        }
    }
}

async fn a_oneway_request_is_a_producer_and_a_consumer(stage: &Stage) {
    desk!("traces-oneway");
    let _turn = collect().await;
    let (clerk, _) = Clerk::echo();
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    client.tell(SECRET.to_owned()).await.unwrap();
    let spans = spans_of("traces-oneway", 2).await;
    let (producer, consumer) = (only(&spans, &SpanKind::Producer), only(&spans, &SpanKind::Consumer));
    assert!(producer.is_root() && consumer.parent() == producer.id() && consumer.trace_id() == producer.trace_id());
    assert_eq!(producer.name(), "publish rpc:traces-oneway.tell");
    assert_eq!(consumer.name(), "consume rpc:traces-oneway.tell:rpc.traces-oneway");
    for (span, operation, kind) in [(&producer, "publish", "send"), (&consumer, "consume", "process")] {
        assert_eq!(span.name(), format!("{operation} {}", span.get("messaging.destination.name").unwrap()));
        assert_eq!(span.get("messaging.system").unwrap(), "rabbitmq");
        assert_eq!(span.get("messaging.operation.name").unwrap(), operation);
        assert_eq!(span.get("messaging.operation.type").unwrap(), kind);
        assert_eq!(span.get("messaging.rabbitmq.destination.routing_key").unwrap(), "traces-oneway.tell");
        assert_eq!(span.get("messaging.message.id"), producer.get("messaging.message.id"));
        assert!(span.get("error.type").is_none() && !span.is_error() && !span.text().contains(SECRET));
    }
}

async fn handlers_their_tasks_and_threads_continue_the_trace(stage: &Stage) {
    desk!("traces-inner");
    #[service(name = "traces-outer")]
    trait Outer {
        async fn here(&self);
        async fn spawned(&self);
        #[rpc(blocking)]
        async fn thread(&self);
    }
    struct Calls(DeskClient);
    impl Outer for Calls {
        async fn here(&self) {
            assert_eq!(current_span(), Some("serve"));
            self.0.ask("here".to_owned()).await.unwrap();
        }
        async fn spawned(&self) {
            let client = self.0.clone();
            let work = async move {
                assert_eq!(current_span(), Some("serve"));
                client.ask("spawned".to_owned()).await.unwrap()
            };
            rpc_core::spawn(work).await.unwrap();
        }
        async fn thread(&self) {
            assert_eq!(current_span(), Some("serve"));
            self.0.ask("thread".to_owned()).await.unwrap();
        }
    }
    let _turn = collect().await;
    let (clerk, _) = Clerk::echo();
    let _inner = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new()).start().await.unwrap();
    let inner = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    let outer = stage.pool(OuterServer::new(Calls(inner))).await.layer(TraceLayer::new());
    let _outer = outer.start().await.unwrap();
    let client = OuterClient::new(&stage.connect().await).layer(TraceLayer::new());
    for at in 0..3 {
        match at {
            0 => client.here().await.unwrap(),
            1 => client.spawned().await.unwrap(),
            _ => client.thread().await.unwrap(),
        }
        let outer = spans_of("traces-outer", 2 * at + 2).await.split_off(2 * at);
        let inner = spans_of("traces-inner", 2 * at + 2).await.split_off(2 * at);
        let [first, second] =
            [&outer, &inner].map(|spans| [SpanKind::Client, SpanKind::Server].map(|kind| only(spans, &kind)));
        let line = [&first[0], &first[1], &second[0], &second[1]];
        assert!(line[0].is_root());
        for pair in line.windows(2) {
            assert_eq!(pair[1].parent(), pair[0].id(), "{at}: {line:#?}");
            assert_eq!(pair[1].trace_id(), pair[0].trace_id());
        }
    }
}

fn current_span() -> Option<&'static str> {
    tracing::Span::current().metadata().map(|metadata| metadata.name())
}

async fn a_span_holds_all_attempts_of_its_call(stage: &Stage) {
    desk!("traces-attempts");
    let _turn = collect().await;
    let clerk = Clerk::with(|question, ctx| async move {
        // The answer to the first one is not to come.
        if ctx.attempt() == 1 {
            sleep(Duration::from_secs(60)).await;
        }
        Ok(question)
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let proxy = Proxy::start(stage.broker_uri()).await;
    let connection = rpc_core::Connection::open(&rpc_tests::framework_uri(proxy.uri())).await.unwrap();
    let client = DeskClient::new(&connection).layer(TraceLayer::new());
    let call = tokio::spawn(client.plain("again".to_owned()).timeout(SOON).into_future());
    rpc_tests::eventually(SOON, "the first attempt is sent", async || {
        proxy.passed(rpc_tests::proxy::Direction::ToBroker, rpc_tests::proxy::Method::Publish) > 0
    })
    .await;
    proxy.cut();
    assert_eq!(call.await.unwrap().unwrap(), "again");
    let spans = spans_of("traces-attempts", 1).await;
    let attempts: u32 = spans[0].get("rpc_amqp.attempts").unwrap().parse().unwrap();
    assert!(attempts > 1 && spans[0].get("rpc.response.status_code").unwrap() == "ok");
}

async fn a_call_without_an_answer_ends_its_spans(stage: &Stage) {
    desk!("traces-ends");
    let _turn = collect().await;
    let (clerk, begun) = Clerk::hanging();
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    let call = tokio::spawn(client.ask("dropped".to_owned()).into_future());
    begun.notified().await;
    call.abort();
    let spans = spans_of("traces-ends", 2).await;
    for (kind, is_error) in [(SpanKind::Client, true), (SpanKind::Server, false)] {
        let span = only(&spans, &kind);
        assert_eq!(span.get("error.type").as_deref(), Some("cancelled"), "{kind:?}");
        assert_eq!(span.get("rpc.response.status_code").as_deref(), Some("cancelled"));
        assert_eq!(span.is_error(), is_error, "{kind:?}");
    }
    let late = client.ask("late".to_owned()).timeout(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(late, CallError::Timeout { .. }), "{late:?}");
    let client_span =
        spans_of("traces-ends", 4).await.split_off(2).into_iter().find(|span| *span.kind() == SpanKind::Client);
    assert_eq!(client_span.unwrap().get("error.type").as_deref(), Some("timeout"));
    // A panic further in is the caller's; the span says that something went wrong.
    let panics = client.layer(layer::from_fn(|_, _| async { panic!("for a test") }));
    assert!(tokio::spawn(panics.ask("panic".to_owned()).into_future()).await.unwrap_err().is_panic());
    let spans = spans_of("traces-ends", 5).await;
    assert_eq!(spans[4].get("error.type").as_deref(), Some("_OTHER"));
}

fn remote_context() -> TraceContext {
    let state = TraceState::from_key_value([("vendor", "one")]).unwrap();
    let span = SpanContext::new(TraceId::from(0xabc_u128), SpanId::from(0xdef_u64), TraceFlags::SAMPLED, true, state);
    TraceContext::new().with_baggage([KeyValue::new("tenant", "blue, or green")]).with_remote_span_context(span)
}

/// Runs it in a trace that has begun elsewhere, and has baggage.
pub(crate) fn in_remote_context<F: Future>(future: F) -> impl Future<Output = F::Output> {
    future.with_context(remote_context())
}

/// Clerk who answers with the context of the trace in the request.
fn reads_context() -> Clerk {
    Clerk::with(|_, ctx: Context| async move {
        let text = |name| ctx.header(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        Ok(["traceparent", "tracestate", "baggage"].map(text).join(" "))
    })
}

const REMOTE: &str = "00-00000000000000000000000000000abc-0000000000000def-01 vendor=one tenant=blue%2C%20or%20green";

async fn a_context_without_spans_travels_as_well(stage: &Stage) {
    desk!("traces-context");
    let _pool = stage.pool(DeskServer::new(reads_context())).await.layer(TraceLayer::new()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    // Whether another case has begun to collect spans by now or not: then they stand between.
    let seen = client.ask(String::new()).into_future().with_context(remote_context()).await.unwrap();
    let (trace, rest) = (&REMOTE[..35], &REMOTE[REMOTE.find(' ').unwrap()..]);
    assert!(seen.starts_with(trace) && seen.ends_with(rest), "{seen}");
    let _turn = collect().await;
    let seen = client.ask(String::new()).into_future().with_context(remote_context()).await.unwrap();
    assert!(seen.starts_with(trace) && seen.ends_with(rest) && seen != REMOTE, "{seen}");
}

async fn the_header_of_the_caller_wins(stage: &Stage) {
    desk!("traces-own");
    let _turn = collect().await;
    let _pool = stage.pool(DeskServer::new(reads_context())).await.layer(TraceLayer::new()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    let own = &REMOTE[..55];
    let call = client.ask(String::new()).header("traceparent", own).into_future();
    assert_eq!(call.with_context(remote_context()).await.unwrap(), format!("{own}  "));
    let spans = spans_of("traces-own", 2).await;
    assert_eq!(only(&spans, &SpanKind::Server).trace_id(), TraceId::from(0xabc_u128));
    assert_ne!(only(&spans, &SpanKind::Client).id(), only(&spans, &SpanKind::Server).parent());
}

async fn a_client_without_the_layer_stays_in_the_trace(stage: &Stage) {
    desk!("traces-plain");
    #[service(name = "traces-middle")]
    trait Middle {
        async fn pass(&self) -> String;
    }
    struct Passes(DeskClient);
    impl Middle for Passes {
        async fn pass(&self) -> String {
            let client = self.0.clone();
            rpc_core::spawn(async move { client.ask(String::new()).await.unwrap() }).await.unwrap()
        }
    }
    let _turn = collect().await;
    let _inner = stage.pool(DeskServer::new(reads_context())).await.start().await.unwrap();
    let plain = DeskClient::new(&stage.connect().await);
    let middle = stage.pool(MiddleServer::new(Passes(plain))).await.layer(TraceLayer::new());
    let _middle = middle.start().await.unwrap();
    let client = MiddleClient::new(&stage.connect().await).layer(TraceLayer::new());
    let seen = client.pass().into_future().with_context(remote_context()).await.unwrap();
    let spans = spans_of("traces-middle", 2).await;
    let server = only(&spans, &SpanKind::Server);
    let expected = format!("00-{}-{}-01 vendor=one tenant=blue%2C%20or%20green", server.trace_id(), server.id());
    assert_eq!(seen, expected);
    assert_eq!(server.trace_id(), TraceId::from(0xabc_u128));
}

async fn requests_are_logged_when_asked_for(stage: &Stage) {
    desk!("traces-logged");
    let _turn = collect().await;
    let clerk =
        Clerk::with(
            |question, _| async move { if question == "closed" { Err(Refused::Closed) } else { Ok(question) } },
        );
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(TraceLayer::new().log_requests(true));
    let _pool = pool.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(TraceLayer::new());
    client.ask(SECRET.to_owned()).await.unwrap();
    client.ask("closed".to_owned()).await.unwrap_err();
    client.tell(SECRET.to_owned()).await.unwrap();
    // Those of the client are not asked for.
    let logged = requests_of("traces-logged", 3).await;
    let begins = |line: &str, code: &str| line.contains(&format!("method=traces-logged/ask code={code} duration_ms="));
    assert!(logged[0].contains("kind=server") && begins(&logged[0], "ok") && logged[0].contains("queue_wait_ms="));
    assert!(begins(&logged[1], "service"), "{logged:#?}");
    let line = "kind=consumer method=traces-logged/tell code=ok duration_ms=";
    assert!(logged[2].contains(line) && !logged[2].contains("queue_wait_ms="), "{logged:#?}");
    assert!(logged.iter().all(|line| !line.contains(SECRET)));
}

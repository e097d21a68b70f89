//! Metrics by the facade: times of calls, and counters of what happens to them.

use std::{collections::BTreeMap, time::Duration};

use metrics::Unit;
use rpc_core::{
    ClientOptions, Connection, DedupeOptions, FakePool, RedeliveryPolicy, RetryPolicy,
    layer::{self, MetricsLayer, Next, Request, Response},
};
use rpc_tests::{Stage, eventually, on_both_brokers, proxy::Proxy};
use tokio::time::sleep;

use self::recorder::{Measured, counted, described, label_values, measure, measured, only};
use crate::layers::desk::{Clerk, Refused, desk};

mod recorder;

on_both_brokers!(
    a_call_is_measured_on_both_sides_under_its_code,
    a_oneway_request_is_measured_as_a_message,
    a_call_without_an_answer_is_measured_to_its_end,
    what_happens_to_requests_of_a_client_is_counted,
    what_happens_to_requests_in_a_pool_is_counted,
    no_name_from_the_wire_becomes_a_label,
);

const SOON: Duration = Duration::from_secs(20);
const CLIENT: &str = "rpc.client.call.duration";
const SERVER: &str = "rpc.server.call.duration";

/// How often each code ended a call.
fn by_code(name: &str, service: &str) -> BTreeMap<String, u64> {
    let code = |measured: &Measured| measured.label("rpc.response.status_code").expect("it has a code").to_owned();
    measured(name, Some(service)).iter().map(|measured| (code(measured), measured.count())).collect()
}

fn active(side: &str, service: &str) -> f64 {
    only(&format!("rpc_amqp.{side}.active_calls"), Some(service)).level()
}

async fn a_call_is_measured_on_both_sides_under_its_code(stage: &Stage) {
    desk!("metrics-call");
    const NAME: &str = "metrics-call";
    let _turn = measure().await;
    let clerk = Clerk::with(|question, _| async move {
        sleep(Duration::from_millis(20)).await;
        match &*question {
            "panic" => panic!("for a test"),
            "closed" => Err(Refused::Closed),
            _ => Ok(question),
        }
    });
    let refuse = layer::from_fn(|request: Request, next: Next| async move {
        match request.header("refuse") {
            Some(_) => Ok(Response::refuse("permission_denied", "as the test asks")),
            None => next.run(request).await,
        }
    });
    let metrics = MetricsLayer::new();
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(metrics.clone()).layer(refuse);
    let _pool = pool.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(metrics);
    for question in ["a", "b", "closed", "panic", "c"] {
        let _ = client.ask(question.to_owned()).await;
    }
    client.ask("d".to_owned()).header("refuse", true).await.unwrap_err();
    let expected = [("internal", 1), ("ok", 3), ("permission_denied", 1), ("service", 1)];
    let expected: BTreeMap<_, _> = expected.map(|(code, calls)| (code.to_owned(), calls)).into();
    for (name, side, own) in [(CLIENT, "client", &["server.address", "server.port"][..]), (SERVER, "server", &[])] {
        assert_eq!(by_code(name, NAME), expected, "{name}");
        for measured in measured(name, Some(NAME)) {
            let code = measured.label("rpc.response.status_code").unwrap();
            let error = measured.label("error.type");
            assert_eq!(error, Some(code).filter(|code| *code != "ok"));
            let mut labels: Vec<_> = ["rpc.method", "rpc.response.status_code", "rpc.system.name"].into();
            labels.extend(own);
            labels.extend(error.map(|_| "error.type"));
            labels.sort_unstable();
            assert_eq!(measured.labels.keys().collect::<Vec<_>>(), labels);
            assert_eq!(measured.label("rpc.method"), Some("metrics-call/ask"));
            assert_eq!(measured.label("rpc.system.name"), Some("rpc_amqp"));
            if let (Some(host), Some(port)) = (measured.label("server.address"), measured.label("server.port")) {
                assert_eq!(format!("{host}:{port}"), rpc_tests::address_of(stage.broker_uri()));
            }
            let took_in_full = |seconds: &f64| (0.02..SOON.as_secs_f64()).contains(seconds);
            assert!(code == "permission_denied" || measured.seconds().iter().all(took_in_full), "{measured:?}");
        }
        assert_eq!(active(side, NAME).to_bits(), 0_f64.to_bits(), "all have ended");
        assert_eq!(described(name), Some(("histogram", Some(Unit::Seconds))));
    }
    assert_eq!(described("rpc_amqp.server.shed"), Some(("counter", Some(Unit::Count))));
    let waits = only("rpc_amqp.server.queue_wait", Some(NAME));
    assert_eq!((waits.count(), waits.label("rpc.method")), (6, Some("metrics-call/ask")));
}

#[tokio::test]
async fn a_call_of_a_fake_is_measured_on_both_sides() {
    desk!("metrics-fake");
    let _turn = measure().await;
    let (metrics, (clerk, _)) = (MetricsLayer::new(), Clerk::echo());
    let pool = FakePool::new().layer(metrics.clone()).serve(DeskServer::new(clerk));
    let client = DeskClient::from_client(pool.client()).layer(metrics);
    for _ in 0..2 {
        client.ask(String::new()).await.unwrap();
    }
    client.ask(String::new()).timeout(Duration::ZERO).await.unwrap_err();
    // Codes of the service's own are labels if its trait declares them.
    #[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize, rpc_core::ServiceError)]
    enum ShelfError {
        #[error("sold out")]
        SoldOut,
    }
    #[rpc_core::service(name = "metrics-own")]
    trait Shelf {
        async fn take(&self) -> Result<u32, ShelfError>;
    }
    struct Empty;
    impl Shelf for Empty {
        async fn take(&self) -> Result<u32, ShelfError> {
            Err(ShelfError::SoldOut)
        }
    }
    let metrics = MetricsLayer::new();
    let shelf = FakePool::new().layer(metrics.clone()).serve(ShelfServer::new(Empty)).client();
    ShelfClient::from_client(shelf.layer(metrics.clone())).take().await.unwrap_err();
    let stranger = layer::from_fn(|_, _| async {
        Ok(Response::detailed_error(vec![], rpc_core::ErrorDetails::new("made_up", "by a test")))
    });
    let strange = FakePool::new().layer(metrics.clone()).layer(stranger).serve(ShelfServer::new(Empty)).client();
    ShelfClient::from_client(strange.layer(metrics)).take().await.unwrap_err();
    let expected: BTreeMap<_, _> = [("_OTHER".to_owned(), 1), ("sold_out".to_owned(), 1)].into();
    for side in [CLIENT, SERVER] {
        assert_eq!(by_code(side, "metrics-own"), expected);
    }
    for (side, expected) in [(CLIENT, &[("ok", 2), ("timeout", 1)][..]), (SERVER, &[("ok", 2)])] {
        let expected: BTreeMap<_, _> = expected.iter().map(|(code, calls)| ((*code).to_owned(), *calls)).collect();
        assert_eq!(by_code(side, "metrics-fake"), expected);
    }
}

async fn a_oneway_request_is_measured_as_a_message(stage: &Stage) {
    desk!("metrics-oneway");
    const NAME: &str = "metrics-oneway";
    let _turn = measure().await;
    let (clerk, _) = Clerk::echo();
    let metrics = MetricsLayer::new();
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(metrics.clone()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(metrics);
    client.tell("note".to_owned()).await.unwrap();
    let [publish, process] = ["messaging.client.operation.duration", "messaging.process.duration"];
    eventually(SOON, "it is handled", async || counted(process, Some(NAME)) == 1).await;
    let (publish, process) = (only(publish, Some(NAME)), only(process, Some(NAME)));
    assert_eq!(publish.count(), 1);
    assert_eq!(publish.label("messaging.destination.name"), Some("rpc:metrics-oneway.tell"));
    assert_eq!(process.label("messaging.destination.name"), Some("rpc:metrics-oneway.tell:rpc.metrics-oneway"));
    for (measured, name, kind) in [(&publish, "publish", "send"), (&process, "consume", "process")] {
        assert_eq!(measured.label("messaging.system"), Some("rabbitmq"));
        assert_eq!(measured.label("messaging.operation.name"), Some(name));
        assert_eq!(measured.label("messaging.operation.type"), Some(kind));
        assert_eq!(measured.label("error.type"), None);
    }
    assert!(publish.label("server.address").is_some() && process.label("server.address").is_none());
    assert!(by_code(CLIENT, NAME).is_empty() && by_code(SERVER, NAME).is_empty(), "it has no reply");
}

async fn a_call_without_an_answer_is_measured_to_its_end(stage: &Stage) {
    desk!("metrics-ends");
    const NAME: &str = "metrics-ends";
    let _turn = measure().await;
    let (clerk, begun) = Clerk::hanging();
    let metrics = MetricsLayer::new();
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(metrics.clone()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(metrics);
    let call = tokio::spawn(client.ask("dropped".to_owned()).into_future());
    begun.notified().await;
    assert!([active("client", NAME), active("server", NAME)].iter().all(|active| (active - 1.0).abs() < 0.1));
    call.abort();
    let cancelled: BTreeMap<_, _> = [("cancelled".to_owned(), 1)].into();
    eventually(SOON, "the handler is stopped", async || by_code(SERVER, NAME) == cancelled).await;
    assert_eq!(by_code(CLIENT, NAME), cancelled);
    for name in ["rpc_amqp.client.cancels", "rpc_amqp.server.cancelled"] {
        eventually(SOON, name, async || counted(name, Some(NAME)) == 1).await;
        assert_eq!(only(name, Some(NAME)).label("rpc_amqp.service"), Some(NAME));
    }
    let late = client.ask("late".to_owned()).timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(late.code(), "timeout");
    assert_eq!(by_code(CLIENT, NAME).get("timeout"), Some(&1));
    let timeouts = only("rpc_amqp.client.timeouts", Some(NAME));
    // The worker stops the handler in the same millisecond, and may be the first to say so.
    assert!(matches!(timeouts.label("rpc_amqp.stage"), Some("unknown" | "running")), "{timeouts:?}");
    assert_eq!(timeouts.count(), 1);
    assert_eq!(timeouts.label("rpc.method"), Some("metrics-ends/ask"));
    let panics = client.layer(layer::from_fn(|_, _| async { panic!("for a test") }));
    assert!(tokio::spawn(panics.ask("panic".to_owned()).into_future()).await.unwrap_err().is_panic());
    assert_eq!(by_code(CLIENT, NAME).get("_OTHER"), Some(&1));
    assert!(active("client", NAME).abs() < 0.1);
}

async fn what_happens_to_requests_of_a_client_is_counted(stage: &Stage) {
    desk!("metrics-client");
    const NAME: &str = "metrics-client";
    let _turn = measure().await;
    // Without a layer.
    let options =
        ClientOptions::default().retry(RetryPolicy::default().attempts(2).backoff(Duration::ZERO, Duration::ZERO));
    let client = DeskClient::with_options(&stage.connect().await, options);
    assert_eq!(client.plain("nobody".to_owned()).await.unwrap_err().code(), "no_such_service");
    for name in ["rpc_amqp.client.returned", "rpc_amqp.client.retried"] {
        assert!(counted(name, Some(NAME)) >= 1, "{name}");
        assert_eq!(only(name, Some(NAME)).label("rpc.method"), Some("metrics-client/plain"));
    }
    let clerk = Clerk::with(|question, ctx| async move {
        // The answer to the first one is not to come.
        if question == "again" && ctx.attempt() == 1 {
            sleep(Duration::from_secs(60)).await;
        }
        Ok(question)
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let proxy = Proxy::start(stage.broker_uri()).await;
    let connection = Connection::open(&rpc_tests::framework_uri(proxy.uri())).await.unwrap();
    let client = DeskClient::new(&connection);
    client.plain("warm".to_owned()).await.unwrap();
    proxy.block();
    eventually(SOON, "it is blocked", async || client.client().stats().blocked > Duration::ZERO).await;
    proxy.unblock();
    let blocked = || measured("rpc_amqp.connection.blocked_time", None);
    eventually(SOON, "it is no longer blocked", async || !blocked().is_empty()).await;
    assert!(blocked()[0].seconds()[0] > 0.0);
    let call = tokio::spawn(client.plain("again".to_owned()).timeout(SOON).into_future());
    eventually(SOON, "it is under way", async || client.client().stats().in_flight == 1).await;
    proxy.cut();
    assert_eq!(call.await.unwrap().unwrap(), "again");
    assert!(counted("rpc_amqp.client.resent", Some(NAME)) >= 1);
    assert!(counted("rpc_amqp.connection.reconnects", None) >= 1);
}

async fn what_happens_to_requests_in_a_pool_is_counted(stage: &Stage) {
    desk!("metrics-pool");
    const NAME: &str = "metrics-pool";
    let _turn = measure().await;
    let clerk = Clerk::with(|question, ctx| async move {
        match &*question {
            "once" if !ctx.redelivered() => sleep(Duration::from_secs(60)).await,
            "fails" => panic!("for a test"),
            _ => {}
        }
        Ok(question)
    });
    let proxy = Proxy::start(stage.broker_uri()).await;
    let connection = Connection::open(&rpc_tests::framework_uri(proxy.uri())).await.unwrap();
    // Its queues are deleted with the stage.
    drop(stage.pool(DeskServer::new(clerk.clone())).await);
    let pool = rpc_core::WorkerPool::new(&connection).serve(DeskServer::new(clerk)).dedupe(DedupeOptions::default());
    let pool = pool.redelivery_policy(RedeliveryPolicy::DeadLetter).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    for _ in 0..2 {
        client.ask("the same".to_owned()).idempotency_key("metrics-key").await.unwrap();
    }
    assert!(counted("rpc_amqp.server.deduplicated", None) >= 1);
    client.tell("fails".to_owned()).await.unwrap();
    let failed = async || counted("rpc_amqp.server.dead_lettered", Some(NAME)) == 1;
    eventually(SOON, "the note is dead-lettered", failed).await;
    assert_eq!(counted("rpc_amqp.server.oneway_failed", Some(NAME)), 1);
    let call = tokio::spawn(client.ask("once".to_owned()).timeout(SOON).into_future());
    let running = || pool.stats().methods.iter().map(|stats| stats.running).sum::<u64>();
    eventually(SOON, "the handler begins", async || running() == 1).await;
    proxy.cut();
    assert_eq!(call.await.unwrap().unwrap_err().code(), "abandoned");
    assert!(counted("rpc_amqp.server.redelivered", Some(NAME)) >= 1);
    assert_eq!(counted("rpc_amqp.server.dead_lettered", Some(NAME)), 2);
    assert_eq!(only("rpc_amqp.server.dead_lettered", Some(NAME)).label("rpc_amqp.service"), Some(NAME));
}

async fn no_name_from_the_wire_becomes_a_label(stage: &Stage) {
    desk!("metrics-strangers");
    const NAME: &str = "metrics-strangers";
    let _turn = measure().await;
    let (clerk, _) = Clerk::echo();
    let metrics = MetricsLayer::new();
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(metrics.clone());
    let made_up = layer::from_fn(|_: Request, _| async { Ok(Response::refuse("made-up-code", "by a test")) });
    let _pool = pool.layer(made_up).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(metrics);
    assert_eq!(client.ask(String::new()).await.unwrap_err().code(), "made-up-code");
    for name in [CLIENT, SERVER] {
        assert_eq!(by_code(name, NAME), [("_OTHER".to_owned(), 1)].into());
        assert_eq!(only(name, Some(NAME)).label("error.type"), Some("_OTHER"));
    }
    // A method that the workers do not have: answered, and measured by none of them.
    let peer = stage.raw().await;
    let reply = peer.call("rpc", "metrics-strangers.made-up-method", Default::default(), b"").await;
    assert_eq!(rpc_tests::raw::header(&reply, "rpc-code"), Some("no_such_method"));
    assert!(label_values().iter().all(|value| !value.contains("made-up")), "{:?}", label_values());
}

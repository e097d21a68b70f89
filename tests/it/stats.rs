//! Counts of calls by method and by code, without any exporter.

use std::{sync::Arc, time::Duration};

use rpc_core::{
    ClientOptions, Codec, Connection, MethodStats, RedeliveryPolicy, RetryPolicy, TimeoutStage,
    layer::{self, Next, Request, Response},
    service,
};
use rpc_tests::{
    Stage, eventually, on_both_brokers,
    proxy::{Direction, Method, Proxy},
};
use tokio::{sync::Notify, time::sleep};

use crate::layers::desk::{Clerk, Refused, desk};

on_both_brokers!(
    calls_are_counted_by_method_and_code_on_both_sides,
    a_call_that_is_dropped_ends_as_cancelled_on_both_sides,
    what_happens_to_requests_on_their_way_is_counted,
    late_second_and_foreign_replies_are_counted_apart,
    losses_of_a_connection_are_counted_by_those_who_have_it,
    the_time_that_a_connection_is_blocked_is_counted,
    percentiles_are_there_when_they_are_asked_for,
);

const SOON: Duration = Duration::from_secs(20);

fn of<'a>(methods: &'a [MethodStats], method: &str) -> &'a MethodStats {
    methods.iter().find(|stats| stats.method == method).expect("the method is counted")
}

async fn calls_are_counted_by_method_and_code_on_both_sides(stage: &Stage) {
    desk!("stats-codes");
    let clerk = Clerk::with(|question, _| async move {
        match &*question {
            "panic" => panic!("for a test"),
            "closed" => Err(Refused::Closed),
            _ => Ok(question),
        }
    });
    let refuse = layer::from_fn(|request: Request, next: Next| async move {
        match request.header("refuse").and_then(|code| code.as_str()).map(str::to_owned) {
            Some(code) => Ok(Response::refuse(code, "as the test asks")),
            None => next.run(request).await,
        }
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(refuse).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    for question in ["a", "b", "closed", "panic", "c"] {
        let _ = client.ask(question.to_owned()).await;
    }
    for code in ["unauthenticated", "of-a-stranger"] {
        client.ask(String::new()).header("refuse", code).await.unwrap_err();
    }
    client.tell("note".to_owned()).await.unwrap();
    eventually(SOON, "the note is taken", async || of(&pool.stats().methods, "tell").calls == 1).await;
    let (called, served) = (client.client().stats(), pool.stats());
    for methods in [&called.methods, &served.methods] {
        let names: Vec<_> = methods.iter().map(|stats| (stats.service, stats.method)).collect();
        assert_eq!(names, ["ask", "plain", "tell"].map(|method| ("stats-codes", method)));
        let ask = of(methods, "ask");
        assert_eq!((ask.calls, ask.running, ask.failed(), ask.ended_with("ok")), (7, 0, 4, 3), "{ask:?}");
        assert_eq!(ask.errors, [("service", 1), ("internal", 1), ("unauthenticated", 1), ("_OTHER", 1)]);
        assert_eq!((of(methods, "plain").calls, of(methods, "tell").calls), (0, 1));
        assert!(methods.iter().all(|stats| stats.latency.is_none()), "it was not asked for");
    }
    assert_eq!((called.in_flight, called.resent, called.retried, called.returned, called.cancels), (0, 0, 0, 0, 0));
    assert_eq!((called.reconnects, called.blocked, called.timeouts.len()), (0, Duration::ZERO, 0));
    assert_eq!((served.received, served.redelivered, served.reconnects), (8, 0, 0));
    // Every clone counts in the same place, also one with layers.
    let layered = client.layer(layer::from_fn(|request: Request, next: Next| next.run(request)));
    layered.ask("d".to_owned()).await.unwrap();
    assert_eq!(of(&client.client().clone().stats().methods, "ask").calls, 8);
}

async fn a_call_that_is_dropped_ends_as_cancelled_on_both_sides(stage: &Stage) {
    desk!("stats-dropped");
    let (clerk, begun) = Clerk::hanging();
    let pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("dropped".to_owned()).into_future());
    begun.notified().await;
    let running = |methods: &[MethodStats]| of(methods, "ask").running;
    assert_eq!((running(&client.client().stats().methods), running(&pool.stats().methods)), (1, 1));
    assert_eq!(client.client().stats().in_flight, 1);
    call.abort();
    let ended = |methods: &[MethodStats]| of(methods, "ask").ended_with("cancelled") == 1 && running(methods) == 0;
    eventually(SOON, "the handler is stopped", async || ended(&pool.stats().methods)).await;
    let called = client.client().stats();
    assert!(ended(&called.methods), "{called:?}");
    assert_eq!(called.cancels, 1);
    assert_eq!(pool.stats().cancelled, 1);
}

async fn what_happens_to_requests_on_their_way_is_counted(stage: &Stage) {
    #[service(name = "stats-way")]
    trait Way {
        #[rpc(no_cancel)]
        async fn slow(&self) -> u32;
        #[rpc(idempotent)]
        async fn busy(&self) -> u32;
    }
    #[derive(Clone)]
    struct Slow(Arc<Notify>);
    impl Way for Slow {
        async fn slow(&self) -> u32 {
            self.0.notified().await;
            1
        }
        async fn busy(&self) -> u32 {
            1
        }
    }
    let connection = stage.connect().await;
    let options = ClientOptions::default().retry(RetryPolicy::default().attempts(2).backoff(QUICKLY, QUICKLY));
    let client = WayClient::with_options(&connection, options);
    assert_eq!(client.busy().await.unwrap_err().code(), "no_such_service");
    let stats = client.client().stats();
    assert!(stats.returned >= 1 && stats.retried >= 1, "{stats:?}");
    assert_eq!(of(&stats.methods, "busy").errors, [("no_such_service", 1)], "one call, however often it is sent");
    let answer = Arc::new(Notify::new());
    let pool = stage.pool(WayServer::new(Slow(Arc::clone(&answer)))).await.start().await.unwrap();
    // Its worker goes on, and its answer arrives too late.
    let call = tokio::spawn(client.slow().into_future());
    eventually(SOON, "the handler begins", async || of(&pool.stats().methods, "slow").running == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    answer.notify_one();
    eventually(SOON, "the answer arrives", async || client.client().stats().late_replies == 1).await;
    let late = client.slow().timeout(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(late.code(), "timeout");
    let stats = client.client().stats();
    // The worker stops the handler in the same millisecond, and may be the first to say so.
    assert!(matches!(stats.timeouts[..], [(TimeoutStage::Unknown | TimeoutStage::Running, 1)]), "{stats:?}");
    assert_eq!(stats.cancels, 0, "the method is not cancelled");
    assert_eq!(of(&stats.methods, "slow").errors, [("timeout", 1), ("cancelled", 1)]);
    let of_pool = |method| of(&pool.stats().methods, method).clone();
    eventually(SOON, "its handler ends", async || of_pool("slow").running == 0).await;
    assert_eq!((of_pool("slow").calls, of_pool("slow").errors), (2, vec![("timeout", 1)]));
}

async fn late_second_and_foreign_replies_are_counted_apart(stage: &Stage) {
    desk!("stats-replies");
    let connection = stage.connect().await;
    let client = DeskClient::new(&connection);
    client.client().ready().await.unwrap();
    let raw = stage.raw().await;
    let queue = raw.exclusive_queue().await;
    raw.bind(&queue, "rpc", "stats-replies.plain").await;
    let mut requests = raw.consume(&queue, 10).await;
    let body = Codec::MessagePack.encode("an answer").unwrap();
    let counts = || {
        let stats = client.client().stats();
        (stats.late_replies, stats.duplicate_replies, stats.foreign_replies)
    };
    let call = tokio::spawn(client.plain(String::new()).into_future());
    let request = requests.next().await;
    raw.answer_unacked(&request, &body).await;
    assert_eq!(call.await.unwrap().unwrap(), "an answer");
    raw.answer_unacked(&request, &body).await;
    eventually(SOON, "the second one is counted", async || counts() == (0, 1, 0)).await;
    let timeout = Duration::from_millis(200);
    client.plain(String::new()).timeout(timeout).await.unwrap_err();
    let late = requests.next().await;
    raw.answer_unacked(&late, &body).await;
    eventually(SOON, "the late one is counted", async || counts() == (1, 1, 0)).await;
    raw.answer_unacked(&late, &body).await;
    eventually(SOON, "its second one is counted", async || counts() == (1, 2, 0)).await;
    let reply_to = late.properties.reply_to().as_ref().unwrap().as_str().to_owned();
    for correlation_id in ["17", "0123456789abcdef"] {
        let properties = lapin::BasicProperties::default().with_correlation_id(correlation_id.into());
        raw.publish("", &reply_to, properties, &body).await;
    }
    eventually(SOON, "those of others are counted", async || counts() == (1, 2, 2)).await;
}

const QUICKLY: Duration = Duration::from_millis(10);

async fn losses_of_a_connection_are_counted_by_those_who_have_it(stage: &Stage) {
    desk!("stats-lost");
    let clerk = Clerk::with(|question, ctx| async move {
        // The answer to the first one is not to come.
        if ctx.attempt() == 1 && !ctx.redelivered() {
            sleep(Duration::from_secs(60)).await;
        }
        Ok(question)
    });
    let proxies = [Proxy::start(stage.broker_uri()).await, Proxy::start(stage.broker_uri()).await];
    let [called, served] = proxies.each_ref().map(|proxy| rpc_tests::framework_uri(proxy.uri()));
    let (called, served) = (Connection::open(&called).await.unwrap(), Connection::open(&served).await.unwrap());
    // Its queues are deleted with the stage.
    drop(stage.pool(DeskServer::new(clerk.clone())).await);
    let pool = rpc_core::WorkerPool::new(&served).serve(DeskServer::new(clerk));
    let pool = pool.redelivery_policy(RedeliveryPolicy::DeadLetter).start().await.unwrap();
    let client = DeskClient::new(&called);
    let call = tokio::spawn(client.plain("again".to_owned()).timeout(SOON).into_future());
    eventually(SOON, "the handler begins", async || of(&pool.stats().methods, "plain").running == 1).await;
    proxies[0].cut();
    assert_eq!(call.await.unwrap().unwrap(), "again");
    let stats = client.client().stats();
    assert!(stats.resent >= 1 && stats.reconnects == 1 && called.stats().reconnects == 1, "{stats:?}");
    assert_eq!((pool.stats().reconnects, of(&stats.methods, "plain").calls), (0, 1));
    // The worker's: the request is redelivered, and not executed again.
    let call = tokio::spawn(client.ask("once".to_owned()).timeout(SOON).into_future());
    eventually(SOON, "the handler begins", async || of(&pool.stats().methods, "ask").running == 1).await;
    proxies[1].cut();
    assert_eq!(call.await.unwrap().unwrap_err().code(), "abandoned");
    let stats = pool.stats();
    assert!(stats.redelivered >= 1 && stats.reconnects == 1 && stats.dead_lettered == 1, "{stats:?}");
    assert_eq!(of(&stats.methods, "ask").errors, [("abandoned", 1), ("cancelled", 1)], "the first one was stopped");
}

async fn the_time_that_a_connection_is_blocked_is_counted(stage: &Stage) {
    desk!("stats-blocked");
    let (clerk, _) = Clerk::echo();
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let proxy = Proxy::start(stage.broker_uri()).await;
    let connection = Connection::open(&rpc_tests::framework_uri(proxy.uri())).await.unwrap();
    let client = DeskClient::new(&connection);
    client.ask("before".to_owned()).await.unwrap();
    proxy.block();
    let blocked = || client.client().stats().blocked;
    eventually(SOON, "it is blocked, and time passes", async || blocked() > Duration::from_millis(20)).await;
    let late = client.ask("blocked".to_owned()).timeout(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.code(), "timeout");
    assert_eq!(client.client().stats().timeouts, [(TimeoutStage::Blocked, 1)]);
    proxy.unblock();
    client.ask("after".to_owned()).timeout(SOON).await.unwrap();
    let total = blocked();
    assert_eq!((total, connection.stats().blocked), (blocked(), total), "it stands");
    assert!(total > Duration::from_millis(70), "{total:?}");
    assert!(proxy.passed(Direction::ToBroker, Method::Publish) >= 2);
}

async fn percentiles_are_there_when_they_are_asked_for(stage: &Stage) {
    desk!("stats-times");
    let clerk = Clerk::with(|question, _| async move {
        sleep(Duration::from_millis(40)).await;
        Ok(question)
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.stats(true).start().await.unwrap();
    let client = DeskClient::with_options(&stage.connect().await, ClientOptions::default().stats(true));
    for _ in 0..3 {
        client.ask("how long?".to_owned()).await.unwrap();
    }
    for methods in [client.client().stats().methods, pool.stats().methods] {
        let latency = of(&methods, "ask").latency.expect("calls have ended");
        // A class is a sixteenth wide, and its end counts.
        assert!(latency.p50 >= Duration::from_millis(40) && latency.p99 >= latency.p50, "{latency:?}");
        assert!(latency.p99 < SOON && of(&methods, "plain").latency.is_none());
    }
}

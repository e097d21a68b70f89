//! Calls and their budgets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rpc_core::{CallError, Client, ClientOptions, TimeoutStage};
use rpc_tests::{Answers, Stage, eventually, on_both_brokers, probe, within};

on_both_brokers!(
    a_call_without_an_answer_ends_at_its_deadline,
    a_request_that_expired_in_the_queue_is_not_executed,
    a_request_that_expired_at_the_worker_is_not_executed,
    a_late_reply_is_dropped,
    a_duplicate_reply_is_dropped,
    a_dropped_call_is_forgotten,
    calls_above_the_limit_in_flight_wait_within_their_budget,
    the_methods_own_timeout_wins_over_the_clients,
    a_nested_call_inherits_the_budget_from_a_handler_and_from_a_task_that_it_spawned,
);

async fn a_call_without_an_answer_ends_at_its_deadline(stage: &Stage) {
    probe!("deadlines-fires");
    let answers = Answers::with(async |asked| {
        tokio::time::sleep(Duration::from_secs(30)).await;
        asked.question
    });
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let budget = Duration::from_millis(300);
    let begin = Instant::now();
    let error = client.ask("?".to_owned()).timeout(budget).await.unwrap_err();
    let took = begin.elapsed();
    // How late at most: `punctual`.
    assert!(took >= budget, "{took:?}");
    match error {
        CallError::Timeout { service, method, stage, after, .. } => {
            assert_eq!((service, method, after), ("deadlines-fires", "ask", budget));
            // The worker stops the handler in the same millisecond, and may be the first to say so.
            assert!(matches!(stage, TimeoutStage::Unknown | TimeoutStage::Running), "{stage:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Asks a question that keeps the only handler busy, then one that gives up before its turn; returns how many
/// questions a handler has seen, and what the pool counted.
async fn executed_after_giving_up(
    stage: &Stage,
    pool: rpc_core::WorkerPool,
    seen: &AtomicUsize,
    ask: impl Fn(&Client, &str, Duration) -> tokio::task::JoinHandle<Result<String, CallError>>,
) -> rpc_core::PoolStats {
    let pool = pool.start().await.unwrap();
    let client = stage.client().await;
    let first = ask(&client, "first", Duration::from_secs(10));
    eventually(Duration::from_secs(5), "the first is running", async || seen.load(Ordering::SeqCst) == 1).await;
    let second = ask(&client, "second", Duration::from_millis(200));
    assert_eq!(second.await.unwrap().unwrap_err().code(), "timeout");
    assert_eq!(first.await.unwrap().unwrap(), "first");
    assert_eq!(ask(&client, "third", Duration::from_secs(10)).await.unwrap().unwrap(), "third");
    assert_eq!(seen.load(Ordering::SeqCst), 2, "the second was never executed");
    pool.stats()
}

/// Counts the questions and answers the first one slowly.
fn slow_first(seen: &Arc<AtomicUsize>) -> Answers {
    let seen = Arc::clone(seen);
    Answers::with(move |asked| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            if asked.question == "first" {
                tokio::time::sleep(Duration::from_millis(800)).await;
            }
            asked.question
        }
    })
}

async fn a_request_that_expired_in_the_queue_is_not_executed(stage: &Stage) {
    probe!("deadlines-queued");
    let seen = Arc::new(AtomicUsize::new(0));
    let pool = stage.pool(ProbeServer::new(slow_first(&seen))).await.concurrency(1).prefetch(1);
    let stats = executed_after_giving_up(stage, pool, &seen, |client, question, budget| {
        tokio::spawn(ProbeClient::from_client(client.clone()).ask(question.to_owned()).timeout(budget).into_future())
    })
    .await;
    assert_eq!((stats.received, stats.expired), (2, 0), "the broker dropped it");
}

async fn a_request_that_expired_at_the_worker_is_not_executed(stage: &Stage) {
    probe!("deadlines-held");
    let seen = Arc::new(AtomicUsize::new(0));
    let pool = stage.pool(ProbeServer::new(slow_first(&seen))).await.concurrency(1).prefetch(8);
    let stats = executed_after_giving_up(stage, pool, &seen, |client, question, budget| {
        tokio::spawn(ProbeClient::from_client(client.clone()).ask(question.to_owned()).timeout(budget).into_future())
    })
    .await;
    assert_eq!((stats.received, stats.expired), (3, 1), "the worker dropped it");
}

async fn a_late_reply_is_dropped(stage: &Stage) {
    #[rpc_core::service(queue = "deadlines-late")]
    trait Late {
        async fn ask(&self, n: u32) -> u32;
    }
    stage.fresh("deadlines-late").await;
    let server = stage.raw().await;
    server.durable_queue("deadlines-late").await;
    let mut requests = server.consume("deadlines-late", 10).await;
    let client = stage.client().await;
    client.ready().await.unwrap();
    let late = LateClient::from_client(client.clone());
    // Long enough for the request to reach the server on a busy machine.
    let first = tokio::spawn(late.ask(1).timeout(Duration::from_millis(700)).into_future());
    let request = requests.next().await;
    assert_eq!(first.await.unwrap().unwrap_err().code(), "timeout");
    assert_eq!(client.in_flight(), 0);
    let second = tokio::spawn(late.ask(2).into_future());
    let next_request = requests.next().await;
    server.answer(&request, b"1").await;
    server.answer(&next_request, b"2").await;
    assert_eq!(second.await.unwrap().unwrap(), 2);
    assert_eq!(client.in_flight(), 0);
}

async fn a_duplicate_reply_is_dropped(stage: &Stage) {
    #[rpc_core::service(queue = "deadlines-duplicate")]
    trait Twice {
        async fn ask(&self, n: u32) -> u32;
    }
    stage.fresh("deadlines-duplicate").await;
    let server = stage.raw().await;
    server.durable_queue("deadlines-duplicate").await;
    let mut requests = server.consume("deadlines-duplicate", 10).await;
    let client = TwiceClient::new(&stage.connect().await);
    for n in 1..=3_u32 {
        let call = tokio::spawn(client.ask(n).into_future());
        let request = requests.next().await;
        server.answer_unacked(&request, n.to_string().as_bytes()).await;
        server.answer(&request, b"666").await;
        assert_eq!(call.await.unwrap().unwrap(), n);
    }
}

async fn a_dropped_call_is_forgotten(stage: &Stage) {
    probe!("deadlines-dropped");
    let answers = Answers::with(async |asked| {
        if asked.question == "slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        asked.question
    });
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = stage.client().await;
    let probe = ProbeClient::from_client(client.clone());
    let call = tokio::spawn(probe.ask("slow".to_owned()).into_future());
    eventually(Duration::from_secs(5), "the call is in flight", async || client.in_flight() == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(client.in_flight(), 0);
    // Its reply comes while this one waits.
    assert_eq!(probe.ask("next".to_owned()).await.unwrap(), "next");
}

async fn calls_above_the_limit_in_flight_wait_within_their_budget(stage: &Stage) {
    probe!("deadlines-limit");
    let release = Arc::new(tokio::sync::Notify::new());
    let answers = {
        let release = Arc::clone(&release);
        Answers::with(move |asked| {
            let release = Arc::clone(&release);
            async move {
                if asked.question == "held" {
                    release.notified().await;
                }
                asked.question
            }
        })
    };
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let options = ClientOptions::default().max_in_flight(1);
    let client = Client::with_options(&stage.connect().await, options);
    let probe = ProbeClient::from_client(client.clone());
    let held = tokio::spawn(probe.ask("held".to_owned()).into_future());
    eventually(Duration::from_secs(5), "one call is in flight", async || client.in_flight() == 1).await;
    let error = probe.ask("refused".to_owned()).timeout(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::InFlightLimit, .. }), "{error:?}");
    assert!(!error.maybe_executed());
    let waiting = tokio::spawn(probe.ask("waiting".to_owned()).into_future());
    release.notify_one();
    assert_eq!(held.await.unwrap().unwrap(), "held");
    assert_eq!(within(Duration::from_secs(5), "its turn", waiting).await.unwrap().unwrap(), "waiting");
}

async fn the_methods_own_timeout_wins_over_the_clients(stage: &Stage) {
    #[rpc_core::service(name = "deadlines-method")]
    trait Slow {
        #[rpc(timeout = "150ms")]
        async fn sleep(&self);
    }
    struct Sleeper;
    impl Slow for Sleeper {
        async fn sleep(&self) {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    let _pool = stage.pool(SlowServer::new(Sleeper)).await.start().await.unwrap();
    let client = SlowClient::new(&stage.connect().await);
    let error = client.sleep().await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { after, .. } if after == Duration::from_millis(150)), "{error:?}");
    client.sleep().timeout(Duration::from_secs(5)).await.unwrap();
}

async fn a_nested_call_inherits_the_budget_from_a_handler_and_from_a_task_that_it_spawned(stage: &Stage) {
    #[rpc_core::service(name = "deadlines-inner")]
    trait Inner {
        async fn left_ms(&self, ctx: &rpc_core::Context) -> Option<u64>;
    }
    #[rpc_core::service(name = "deadlines-outer")]
    trait Outer {
        async fn ask(&self, from_a_task: bool) -> Option<u64>;
    }
    struct Left;
    impl Inner for Left {
        async fn left_ms(&self, ctx: &rpc_core::Context) -> Option<u64> {
            ctx.remaining().and_then(|left| u64::try_from(left.as_millis()).ok())
        }
    }
    struct Asks(InnerClient);
    impl Outer for Asks {
        async fn ask(&self, from_a_task: bool) -> Option<u64> {
            let call = self.0.left_ms().into_future();
            if from_a_task { rpc_core::spawn(call).await.unwrap().unwrap() } else { call.await.unwrap() }
        }
    }
    let connection = stage.connect().await;
    let _inner = stage.pool(InnerServer::new(Left)).await.start().await.unwrap();
    let asks = Asks(InnerClient::new(&connection));
    let _outer = stage.pool(OuterServer::new(asks)).await.start().await.unwrap();
    let outer = OuterClient::new(&connection);
    for from_a_task in [false, true] {
        // A client's own budget is 10 s.
        let left = outer.ask(from_a_task).timeout(Duration::from_secs(5)).await.unwrap();
        assert!(left.is_some_and(|left| left <= 5_000), "{left:?} ms, from a task: {from_a_task}");
    }
}

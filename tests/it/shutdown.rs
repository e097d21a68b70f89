//! Pools and clients that stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rpc_core::{Connection, Error, PoolState, WorkerPool};
use rpc_tests::{
    Answers, Stage, WorkerProcess, eventually, on_both_brokers, probe,
    proxy::{Direction, Proxy},
    within,
};
use tokio::time::sleep;

on_both_brokers!(
    shutdown_finishes_running_handlers_and_requeues_the_other_requests,
    shutdown_of_an_idle_pool_is_immediate,
    a_handler_that_outlives_the_limit_is_aborted_and_its_request_redelivered,
    a_shutdown_without_patience_aborts_at_once,
    a_dropped_pool_gives_its_requests_back,
    pools_that_come_and_go_lose_no_call,
    a_worker_that_gets_sigterm_answers_the_requests_it_has_begun,
    a_client_that_is_shut_down_ends_its_calls,
    the_reply_queue_goes_with_its_connection,
    a_shutdown_over_a_stalled_connection_ends_after_its_limit,
    a_monitor_sees_a_pool_that_serves_until_a_signal_and_can_end_it,
);

/// Answers with `name` after `delay`, and counts what was begun.
fn named(name: &'static str, delay: Duration) -> (Arc<AtomicUsize>, Answers) {
    let begun = Arc::new(AtomicUsize::new(0));
    let answers = {
        let begun = Arc::clone(&begun);
        Answers::with(move |asked| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move {
                sleep(delay).await;
                format!("{name}{}", if asked.is_redelivered { ", redelivered" } else { "" })
            }
        })
    };
    (begun, answers)
}

async fn shutdown_finishes_running_handlers_and_requeues_the_other_requests(stage: &Stage) {
    probe!("shutdown-drains");
    let (begun, answers) = named("first", Duration::from_millis(500));
    let first = stage.pool(ProbeServer::new(answers)).await.concurrency(2).prefetch(5).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(client.ask(String::new()).into_future())).collect();
    eventually(Duration::from_secs(5), "two run, three wait at the worker", async || {
        begun.load(Ordering::SeqCst) == 2 && first.stats().received == 5
    })
    .await;
    let report = first.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!((report.aborted, begun.load(Ordering::SeqCst)), (0, 2), "nothing was begun or cut off meanwhile");
    let (_, answers) = named("second", Duration::ZERO);
    let _second = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(within(Duration::from_secs(10), "an answer", call).await.unwrap().unwrap());
    }
    answers.sort_unstable();
    let count = |answer: &str| answers.iter().filter(|given| *given == answer).count();
    // Requests that waited at the first worker had been delivered, and are marked so; the ones in the queue are not.
    assert_eq!((count("first"), count("second, redelivered"), count("second")), (2, 3, 5), "{answers:?}");
}

async fn a_worker_that_gets_sigterm_answers_the_requests_it_has_begun(stage: &Stage) {
    probe!("shutdown-sigterm");
    stage.fresh("rpc.shutdown-sigterm").await;
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_test_worker"));
    let delay = Duration::from_millis(300);
    let mut worker = WorkerProcess::spawn(program, stage.uri(), "shutdown-sigterm", "w", delay).await;
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("x".to_owned()).into_future());
    worker.begins("x").await;
    worker.terminate();
    assert_eq!(within(Duration::from_secs(10), "an answer", call).await.unwrap().unwrap(), "w: x");
    assert!(worker.ends("answered 1, aborted 0").await, "exit code 0");
}

async fn shutdown_of_an_idle_pool_is_immediate(stage: &Stage) {
    probe!("shutdown-idle");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let begin = Instant::now();
    let report = pool.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(report.aborted, 0);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let queue = stage.raw().await.queue("rpc.shutdown-idle").await.unwrap();
    assert_eq!((queue.ready, queue.consumers), (0, 0));
}

async fn a_handler_that_outlives_the_limit_is_aborted_and_its_request_redelivered(stage: &Stage) {
    probe!("shutdown-limit");
    let (begun, answers) = named("first", Duration::from_secs(3_600));
    let first = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask(String::new()).timeout(Duration::from_secs(30)).into_future());
    eventually(Duration::from_secs(5), "it runs", async || begun.load(Ordering::SeqCst) == 1).await;
    let begin = Instant::now();
    let report = first.shutdown(Duration::from_millis(200)).await.unwrap();
    assert_eq!(report.aborted, 1);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let (_, answers) = named("second", Duration::ZERO);
    let _second = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let answer = within(Duration::from_secs(10), "the second worker's answer", call).await.unwrap().unwrap();
    assert_eq!(answer, "second, redelivered");
}

async fn a_shutdown_without_patience_aborts_at_once(stage: &Stage) {
    probe!("shutdown-at-once");
    let (begun, answers) = named("first", Duration::from_secs(3_600));
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let _call = tokio::spawn(client.ask(String::new()).timeout(Duration::from_secs(30)).into_future());
    eventually(Duration::from_secs(5), "it runs", async || begun.load(Ordering::SeqCst) == 1).await;
    let report = pool.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!((report.aborted, report.stats.received, report.stats.answered), (1, 1, 0));
    let raw = stage.raw().await;
    let is_back = async || raw.queue("rpc.shutdown-at-once").await.unwrap().ready == 1;
    eventually(Duration::from_secs(5), "the request is back in its queue", is_back).await;
}

async fn a_dropped_pool_gives_its_requests_back(stage: &Stage) {
    probe!("shutdown-dropped");
    let (begun, answers) = named("first", Duration::from_secs(3_600));
    // Its connection stays open: the channel alone has to go.
    let first = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask(String::new()).timeout(Duration::from_secs(30)).into_future());
    eventually(Duration::from_secs(5), "it runs", async || begun.load(Ordering::SeqCst) == 1).await;
    drop(first);
    let (_, answers) = named("second", Duration::ZERO);
    let _second = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let answer = within(Duration::from_secs(10), "the second worker's answer", call).await.unwrap().unwrap();
    assert_eq!(answer, "second, redelivered");
}

async fn pools_that_come_and_go_lose_no_call(stage: &Stage) {
    probe!("shutdown-rolling");
    let answers = || named("", Duration::from_millis(2)).1;
    let client = ProbeClient::new(&stage.connect().await);
    let start =
        async || stage.pool(ProbeServer::new(answers())).await.concurrency(4).prefetch(8).start().await.unwrap();
    let mut pool = start().await;
    let caller = tokio::spawn(async move {
        let mut answered = 0;
        for _ in 0..100 {
            let calls: Vec<_> = (0..10)
                .map(|_| tokio::spawn(client.ask(String::new()).timeout(Duration::from_secs(30)).into_future()))
                .collect();
            for call in calls {
                call.await.unwrap().unwrap();
                answered += 1;
            }
        }
        answered
    });
    let mut replaced = 0;
    while !caller.is_finished() {
        let next = start().await;
        let old = std::mem::replace(&mut pool, next);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(old.shutdown(Duration::from_secs(10)).await.unwrap().aborted, 0);
        replaced += 1;
    }
    assert_eq!(caller.await.unwrap(), 1_000);
    assert!(replaced >= 2, "{replaced}");
}

async fn a_client_that_is_shut_down_ends_its_calls(stage: &Stage) {
    probe!("shutdown-client");
    let (begun, answers) = named("", Duration::from_secs(3_600));
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let client = stage.client().await;
    let probe = ProbeClient::from_client(client.clone());
    let call = tokio::spawn(probe.ask(String::new()).into_future());
    eventually(Duration::from_secs(5), "it runs", async || begun.load(Ordering::SeqCst) == 1).await;
    client.shutdown();
    let error = within(Duration::from_secs(2), "the call ends", call).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "shutdown");
    assert_eq!(probe.ask(String::new()).await.unwrap_err().code(), "shutdown");
}

async fn the_reply_queue_goes_with_its_connection(stage: &Stage) {
    probe!("shutdown-reply-queue");
    let answers = Answers::with(async |asked| asked.reply_to.unwrap_or_default());
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let connection = stage.connect().await;
    let client = ProbeClient::new(&connection);
    let reply_queue = client.ask(String::new()).await.unwrap();
    let raw = stage.raw().await;
    // Another connection may not even look at an exclusive queue (405), and a missing one is a 404: told apart by
    // declaring it, which works only once it is gone.
    assert_eq!(raw.queue(&reply_queue).await, None);
    assert!(!stage.raw().await.can_declare(&reply_queue).await, "it is still there");
    connection.close().await.unwrap();
    eventually(Duration::from_secs(5), "the reply queue is gone", async || {
        stage.raw().await.can_declare(&reply_queue).await
    })
    .await;
}

async fn a_shutdown_over_a_stalled_connection_ends_after_its_limit(stage: &Stage) {
    probe!("shutdown-stalled");
    stage.fresh("rpc.shutdown-stalled").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    ProbeClient::new(&stage.connect().await).ask("once".to_owned()).await.unwrap();
    eventually(SOON, "the answer is counted", async || pool.stats().answered == 1).await;
    proxy.stall(Direction::ToBroker);
    let shutdown = pool.shutdown(Duration::from_millis(200));
    let error = within(Duration::from_secs(10), "the shutdown ends", shutdown).await.unwrap_err();
    assert!(matches!(error.error, Error::TimedOut { .. }), "not by a panic or a loss: {error:?}");
    assert_eq!(error.report.stats.answered, 1, "a shutdown that fails gives its report, too");
    assert!(matches!(Error::from(error), Error::TimedOut { .. }));
}

async fn a_monitor_sees_a_pool_that_serves_until_a_signal_and_can_end_it(stage: &Stage) {
    probe!("shutdown-monitor");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let monitor = pool.monitor();
    let serving = tokio::spawn(pool.run_until_signal(Duration::from_secs(10)));
    let client = ProbeClient::new(&stage.connect().await);
    client.ask("once".to_owned()).await.unwrap();
    eventually(SOON, "the answer is counted", async || monitor.stats().answered == 1).await;
    assert_eq!(monitor.state(), PoolState::Serving);
    monitor.clone().request_shutdown();
    let report = within(SOON, "the shutdown that was asked for", serving).await.unwrap().unwrap();
    assert_eq!((report.aborted, report.stats.answered), (0, 1));
    assert_eq!((monitor.state(), monitor.stats()), (PoolState::Stopped, report.stats));
}

const SOON: Duration = Duration::from_secs(10);

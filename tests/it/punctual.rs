//! Calls that get no answer end within 50 ms of their deadline, wherever they are stuck, and say where that is.
//!
//! Lateness is measured beside a timer of the same task, so that a busy machine is not taken for a late call.

use std::{sync::Arc, time::Duration};

use rpc_core::{Call, CallError, Client, ClientOptions, Connection, ConnectionState, TimeoutStage, service};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

on_both_brokers!(
    a_call_whose_handler_runs_ends_on_time,
    a_call_that_is_queued_ends_on_time_and_expires_there,
    a_call_beyond_the_limit_in_flight_ends_on_time,
    a_call_without_a_connection_ends_on_time,
    a_call_on_a_blocked_connection_ends_on_time,
    a_call_sent_before_the_block_ends_on_time_and_may_have_run,
    a_call_into_a_stalled_connection_ends_on_time,
    a_one_way_call_without_a_confirm_ends_on_time,
);

/// Makes calls that get no answer: each ends at the stage, after its deadline, and not 50 ms after it.
async fn end_on_time<T: DeserializeOwned + Send + 'static>(stage: TimeoutStage, call: impl Fn() -> Call<T>) {
    end_on_time_at(&[stage], call).await;
}

/// As [`end_on_time`], at any of the stages.
async fn end_on_time_at<T: DeserializeOwned + Send + 'static>(stages: &[TimeoutStage], call: impl Fn() -> Call<T>) {
    let mut medians = Vec::new();
    for _ in 0..TRIES {
        let mut lateness = Vec::new();
        for _ in 0..CALLS {
            lateness.push(lateness_of(stages, call()).await);
        }
        lateness.sort_unstable();
        medians.push(lateness[CALLS / 2]);
        if medians.last().is_some_and(|median| *median <= PROMISE) {
            return;
        }
    }
    panic!("calls end late, by {medians:?}");
}

async fn lateness_of<T: DeserializeOwned + Send + 'static>(stages: &[TimeoutStage], call: Call<T>) -> Duration {
    let deadline = Instant::now() + BUDGET;
    let call = async {
        let outcome = call.timeout(BUDGET).await;
        (outcome.err(), Instant::now())
    };
    let timer = async {
        sleep_until(deadline).await;
        Instant::now()
    };
    let ((error, ended), rang) = tokio::join!(call, timer);
    assert!(ended >= deadline, "before its deadline: {error:?}");
    match error {
        Some(CallError::Timeout { stage, after: BUDGET, .. }) if stages.contains(&stage) => {}
        other => panic!("{other:?}"),
    }
    ended.saturating_duration_since(rang)
}

/// Never answers.
fn silent() -> Answers {
    Answers::with(async |_| std::future::pending().await)
}

async fn a_call_whose_handler_runs_ends_on_time(stage: &Stage) {
    probe!("punctual-running");
    let _pool = stage.pool(ProbeServer::new(silent())).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    client.client().ready().await.unwrap();
    // The worker stops the handler in the same millisecond, and may be the first to say so.
    end_on_time_at(&[TimeoutStage::Unknown, TimeoutStage::Running], || client.ask(String::new())).await;
}

async fn a_call_that_is_queued_ends_on_time_and_expires_there(stage: &Stage) {
    probe!("punctual-queued");
    let pool = stage.pool(ProbeServer::new(silent())).await;
    pool.start().await.unwrap().shutdown(SOON).await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    client.client().ready().await.unwrap();
    end_on_time(TimeoutStage::Unknown, || client.ask(String::new())).await;
    end_on_time(TimeoutStage::Unknown, || client.ask_again(String::new())).await;
    let raw = stage.raw().await;
    eventually(SOON, "they expire", async || raw.queue("rpc.punctual-queued").await.unwrap().ready == 0).await;
}

async fn a_call_beyond_the_limit_in_flight_ends_on_time(stage: &Stage) {
    probe!("punctual-limit");
    let _pool = stage.pool(ProbeServer::new(silent())).await.start().await.unwrap();
    let client = Client::with_options(&stage.connect().await, ClientOptions::default().max_in_flight(1));
    let probe = ProbeClient::from_client(client.clone());
    let held = tokio::spawn(probe.ask(String::new()).timeout(Duration::from_secs(50)).into_future());
    eventually(SOON, "one call is in flight", async || client.in_flight() == 1).await;
    end_on_time(TimeoutStage::InFlightLimit, || probe.ask(String::new())).await;
    held.abort();
}

async fn a_call_without_a_connection_ends_on_time(stage: &Stage) {
    probe!("punctual-connecting");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let client = ProbeClient::new(&connection);
    assert_eq!(client.ask("before".to_owned()).await.unwrap(), "before");
    proxy.refuse();
    proxy.cut();
    let is_lost = async || matches!(connection.state(), ConnectionState::Reconnecting { .. });
    eventually(SOON, "the connection is lost", is_lost).await;
    end_on_time(TimeoutStage::Connecting, || client.ask(String::new())).await;
    end_on_time(TimeoutStage::Connecting, || client.ask_again(String::new())).await;
}

async fn a_call_on_a_blocked_connection_ends_on_time(stage: &Stage) {
    probe!("punctual-blocked");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let client = ProbeClient::new(&connection);
    assert_eq!(client.ask("before".to_owned()).await.unwrap(), "before");
    proxy.block();
    eventually(SOON, "it is blocked", async || matches!(connection.state(), ConnectionState::Blocked { .. })).await;
    end_on_time(TimeoutStage::Blocked, || client.ask(String::new())).await;
    end_on_time(TimeoutStage::Blocked, || client.ask_again(String::new())).await;
    proxy.unblock();
    assert_eq!(client.ask("after".to_owned()).await.unwrap(), "after");
    assert_eq!(pool.stats().received, 2, "a call that was not sent arrived");
}

/// The block may last longer than the call: nobody can say whether the broker had it before.
async fn a_call_sent_before_the_block_ends_on_time_and_may_have_run(stage: &Stage) {
    probe!("punctual-sent");
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let answers = {
        let begun = Arc::clone(&begun);
        Answers::with(move |_| {
            begun.add_permits(1);
            std::future::pending()
        })
    };
    let _pool = stage.pool(ProbeServer::new(answers)).await.concurrency(64).start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let client = ProbeClient::new(&connection);
    for is_idempotent in [false, true] {
        client.client().ready().await.unwrap();
        let call = if is_idempotent { client.ask_again(String::new()) } else { client.ask(String::new()) };
        let call = tokio::spawn(call.timeout(Duration::from_secs(2)).into_future());
        begun.acquire().await.unwrap().forget();
        proxy.block();
        eventually(SOON, "it is blocked", async || matches!(connection.state(), ConnectionState::Blocked { .. })).await;
        let error = call.await.unwrap().unwrap_err();
        let CallError::Timeout { stage: TimeoutStage::Unknown | TimeoutStage::Running, .. } = error else {
            panic!("{error:?}");
        };
        assert!(error.maybe_executed(), "it runs");
        proxy.unblock();
        eventually(SOON, "it goes on", async || connection.state() == ConnectionState::Connected).await;
    }
}

async fn a_call_into_a_stalled_connection_ends_on_time(stage: &Stage) {
    probe!("punctual-stalled");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let client = ProbeClient::new(&Connection::open(proxy.uri()).await.unwrap());
    assert_eq!(client.ask("before".to_owned()).await.unwrap(), "before");
    proxy.stall(Direction::ToBroker);
    end_on_time(TimeoutStage::Unknown, || client.ask(String::new())).await;
    proxy.release();
    assert_eq!(client.ask("after".to_owned()).await.unwrap(), "after");
}

async fn a_one_way_call_without_a_confirm_ends_on_time(stage: &Stage) {
    #[service(name = "punctual-one-way")]
    trait Notes {
        #[rpc(oneway)]
        async fn note(&self);
    }
    struct Nowhere;
    impl Notes for Nowhere {
        async fn note(&self) {}
    }
    let _pool = stage.pool(NotesServer::new(Nowhere)).await.start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let client = NotesClient::new(&Connection::open(proxy.uri()).await.unwrap());
    client.note().await.unwrap();
    proxy.hold(Direction::ToBroker, Method::Publish);
    end_on_time(TimeoutStage::Unconfirmed, || client.note()).await;
}

/// As the guide promises.
const PROMISE: Duration = Duration::from_millis(50);
const BUDGET: Duration = Duration::from_millis(80);
const CALLS: usize = 9;
/// A machine may be busy with something else throughout one try.
const TRIES: usize = 5;
const SOON: Duration = Duration::from_secs(10);

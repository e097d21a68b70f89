//! Calls to services nobody serves: told in one round trip.

use std::time::{Duration, Instant};

use rpc_core::CallError;
use rpc_tests::{Answers, Stage, on_both_brokers, probe};

on_both_brokers!(
    a_service_that_was_never_served_is_reported_at_once,
    a_oneway_call_to_nobody_is_reported_too,
    a_missing_bare_queue_is_reported,
    returns_reach_their_own_calls_among_many,
);

/// Far below the calls' timeout, far above a round trip.
const AT_ONCE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);

async fn a_service_that_was_never_served_is_reported_at_once(stage: &Stage) {
    probe!("unroutable-nobody");
    let client = ProbeClient::new(&stage.connect().await);
    // The first call also sets the reply queue up; the others show the round trip alone.
    for _ in 0..5 {
        let begin = Instant::now();
        let error = client.ask(String::new()).timeout(TIMEOUT).await.unwrap_err();
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
        assert!(!error.maybe_executed() && error.is_retryable());
        match error {
            CallError::NoSuchService { service, method, message, .. } => {
                assert_eq!((service, method), ("unroutable-nobody", "ask"));
                assert_eq!(&*message, "no queue is bound with routing key 'unroutable-nobody.ask' (NO_ROUTE)");
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn a_oneway_call_to_nobody_is_reported_too(stage: &Stage) {
    #[rpc_core::service(name = "unroutable-oneway")]
    trait Log {
        #[rpc(oneway)]
        async fn note(&self, text: String);
    }
    let client = LogClient::new(&stage.connect().await);
    let begin = Instant::now();
    let error = client.note("x".to_owned()).timeout(TIMEOUT).await.unwrap_err();
    assert_eq!(error.code(), "no_such_service");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

async fn a_missing_bare_queue_is_reported(stage: &Stage) {
    #[rpc_core::service(queue = "unroutable-bare")]
    trait Fib {
        async fn fib(&self, n: u32) -> u64;
    }
    let client = FibClient::new(&stage.connect().await);
    let begin = Instant::now();
    let error = client.fib(30).timeout(TIMEOUT).await.unwrap_err();
    assert_eq!(error.code(), "no_such_service");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

async fn returns_reach_their_own_calls_among_many(stage: &Stage) {
    mod served {
        rpc_tests::probe!("unroutable-served");
        pub(super) use {ProbeClient as Client, ProbeServer as Server};
    }
    probe!("unroutable-absent");
    let _pool = stage.pool(served::Server::new(Answers::echo())).await.start().await.unwrap();
    let client = stage.client().await;
    let served = served::Client::from_client(client.clone());
    let absent = ProbeClient::from_client(client);
    let begin = Instant::now();
    let calls: Vec<_> = (0..200)
        .map(|n: usize| {
            let question = n.to_string();
            let call = if n.is_multiple_of(2) { served.ask(question) } else { absent.ask(question) };
            tokio::spawn(call.timeout(TIMEOUT).into_future())
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        match call.await.unwrap() {
            Ok(answer) => assert_eq!((n % 2, answer), (0, n.to_string())),
            Err(error) => assert_eq!((n % 2, error.code()), (1, "no_such_service"), "{error}"),
        }
    }
    assert!(begin.elapsed() < TIMEOUT / 2, "{:?}", begin.elapsed());
}

//! A circuit breaker around a service that fails, and then answers again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rpc_core::{
    CallError,
    layer::{BreakerState, CircuitBreaker},
};
use rpc_tests::{Stage, on_both_brokers};
use tokio::time::sleep;

use super::desk::{Clerk, Refused, desk};

on_both_brokers!(a_circuit_opens_over_failures_and_closes_again, errors_of_the_service_leave_the_circuit_closed);

async fn a_circuit_opens_over_failures_and_closes_again(stage: &Stage) {
    desk!("breaker-opens");
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let clerk = Clerk::with(move |question, _| {
        assert!(!failing.load(Ordering::SeqCst), "the handler panics: internal");
        async move { Ok(question) }
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let pause = Duration::from_millis(400);
    let breaker = CircuitBreaker::new().open_for(pause);
    let client = DeskClient::new(&stage.connect().await).layer(breaker.clone());
    for _ in 0..20 {
        assert_eq!(client.plain(String::new()).await.unwrap_err().code(), "internal");
    }
    assert_eq!(breaker.state("breaker-opens"), BreakerState::Open);
    let received = pool.stats().received;
    let error = client.plain(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("circuit_open", false, true), "{error}");
    let CallError::Other { error, .. } = error else { panic!("{error:?}") };
    assert!(error.retry_after.is_some_and(|time| time <= pause), "{error:?}");
    assert_eq!(pool.stats().received, received, "it was not sent");
    fails.store(false, Ordering::SeqCst);
    sleep(pause).await;
    assert_eq!(breaker.state("breaker-opens"), BreakerState::HalfOpen);
    client.plain("again".to_owned()).await.unwrap();
    assert_eq!(breaker.state("breaker-opens"), BreakerState::Closed);
    client.plain("again".to_owned()).await.unwrap();
}

async fn errors_of_the_service_leave_the_circuit_closed(stage: &Stage) {
    desk!("breaker-service");
    let clerk = Clerk::with(|question, _| async move {
        match &*question {
            "late" => std::future::pending().await,
            _ => Err(Refused::Closed),
        }
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let breaker = CircuitBreaker::new();
    let client = DeskClient::new(&stage.connect().await).layer(breaker.clone());
    for _ in 0..25 {
        assert_eq!(client.ask(String::new()).await.unwrap_err().code(), "service");
    }
    assert_eq!(breaker.state("breaker-service"), BreakerState::Closed);
    // Timeouts do open it.
    let late =
        (0..30).map(|_| tokio::spawn(client.ask("late".to_owned()).timeout(Duration::from_millis(150)).into_future()));
    for call in late.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap_err().code(), "timeout");
    }
    assert_eq!(breaker.state("breaker-service"), BreakerState::Open);
}

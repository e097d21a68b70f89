//! Stacks of tower's own layers, each on both sides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rpc_core::{
    CallError, TimeoutStage,
    layer::{BoxError, Request, Response},
};
use rpc_tests::{Stage, eventually, on_both_brokers};
use tokio::{sync::Semaphore, time::sleep};
use tower::{
    ServiceBuilder,
    buffer::BufferLayer,
    filter::FilterLayer,
    limit::{ConcurrencyLimitLayer, RateLimitLayer},
    load_shed::LoadShedLayer,
    retry::{Policy, RetryLayer},
    timeout::TimeoutLayer,
};

use super::{
    SOON,
    desk::{Clerk, desk},
};

on_both_brokers!(
    a_concurrency_limit_holds,
    a_rate_limit_holds_under_a_buffer,
    load_is_shed_when_the_stack_is_not_ready,
    a_foreign_timeout_never_claims_that_nothing_was_executed,
    a_retry_layer_tries_again_and_a_filter_refuses,
);

/// Takes as long as the question says, in milliseconds, and counts how many run at once.
fn slow() -> (Clerk, Arc<Running>) {
    let running = Arc::<Running>::default();
    let counted = running.clone();
    let clerk = Clerk::with(move |question, _| {
        let running = counted.clone();
        async move {
            let now = running.now.fetch_add(1, Ordering::SeqCst) + 1;
            running.most.fetch_max(now, Ordering::SeqCst);
            running.all.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(question.parse().unwrap())).await;
            running.now.fetch_sub(1, Ordering::SeqCst);
            Ok(question)
        }
    });
    (clerk, running)
}

/// Answers once it is released, and counts how many began.
fn held() -> (Clerk, Arc<Running>, Arc<Semaphore>) {
    let (running, release) = (Arc::<Running>::default(), Arc::new(Semaphore::new(0)));
    let (counted, released) = (Arc::clone(&running), Arc::clone(&release));
    let clerk = Clerk::with(move |question, _| {
        let released = Arc::clone(&released);
        counted.all.fetch_add(1, Ordering::SeqCst);
        async move {
            released.acquire().await.unwrap().forget();
            Ok(question)
        }
    });
    (clerk, running, release)
}

#[derive(Debug, Default)]
struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

async fn a_concurrency_limit_holds(stage: &Stage) {
    mod worker {
        crate::layers::desk::desk!("stacks-limit");
    }
    let (clerk, running) = slow();
    let pool = stage.pool(worker::DeskServer::new(clerk)).await.layer(ConcurrencyLimitLayer::new(2));
    let _pool = pool.start().await.unwrap();
    let client = worker::DeskClient::new(&stage.connect().await);
    let all = |client: &worker::DeskClient| {
        let calls: Vec<_> = (0..8).map(|_| tokio::spawn(client.ask("20".to_owned()).into_future())).collect();
        async move {
            for call in calls {
                call.await.unwrap().unwrap();
            }
        }
    };
    all(&client).await;
    assert!(running.most.swap(0, Ordering::SeqCst) <= 2, "in the pool");
    all(&client.layer(ConcurrencyLimitLayer::new(1))).await;
    assert_eq!(running.most.load(Ordering::SeqCst), 1, "in the client");
}

async fn a_rate_limit_holds_under_a_buffer(stage: &Stage) {
    desk!("stacks-rate");
    let (clerk, running) = slow();
    let rate =
        || ServiceBuilder::new().layer(BufferLayer::new(64)).layer(RateLimitLayer::new(2, Duration::from_millis(300)));
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(rate()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    for client in [client.clone(), client.layer(rate())] {
        let begin = Instant::now();
        let calls: Vec<_> = (0..5).map(|_| tokio::spawn(client.ask("0".to_owned()).into_future())).collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
    }
    assert_eq!(running.all.load(Ordering::SeqCst), 10);
}

async fn load_is_shed_when_the_stack_is_not_ready(stage: &Stage) {
    desk!("stacks-shed");
    let (clerk, running, release) = held();
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let plain = DeskClient::new(&stage.connect().await);
    // Together, and one after the other.
    let together = plain.layer(ServiceBuilder::new().layer(LoadShedLayer::new()).layer(ConcurrencyLimitLayer::new(1)));
    let apart = plain.layer(LoadShedLayer::new()).layer(ConcurrencyLimitLayer::new(1));
    for (at, client) in [together, apart].into_iter().enumerate() {
        let first = tokio::spawn(client.ask(String::new()).into_future());
        eventually(SOON, "the handler begins", async || running.all.load(Ordering::SeqCst) > at).await;
        let error = client.ask(String::new()).await.unwrap_err();
        assert!(matches!(error, CallError::Overloaded { .. }) && !error.maybe_executed(), "{error:?}");
        assert!(error.is_retryable());
        release.add_permits(1);
        first.await.unwrap().unwrap();
    }
    assert_eq!(running.all.load(Ordering::SeqCst), 2);
    // In a pool.
    mod shedding {
        crate::layers::desk::desk!("stacks-shed-pool");
    }
    let (clerk, running, release) = held();
    let shed = ServiceBuilder::new().layer(LoadShedLayer::new()).layer(ConcurrencyLimitLayer::new(1));
    let pool = stage.pool(shedding::DeskServer::new(clerk)).await.layer(shed).start().await.unwrap();
    let client = shedding::DeskClient::new(&stage.connect().await);
    let first = tokio::spawn(client.ask(String::new()).into_future());
    eventually(SOON, "the handler begins", async || running.all.load(Ordering::SeqCst) == 1).await;
    for _ in 0..3 {
        let error = client.ask(String::new()).await.unwrap_err();
        assert!(matches!(error, CallError::Overloaded { .. }) && !error.maybe_executed(), "{error:?}");
    }
    release.add_permits(1);
    first.await.unwrap().unwrap();
    assert_eq!(running.all.load(Ordering::SeqCst), 1);
    pool.shutdown(SOON).await.unwrap();
}

async fn a_foreign_timeout_never_claims_that_nothing_was_executed(stage: &Stage) {
    desk!("stacks-timeout");
    let (clerk, _) = slow();
    let limit = || TimeoutLayer::new(Duration::from_millis(100));
    let _pool = stage.pool(DeskServer::new(clerk.clone())).await.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(limit());
    let error = client.ask("5000".to_owned()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Unknown, .. }), "{error:?}");
    mod pool {
        crate::layers::desk::desk!("stacks-timeout-pool");
    }
    let _slow = stage.pool(pool::DeskServer::new(clerk)).await.layer(limit()).start().await.unwrap();
    let error = pool::DeskClient::new(&stage.connect().await).ask("5000".to_owned()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }) && error.maybe_executed(), "{error:?}");
}

/// Tries each request up to three times, while it is retryable and was not executed.
#[derive(Clone)]
struct Thrice(u32);

impl Policy<Request, Response, BoxError> for Thrice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, BoxError>) -> Option<Self::Future> {
        let again = result.as_ref().is_ok_and(|response| response.is_retryable() && !response.maybe_executed());
        self.0 += 1;
        (again && self.0 < 3).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

async fn a_retry_layer_tries_again_and_a_filter_refuses(stage: &Stage) {
    desk!("stacks-retry");
    let (clerk, running) = slow();
    let busy_twice = super::layer::from_fn(|request: Request, next: super::Next| async move {
        match request.attempt() {
            3.. => next.run(request).await,
            _ => Ok(Response::failed(rpc_core::OtherError::new("busy", "later").retryable(true))),
        }
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(busy_twice).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    assert_eq!(client.ask("0".to_owned()).await.unwrap_err().code(), "busy");
    let patient = client.layer(RetryLayer::new(Thrice(0)));
    assert_eq!(patient.ask("0".to_owned()).await.unwrap(), "0");
    assert_eq!(running.all.load(Ordering::SeqCst), 1);
    let only_plain = |request: Request| match request.method() {
        "plain" => Ok(request),
        _ => Err(BoxError::from("only plain questions")),
    };
    let error = patient.layer(FilterLayer::new(only_plain)).ask("0".to_owned()).await.unwrap_err();
    assert!(matches!(error, CallError::Layer { .. }) && !error.maybe_executed(), "{error:?}");
}

//! Policies for retries, on clients, methods and calls.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{BasicProperties, types::AMQPValue};
use rpc_core::{
    CallError, Client, ClientOptions, Context, RetryBudget, RetryPolicy, ServiceError,
    layer::{self, Next, Request, Response, RetryLayer, RpcLayer},
};
use rpc_tests::{Stage, eventually, on_both_brokers, raw::Peer, within};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::layers::desk::Log;

mod hedging;
mod tiers;

on_both_brokers!(
    a_call_that_was_refused_is_sent_again_with_its_number_and_message_id,
    a_call_waits_for_a_service_that_is_about_to_start,
    an_error_that_the_service_marks_is_repeated_after_the_time_that_it_asks_for,
    an_attempt_that_takes_too_long_is_cancelled_and_another_worker_answers,
    a_timeout_without_a_limit_for_attempts_is_final,
    layers_see_a_call_once_outside_of_its_retries_and_each_attempt_inside,
    methods_and_calls_have_policies_of_their_own,
    the_budget_of_a_client_bounds_the_retries_of_all_its_calls,
    a_oneway_request_is_sent_again_until_a_queue_takes_it,
    a_call_that_is_dropped_in_a_pause_is_not_sent_again,
    a_worker_of_another_language_asks_for_another_attempt,
);

/// An error that says whether callers should try again.
#[derive(Debug, Clone, PartialEq, thiserror::Error, ServiceError, Serialize, Deserialize)]
pub(crate) enum StockError {
    #[error("none left")]
    SoldOut,
    #[error("busy")]
    #[rpc(retryable)]
    Busy,
    #[error("the stock is being counted")]
    #[rpc(code = "stocktaking", retry_after = "400ms")]
    Counting,
}

type Answer = Pin<Box<dyn Future<Output = Result<u32, StockError>> + Send>>;

/// Serves a stock by a function of the context.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<dyn Fn(Context) -> Answer + Send + Sync>);

impl Shelf {
    pub(crate) fn with<F, A>(answer: F) -> Self
    where
        F: Fn(Context) -> A + Send + Sync + 'static,
        A: Future<Output = Result<u32, StockError>> + Send + 'static,
    {
        Self(Arc::new(move |ctx| Box::pin(answer(ctx))))
    }

    /// Answers with these in turn, and with the last one for ever; counts the requests.
    pub(crate) fn script(answers: impl IntoIterator<Item = Result<u32, StockError>>) -> (Self, Arc<AtomicUsize>) {
        let answers: Vec<_> = answers.into_iter().collect();
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let shelf = Self::with(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let answer = answers[number.min(answers.len() - 1)].clone();
            async move { answer }
        });
        (shelf, count)
    }

    pub(crate) async fn answer(&self, ctx: &Context) -> Result<u32, StockError> {
        (self.0)(ctx.clone()).await
    }
}

/// Declares, where it stands, a service of that name, served by a [`Shelf`].
macro_rules! stock {
    ($name:literal) => {
        #[rpc_core::service(name = $name)]
        pub(crate) trait Stock {
            #[rpc(idempotent, hedge)]
            async fn count(&self, ctx: &rpc_core::Context) -> Result<u32, $crate::retries::StockError>;
            async fn take(&self, ctx: &rpc_core::Context) -> Result<u32, $crate::retries::StockError>;
            #[rpc(oneway)]
            async fn arrived(&self, ctx: &rpc_core::Context);
        }

        impl Stock for $crate::retries::Shelf {
            async fn count(&self, ctx: &rpc_core::Context) -> Result<u32, $crate::retries::StockError> {
                self.answer(ctx).await
            }
            async fn take(&self, ctx: &rpc_core::Context) -> Result<u32, $crate::retries::StockError> {
                self.answer(ctx).await
            }
            async fn arrived(&self, ctx: &rpc_core::Context) {
                self.answer(ctx).await.unwrap();
            }
        }
    };
}
pub(crate) use stock;

/// Options with a policy whose pauses are short.
pub(crate) fn retrying(policy: RetryPolicy) -> ClientOptions {
    ClientOptions::default().retry(policy.backoff(Duration::from_millis(10), Duration::from_millis(20)))
}

/// A layer of a pool that refuses the first requests, unexecuted, and counts all.
pub(crate) fn refusing(first: usize) -> (impl RpcLayer, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let layer = layer::from_fn(move |request: Request, next: Next| {
        let is_refused = counted.fetch_add(1, Ordering::SeqCst) < first;
        async move {
            match is_refused {
                true => Ok(Response::refuse("overloaded", "too many")),
                false => next.run(request).await,
            }
        }
    });
    (layer, count)
}

async fn a_call_that_was_refused_is_sent_again_with_its_number_and_message_id(stage: &Stage) {
    stock!("retries-refused");
    let log = Log::default();
    let noting = log.clone();
    let shelf = Shelf::with(move |ctx| {
        noting.note(format!("{} {}", ctx.attempt(), ctx.message_id().unwrap_or("none")));
        async { Ok(5) }
    });
    let (refuse, count) = refusing(2);
    let ids = Log::default();
    let noting = ids.clone();
    let see = layer::from_fn(move |request: Request, next: Next| {
        noting.note(format!("{} {}", request.attempt(), request.message_id().unwrap_or("none")));
        next.run(request)
    });
    let _pool = stage.pool(StockServer::new(shelf)).await.layer(see).layer(refuse).start().await.unwrap();
    let connection = stage.connect().await;
    let client = StockClient::with_options(&connection, retrying(RetryPolicy::default()));
    // It was not executed, so the method need not be idempotent.
    assert_eq!(client.take().await.unwrap(), 5);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let executed = log.take();
    let id = executed[0].strip_prefix("3 ").expect("the third attempt");
    assert!(id != "none");
    assert_eq!(ids.take(), [1, 2, 3].map(|attempt| format!("{attempt} {id}")));
    // Without a policy it is refused at once.
    let (refuse, _) = refusing(1);
    stock_again::serve(stage, refuse).await;
}

mod stock_again {
    use super::*;
    stock!("retries-refused-again");

    pub(super) async fn serve(stage: &Stage, refuse: impl RpcLayer) {
        let (shelf, _) = Shelf::script([Ok(5)]);
        let _pool = stage.pool(StockServer::new(shelf)).await.layer(refuse).start().await.unwrap();
        let error = StockClient::new(&stage.connect().await).take().await.unwrap_err();
        assert!(matches!(error, CallError::Overloaded { .. }), "{error:?}");
    }
}

async fn a_call_waits_for_a_service_that_is_about_to_start(stage: &Stage) {
    stock!("retries-start");
    stage.fresh("rpc.retries-start").await;
    let connection = stage.connect().await;
    let policy = RetryPolicy::default().attempts(1_000);
    let options = retrying(policy).retry_budget(RetryBudget::percent(0).min_per_s(1_000));
    let client = StockClient::with_options(&connection, options);
    let early = tokio::spawn(client.take().into_future());
    // Its first attempt finds no queue.
    sleep(Duration::from_millis(100)).await;
    assert!(!early.is_finished());
    let (shelf, count) = Shelf::script([Ok(5)]);
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    assert_eq!(within(SOON, "the service is there", early).await.unwrap().unwrap(), 5);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

async fn an_error_that_the_service_marks_is_repeated_after_the_time_that_it_asks_for(stage: &Stage) {
    stock!("retries-marked");
    let (shelf, count) = Shelf::script([Err(StockError::Busy), Err(StockError::Counting), Ok(5)]);
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    let connection = stage.connect().await;
    let client = StockClient::with_options(&connection, retrying(RetryPolicy::default()));
    let begun_at = Instant::now();
    assert_eq!(client.count().await.unwrap(), 5);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert!(begun_at.elapsed() >= Duration::from_millis(400), "{:?}", begun_at.elapsed());
    // The wait would end after the deadline.
    count.store(1, Ordering::SeqCst);
    let error = client.count().timeout(Duration::from_millis(390)).await.unwrap_err();
    assert!(matches!(error, CallError::Service { error: StockError::Counting, .. }), "{error:?}");
    assert_eq!((error.retry_after(), count.load(Ordering::SeqCst)), (Some(Duration::from_millis(400)), 2));
    // It may have been executed: another method is not repeated.
    count.store(0, Ordering::SeqCst);
    let error = client.take().await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable(), count.load(Ordering::SeqCst)), ("busy", true, 1));
    // Nor is an error that is not marked.
    count.store(0, Ordering::SeqCst);
    let (shelf, count) = Shelf::script([Err(StockError::SoldOut)]);
    mod sold_out {
        super::stock!("retries-sold-out");
    }
    let _sold_out = stage.pool(sold_out::StockServer::new(shelf)).await.start().await.unwrap();
    let client = sold_out::StockClient::with_options(&connection, retrying(RetryPolicy::default()));
    assert_eq!(client.count().await.unwrap_err().code(), "sold_out");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

async fn an_attempt_that_takes_too_long_is_cancelled_and_another_worker_answers(stage: &Stage) {
    stock!("retries-slow");
    let cancelled = Log::default();
    let noting = cancelled.clone();
    let shelf = Shelf::with(move |ctx| {
        let noting = noting.clone();
        async move {
            if ctx.attempt() == 1 {
                let stuck = ctx.clone();
                tokio::spawn(async move {
                    stuck.cancelled().await;
                    noting.note(format!("cancelled {}", stuck.attempt()));
                });
                sleep(Duration::from_secs(60)).await;
            }
            Ok(ctx.attempt())
        }
    });
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    let policy = RetryPolicy::default().attempt_timeout(Duration::from_millis(300));
    let client = StockClient::with_options(&stage.connect().await, retrying(policy));
    let begun_at = Instant::now();
    assert_eq!(client.count().await.unwrap(), 2);
    assert!(begun_at.elapsed() < Duration::from_secs(9), "not at its deadline");
    eventually(SOON, "the first one is cancelled", async || cancelled.len() == 1).await;
    assert_eq!(cancelled.take(), ["cancelled 1"]);
    // One that must not run twice has all of its time.
    let error = client.take().timeout(Duration::from_millis(900)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
    eventually(SOON, "it is cancelled", async || cancelled.len() == 1).await;
}

async fn a_timeout_without_a_limit_for_attempts_is_final(stage: &Stage) {
    stock!("retries-timeout");
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let shelf = Shelf::with(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    let client = StockClient::with_options(&stage.connect().await, retrying(RetryPolicy::default()));
    let limit = Duration::from_millis(500);
    let begun_at = Instant::now();
    let error = within(SOON, "the deadline", client.count().timeout(limit).into_future()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }) && error.maybe_executed(), "{error:?}");
    assert!(begun_at.elapsed() >= limit);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // With one, the attempts together have the call's time and no more.
    let policy = RetryPolicy::default().attempt_timeout(Duration::from_millis(100));
    let client = StockClient::with_options(&stage.connect().await, retrying(policy));
    let error = within(SOON, "the deadline", client.count().timeout(limit).into_future()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }) && error.maybe_executed(), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

async fn layers_see_a_call_once_outside_of_its_retries_and_each_attempt_inside(stage: &Stage) {
    stock!("retries-layers");
    let (shelf, _) = Shelf::script([Ok(5)]);
    let (refuse, count) = refusing(2);
    let _pool = stage.pool(StockServer::new(shelf)).await.layer(refuse).start().await.unwrap();
    let connection = stage.connect().await;
    let log = Log::default();
    let client = StockClient::with_options(&connection, retrying(RetryPolicy::default())).layer(log.layer("around"));
    assert_eq!(client.take().await.unwrap(), 5);
    assert_eq!(log.take(), ["around take", "around ok"]);
    // A layer of its own stands where it is added. The policy of the options, further in, leaves it alone.
    count.store(0, Ordering::SeqCst);
    let retry = RetryLayer::new(RetryPolicy::default());
    let client = client.layer(retry).layer(log.layer("within"));
    assert_eq!(client.take().await.unwrap(), 5);
    let attempts = ["within take", "within overloaded", "within take", "within overloaded", "within take", "within ok"];
    assert_eq!(log.take(), [&["around take"][..], &attempts, &["around ok"]].concat());
    count.store(0, Ordering::SeqCst);
    let error = client.take().retry(RetryPolicy::default().attempts(2)).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { .. }) && !error.maybe_executed(), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2, "a call's own policy is applied once, too");
}

async fn methods_and_calls_have_policies_of_their_own(stage: &Stage) {
    stock!("retries-methods");
    let (shelf, _) = Shelf::script([Ok(5)]);
    let (refuse, count) = refusing(usize::MAX);
    let _pool = stage.pool(StockServer::new(shelf)).await.layer(refuse).start().await.unwrap();
    let connection = stage.connect().await;
    let unlimited = RetryBudget::percent(0).min_per_s(1_000);
    let options = retrying(RetryPolicy::default())
        .retry_method("retries-methods.count", RetryPolicy::default().attempts(2))
        .retry_budget(unlimited);
    let client = StockClient::with_options(&connection, options);
    let plain = StockClient::new(&connection);
    let calls = [
        (client.take(), 3),
        (client.count(), 2),
        (client.take().retry(RetryPolicy::default().attempts(4)), 4),
        (client.count().retry(RetryPolicy::none()), 1),
        (plain.take(), 1),
        (plain.take().retry(RetryPolicy::default()), 3),
    ];
    for (at, (call, attempts)) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap_err().code(), "overloaded");
        assert_eq!(count.swap(0, Ordering::SeqCst), attempts, "call {at}");
    }
}

async fn the_budget_of_a_client_bounds_the_retries_of_all_its_calls(stage: &Stage) {
    stock!("retries-budget");
    let (shelf, _) = Shelf::script([Ok(5)]);
    let (refuse, count) = refusing(usize::MAX);
    let _pool = stage.pool(StockServer::new(shelf)).await.layer(refuse).start().await.unwrap();
    let options = retrying(RetryPolicy::default()).retry_budget(RetryBudget::percent(10).min_per_s(0));
    let client = Client::with_options(&stage.connect().await, options);
    let (one, other) = (StockClient::from_client(client.clone()), StockClient::from_client(client));
    let calls: Vec<_> = (0..100).flat_map(|_| [one.take(), other.count()]).collect();
    let calls: Vec<_> = calls.into_iter().map(|call| tokio::spawn(call.into_future())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().code(), "overloaded");
    }
    assert_eq!(count.load(Ordering::SeqCst), 200 + 20);
    let policy = RetryPolicy::default().attempts(100);
    assert_eq!(one.take().retry(policy).await.unwrap_err().code(), "overloaded");
    assert_eq!(count.load(Ordering::SeqCst), 221, "a call's own policy draws on it, too");
}

async fn a_oneway_request_is_sent_again_until_a_queue_takes_it(stage: &Stage) {
    stock!("retries-oneway");
    stage.fresh("rpc.retries-oneway").await;
    let policy = RetryPolicy::default().attempts(1_000);
    let options = retrying(policy).retry_budget(RetryBudget::percent(0).min_per_s(1_000));
    let client = StockClient::with_options(&stage.connect().await, options);
    let early = tokio::spawn(client.arrived().into_future());
    sleep(Duration::from_millis(100)).await;
    assert!(!early.is_finished());
    let log = Log::default();
    let noting = log.clone();
    let shelf = Shelf::with(move |ctx| {
        noting.note(if ctx.attempt() > 1 { "again" } else { "first" });
        async { Ok(0) }
    });
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    within(SOON, "a queue takes it", early).await.unwrap().unwrap();
    eventually(SOON, "it is executed", async || log.len() == 1).await;
    assert_eq!(log.take(), ["again"], "it has its number");
}

async fn a_call_that_is_dropped_in_a_pause_is_not_sent_again(stage: &Stage) {
    stock!("retries-dropped");
    let (shelf, _) = Shelf::script([Ok(5)]);
    let (refuse, count) = refusing(usize::MAX);
    let _pool = stage.pool(StockServer::new(shelf)).await.layer(refuse).start().await.unwrap();
    // A pause is drawn at random, so its bound is so long that none ends while the case runs.
    let years = Duration::from_secs(10 * 365 * 24 * 3_600);
    let policy = RetryPolicy::default().backoff(years, years);
    let client = StockClient::with_options(&stage.connect().await, ClientOptions::default().retry(policy));
    let call = tokio::spawn(client.take().without_timeout().into_future());
    eventually(SOON, "the first attempt", async || count.load(Ordering::SeqCst) == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The deadline is near, so the pause is not begun.
    let error = within(SOON, "its end", client.take().into_future()).await.unwrap_err();
    assert_eq!((error.code(), count.load(Ordering::SeqCst)), ("overloaded", 2));
    assert_eq!(client.client().in_flight(), 0);
}

async fn a_worker_of_another_language_asks_for_another_attempt(stage: &Stage) {
    stock!("retries-foreign");
    stage.fresh("rpc.retries-foreign").await;
    let client = Client::with_options(&stage.connect().await, retrying(RetryPolicy::default()));
    client.ready().await.unwrap();
    let server = stage.raw().await;
    server.durable_queue("rpc.retries-foreign").await;
    server.bind("rpc.retries-foreign", "rpc", "retries-foreign.count").await;
    let serving = async {
        let mut requests = server.consume("rpc.retries-foreign", 1).await;
        let mut attempts = Vec::new();
        for code in ["service", "overloaded", "ok"] {
            let request = requests.next().await;
            let header = |name: &str| request.properties.headers().as_ref()?.inner().get(name).cloned();
            let number = |value: AMQPValue| match value {
                AMQPValue::LongLongInt(number) => number,
                AMQPValue::LongInt(number) => number.into(),
                AMQPValue::LongUInt(number) => number.into(),
                other => panic!("{other:?}"),
            };
            let id = request.properties.message_id().as_ref().map(ToString::to_string);
            attempts.push((header("rpc-attempt").map(number), id));
            answer(&server, &request, code).await;
        }
        attempts
    };
    let (answer, attempts) = tokio::join!(StockClient::from_client(client).count().into_future(), serving);
    assert_eq!(answer.unwrap(), 5);
    let id = attempts[0].1.clone();
    assert!(id.is_some());
    assert_eq!(attempts, [(None, id.clone()), (Some(2), id.clone()), (Some(3), id)]);
    server.close().await;
}

async fn answer(server: &Peer, request: &lapin::message::Delivery, code: &str) {
    let properties = BasicProperties::default();
    if code == "ok" {
        return server.answer_with(request, properties, b"\x05").await;
    }
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("rpc-code".into(), AMQPValue::LongString(code.into()));
    headers.insert("rpc-retryable".into(), AMQPValue::Boolean(true));
    let properties = properties.with_type("rpc.error".into()).with_headers(headers);
    server.answer_with(request, properties, b"\xa4Busy").await;
}

/// For what should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

//! Requests that come again, and those that come too often.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    BasicProperties,
    options::BasicRejectOptions,
    types::{AMQPValue, FieldTable},
};
use rpc_core::{CallError, QueueKind, RedeliveryPolicy, WorkerPool, service};
use rpc_tests::{Stage, eventually, on_both_brokers, raw::header, within};

on_both_brokers!(
    a_redelivered_request_is_executed_unless_the_pool_says_otherwise,
    a_redelivered_request_can_be_reported_instead,
    a_redelivered_request_can_be_dead_lettered,
    an_idempotent_request_is_executed_again_whatever_the_policy,
    a_request_that_keeps_losing_its_worker_is_dead_lettered_and_its_caller_notified,
    a_request_that_no_worker_takes_is_dead_lettered_by_the_broker,
    the_caller_of_a_request_that_the_broker_dead_letters_is_notified,
    an_expired_request_is_no_dead_letter,
);

/// Hangs while it may; counts what has begun.
#[derive(Clone, Default)]
struct Hanging {
    begun: Arc<AtomicUsize>,
    /// How many requests hang before one is answered.
    hangs: usize,
}

impl Hanging {
    fn times(hangs: usize) -> Self {
        Self { begun: Arc::default(), hangs }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn answer(&self) -> String {
        if self.begun.fetch_add(1, Ordering::SeqCst) < self.hangs {
            std::future::pending::<()>().await;
        }
        "done".to_owned()
    }
}

/// Declares the service where it stands, under that name.
macro_rules! hanging {
    ($name:literal) => {
        #[service(name = $name)]
        trait Job {
            async fn once(&self) -> String;
            #[rpc(idempotent)]
            async fn again(&self) -> String;
        }

        impl Job for Hanging {
            async fn once(&self) -> String {
                self.answer().await
            }
            async fn again(&self) -> String {
                self.answer().await
            }
        }
    };
}

type Outcome = Result<String, CallError>;

/// The outcome of a call whose first worker is lost with it.
async fn call_after_loss(
    service: &Hanging,
    pool: impl AsyncFn() -> WorkerPool,
    call: tokio::task::JoinHandle<Outcome>,
) -> (Outcome, rpc_core::PoolStats) {
    let first = pool().await.start().await.unwrap();
    eventually(SOON, "the handler runs", async || service.begun() == 1).await;
    drop(first);
    let second = pool().await.start().await.unwrap();
    let outcome = within(SOON, "the outcome", call).await.unwrap();
    (outcome, second.stats())
}

async fn a_redelivered_request_is_executed_unless_the_pool_says_otherwise(stage: &Stage) {
    hanging!("poison-execute");
    let service = Hanging::times(1);
    let pool = async || stage.pool(JobServer::new(service.clone())).await;
    pool().await.start().await.unwrap().shutdown(SOON).await.unwrap();
    let client = JobClient::new(&stage.connect().await);
    let (outcome, _) = call_after_loss(&service, pool, tokio::spawn(client.once().into_future())).await;
    assert_eq!((outcome.unwrap(), service.begun()), ("done".to_owned(), 2));
}

async fn a_redelivered_request_can_be_reported_instead(stage: &Stage) {
    hanging!("poison-report");
    let service = Hanging::times(1);
    let pool = async || {
        stage.pool(JobServer::new(service.clone())).await.redelivery_policy(RedeliveryPolicy::ReplyMaybeExecuted)
    };
    pool().await.start().await.unwrap().shutdown(SOON).await.unwrap();
    let client = JobClient::new(&stage.connect().await);
    let (outcome, stats) = call_after_loss(&service, pool, tokio::spawn(client.once().into_future())).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, CallError::Abandoned { .. }), "{error:?}");
    assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("abandoned", true, false));
    assert_eq!((service.begun(), stats.dead_lettered), (1, 0), "not executed again");
    assert!(stage.raw().await.queue("rpc.poison-report.dead").await.is_none(), "there is no use for it");
}

async fn a_redelivered_request_can_be_dead_lettered(stage: &Stage) {
    hanging!("poison-keep");
    stage.fresh("rpc.poison-keep.dead").await;
    let service = Hanging::times(1);
    let pool =
        async || stage.pool(JobServer::new(service.clone())).await.redelivery_policy(RedeliveryPolicy::DeadLetter);
    pool().await.start().await.unwrap().shutdown(SOON).await.unwrap();
    let client = JobClient::new(&stage.connect().await);
    let call = client.once().header("tenant", "blue").idempotency_key("order 7").timeout(Duration::from_secs(20));
    let (outcome, stats) = call_after_loss(&service, pool, tokio::spawn(call.into_future())).await;
    assert_eq!(outcome.unwrap_err().code(), "abandoned");
    assert_eq!((service.begun(), stats.dead_lettered), (1, 1));
    let letter = stage.raw().await.consume("rpc.poison-keep.dead", 1).await.next().await;
    assert_eq!(header(&letter, "rpc-dead-reason"), Some("redelivered"));
    assert_eq!(header(&letter, "rpc-dead-routing-key"), Some("poison-keep.once"));
    assert_eq!(header(&letter, "tenant"), Some("blue"), "its own are kept");
    let properties = &letter.properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("order 7"));
    assert!(properties.reply_to().is_some() && properties.correlation_id().is_some());
    assert_eq!((properties.delivery_mode(), properties.expiration()), (&Some(2), &None), "it lasts");
}

async fn an_idempotent_request_is_executed_again_whatever_the_policy(stage: &Stage) {
    hanging!("poison-idempotent");
    stage.fresh("rpc.poison-idempotent.dead").await;
    let service = Hanging::times(1);
    let pool =
        async || stage.pool(JobServer::new(service.clone())).await.redelivery_policy(RedeliveryPolicy::DeadLetter);
    pool().await.start().await.unwrap().shutdown(SOON).await.unwrap();
    let client = JobClient::new(&stage.connect().await);
    let (outcome, stats) = call_after_loss(&service, pool, tokio::spawn(client.again().into_future())).await;
    assert_eq!((outcome.unwrap(), stats.dead_lettered), ("done".to_owned(), 0));
}

async fn a_request_that_keeps_losing_its_worker_is_dead_lettered_and_its_caller_notified(stage: &Stage) {
    hanging!("poison-limit");
    stage.fresh("rpc.poison-limit.dead").await;
    let service = Hanging::times(usize::MAX);
    let pool = async || {
        let pool = stage.pool(JobServer::new(service.clone())).await;
        pool.queue_kind(QueueKind::Quorum).delivery_limit(2).start().await.unwrap()
    };
    let mut worker = pool().await;
    let client = JobClient::new(&stage.connect().await);
    // Idempotent: the limit is for all.
    let call = tokio::spawn(client.again().timeout(Duration::from_secs(30)).into_future());
    for round in 1..=2 {
        eventually(SOON, "the handler runs", async || service.begun() == round).await;
        drop(worker);
        worker = pool().await;
    }
    let error = within(SOON, "the caller is told", call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Abandoned { .. }), "{error:?}");
    assert_eq!((service.begun(), worker.stats().dead_lettered), (2, 1), "executed as often as it may be");
    let letter = stage.raw().await.consume("rpc.poison-limit.dead", 1).await.next().await;
    assert_eq!(header(&letter, "rpc-dead-reason"), Some("delivery_limit"));
    assert_eq!(header(&letter, "rpc-dead-routing-key"), Some("poison-limit.again"));
}

/// Asks without the framework, which would cancel what it gives up.
async fn ask(stage: &Stage, routing_key: &str, properties: BasicProperties) {
    let properties = properties.with_content_type("application/msgpack".into());
    stage.raw().await.publish("rpc", routing_key, properties, &[0x80]).await;
}

async fn a_request_that_no_worker_takes_is_dead_lettered_by_the_broker(stage: &Stage) {
    hanging!("poison-broker");
    stage.fresh("rpc.poison-broker.dead").await;
    let pool = stage.pool(JobServer::new(Hanging::default())).await;
    let pool = pool.queue_kind(QueueKind::Quorum).delivery_limit(1).start().await.unwrap();
    pool.shutdown(SOON).await.unwrap();
    let raw = stage.raw().await;
    let mut requests = raw.consume("rpc.poison-broker", 1).await;
    let headers =
        FieldTable::from(std::collections::BTreeMap::from([("tenant".into(), AMQPValue::LongString("blue".into()))]));
    ask(stage, "poison-broker.once", BasicProperties::default().with_headers(headers)).await;
    for _ in 0..2 {
        let request = requests.next().await;
        request.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
    let letter = stage.raw().await.consume("rpc.poison-broker.dead", 1).await.next().await;
    assert_eq!(header(&letter, "x-first-death-reason"), Some("delivery_limit"));
    assert_eq!((letter.routing_key.as_str(), header(&letter, "tenant")), ("poison-broker.once", Some("blue")));
}

/// Takes a request and gives it back until the broker has enough of it. RabbitMQ 4.3 counts a reject, and no nack.
async fn exhaust(requests: &mut rpc_tests::raw::Deliveries) {
    for _ in 0..2 {
        let request = requests.next().await;
        request.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
}

async fn the_caller_of_a_request_that_the_broker_dead_letters_is_notified(stage: &Stage) {
    hanging!("poison-told");
    for queue in ["rpc.poison-told.dead", "rpc.poison-told.dead.callers"] {
        stage.fresh(queue).await;
    }
    let service = Hanging::times(1);
    let pool = async || {
        let pool = stage.pool(JobServer::new(service.clone())).await.concurrency(1);
        pool.queue_kind(QueueKind::Quorum).delivery_limit(1).start().await.unwrap()
    };
    pool().await.shutdown(SOON).await.unwrap();
    let client = JobClient::new(&stage.connect().await);
    let call = |timeout| tokio::spawn(client.once().timeout(timeout).into_future());
    let long = Duration::from_secs(50);
    let rival = stage.raw().await;
    let mut requests = rival.consume("rpc.poison-told", 1).await;

    // While nobody serves: the next worker tells.
    let unheard = call(long);
    exhaust(&mut requests).await;
    let letters = stage.raw().await;
    let is_waiting = async || letters.queue("rpc.poison-told.dead.callers").await.unwrap().ready == 1;
    eventually(SOON, "the letter waits", is_waiting).await;
    assert!(!unheard.is_finished());
    rival.close().await;
    let worker = pool().await;
    let error = within(SOON, "the caller is told", unheard).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Abandoned { .. }), "{error:?}");
    assert!(error.maybe_executed() && !error.is_retryable());
    // The caller may hear of it first.
    eventually(SOON, "the answer is counted", async || worker.stats().answered == 1).await;
    assert_eq!(service.begun(), 0);

    // While a worker is busy: at once.
    let busy = call(Duration::from_secs(20));
    eventually(SOON, "the worker is busy", async || service.begun() == 1).await;
    let rival = stage.raw().await;
    let mut requests = rival.consume("rpc.poison-told", 1).await;
    let heard = call(long);
    exhaust(&mut requests).await;
    let error = within(SOON, "the caller is told", heard).await.unwrap().unwrap_err();
    assert_eq!((error.code(), busy.is_finished()), ("abandoned", false));
    let dead = async || letters.queue("rpc.poison-told.dead").await.unwrap().ready == 2;
    eventually(SOON, "a person can look at both", dead).await;
}

async fn an_expired_request_is_no_dead_letter(stage: &Stage) {
    hanging!("poison-expired");
    stage.fresh("rpc.poison-expired.dead").await;
    let pool = stage.pool(JobServer::new(Hanging::default())).await;
    pool.queue_kind(QueueKind::Quorum).start().await.unwrap().shutdown(SOON).await.unwrap();
    let raw = stage.raw().await;
    ask(stage, "poison-expired.once", BasicProperties::default().with_expiration("1000".into())).await;
    let waiting = async || raw.queue("rpc.poison-expired").await.unwrap().ready;
    eventually(SOON, "it is queued", async || waiting().await == 1).await;
    eventually(SOON, "it has expired", async || waiting().await == 0).await;
    // The broker's dead letters go by the same way, one after the other: this one proves that none came before it.
    let mut requests = raw.consume("rpc.poison-expired", 1).await;
    ask(stage, "poison-expired.once", BasicProperties::default().with_message_id("last".into())).await;
    for _ in 0..=20 {
        let request = requests.next().await;
        request.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
    let letter = stage.raw().await.consume("rpc.poison-expired.dead", 1).await.next().await;
    assert_eq!(letter.properties.message_id().as_ref().map(|id| id.as_str()), Some("last"));
}

const SOON: Duration = Duration::from_secs(10);

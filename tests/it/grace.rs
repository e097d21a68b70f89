//! `grace`: a call ends before its deadline when nobody has served its service for that long, and never while somebody does.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use lapin::BasicProperties;
use rpc_core::{CallError, Client, ClientOptions, Connection, ConnectionOptions, PoolHandle, TimeoutStage, WorkerPool};
use rpc_tests::{
    Answers, NamedProbe, Stage, WorkerProcess, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
    raw, within,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::pings::Held;

mod doubts;

on_both_brokers!(
    calls_end_soon_after_their_last_worker_is_killed,
    a_worker_that_is_back_within_the_grace_ends_no_call,
    a_call_to_a_service_without_workers_is_not_sent,
    a_call_that_is_not_sent_yet_goes_to_a_worker_that_comes,
    a_handler_that_takes_long_ends_no_call,
    a_pool_that_drains_ends_no_call_until_its_last_handler_has_ended,
    each_method_queue_counts,
    a_queue_that_is_gone_has_no_workers,
    a_server_of_another_kind_counts,
    a_call_that_was_sent_is_repeated_if_it_is_idempotent,
    oneway_requests_wait_for_workers,
    a_handler_whose_call_is_held_keeps_its_slot_from_no_other,
    each_service_may_have_its_own,
    nobody_looks_when_nothing_waits,
);

/// For what happens at once.
const SOON: Duration = Duration::from_secs(15);
/// Of every call: far more than [`SOON`].
const DEADLINE: Duration = Duration::from_secs(50);
const GRACE: Duration = Duration::from_millis(100);
/// Longer than a grace and some looks.
const A_WHILE: Duration = Duration::from_millis(800);

fn graceful(connection: &Connection) -> Client {
    Client::with_options(connection, ClientOptions::default().timeout(DEADLINE).grace(GRACE))
}

/// A pool, and the connection of its process.
struct Process {
    connection: Connection,
    pool: PoolHandle,
}

/// Starts a pool whose process ends at once when told to; on queues that nobody has used before if it is the first.
macro_rules! start {
    ($stage:expr, $server:expr) => {{
        drop($stage.pool($server).await);
        let connection = $stage.connect().await;
        let pool = WorkerPool::new(&connection).serve($server).start().await.unwrap();
        Process { connection, pool }
    }};
}
use start;

impl Process {
    async fn end(self) {
        drop(self.pool);
        self.connection.close().await.unwrap();
    }
}

/// How a call ends that should end long before its deadline.
async fn end_of(call: JoinHandle<Result<String, CallError>>) -> CallError {
    within(SOON, "the call ends", call).await.unwrap().unwrap_err()
}

fn is_unserved(error: &CallError, was_sent: bool) -> bool {
    matches!(error, CallError::NoSuchService { maybe_executed, .. } if *maybe_executed == was_sent)
        && error.is_retryable()
        && error.maybe_executed() == was_sent
}

async fn has_no_consumer(raw: &raw::Peer, queue: &str) {
    let consumers = async || raw.queue(queue).await.is_none_or(|queue| queue.consumers == 0);
    eventually(SOON, "the broker misses the workers", consumers).await;
}

async fn calls_end_soon_after_their_last_worker_is_killed(stage: &Stage) {
    let (service, raw) = ("grace-killed", stage.raw().await);
    for queue in ["rpc.grace-killed", "rpc.grace-killed.nested.calls"] {
        stage.fresh(queue).await;
    }
    let worker = Path::new(env!("CARGO_BIN_EXE_test_worker"));
    let mut worker = WorkerProcess::spawn_gated(worker, stage.uri(), service, "first").await;
    let client = graceful(&stage.connect().await);
    let probe = NamedProbe::new(client.clone(), service);
    let begun = tokio::spawn(probe.ask("begun", false).into_future());
    worker.begins("begun").await;
    let queued = tokio::spawn(probe.ask("queued", true).into_future());
    eventually(SOON, "both are sent", async || client.in_flight() == 2).await;
    // Beyond the usual time, which is at most the grace before a method is known.
    eventually(SOON, "it looks", async || client.stats().looks > 0).await;
    worker.kill();
    has_no_consumer(&raw, "rpc.grace-killed").await;
    let noticed = Instant::now();
    let (begun, queued) = (end_of(begun).await, end_of(queued).await);
    println!("{:?} after the broker has noticed, with a grace of {GRACE:?}", noticed.elapsed());
    assert!(is_unserved(&begun, true) && is_unserved(&queued, true), "{begun:?} {queued:?}");
    let stats = client.stats();
    assert_eq!((stats.unserved, stats.in_flight), (2, 0));
}

async fn a_worker_that_is_back_within_the_grace_ends_no_call(stage: &Stage) {
    probe!("grace-back");
    let server = || ProbeServer::new(Answers::with(async |asked| asked.is_redelivered.to_string()));
    drop(stage.pool(server()).await);
    let proxy = Proxy::start(stage.uri()).await;
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(100));
    let connection = Connection::open_with(proxy.uri(), options).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(server()).start().await.unwrap();
    let client =
        Client::with_options(&stage.connect().await, ClientOptions::default().timeout(DEADLINE).grace(DEADLINE / 2));
    let probe = ProbeClient::from_client(client.clone());
    assert_eq!(probe.ask(String::new()).await.unwrap(), "false");
    proxy.hold(Direction::ToPeer, Method::Deliver);
    let call = tokio::spawn(probe.ask(String::new()).into_future());
    proxy.is_holding(Direction::ToPeer).await;
    proxy.refuse();
    proxy.cut();
    let looks = client.stats().looks;
    eventually(SOON, "it sees nobody several times", async || client.stats().looks > looks + 5).await;
    assert!(!call.is_finished());
    proxy.release();
    proxy.accept();
    assert_eq!(within(SOON, "its answer", call).await.unwrap().unwrap(), "true");
    assert_eq!(client.stats().unserved, 0);
    pool.shutdown(SOON).await.unwrap();
}

async fn a_call_to_a_service_without_workers_is_not_sent(stage: &Stage) {
    probe!("grace-unsent");
    let server = || ProbeServer::new(Answers::echo());
    start!(stage, server()).end().await;
    let raw = stage.raw().await;
    has_no_consumer(&raw, "rpc.grace-unsent").await;
    let client = graceful(&stage.connect().await);
    let probe = ProbeClient::from_client(client.clone());
    for _ in 0..5 {
        let calls = [probe.ask("x".to_owned()), probe.ask_again("x".to_owned())];
        let calls = calls.map(|call| tokio::spawn(call.into_future()));
        for call in calls {
            let error = end_of(call).await;
            assert!(is_unserved(&error, false), "{error:?}");
        }
    }
    assert_eq!(raw.queue("rpc.grace-unsent").await.unwrap().ready, 0, "nothing was sent");
    assert_eq!(client.stats().unserved, 10);
    let process = start!(stage, server());
    assert_eq!(probe.ask("x".to_owned()).await.unwrap(), "x");
    process.end().await;
}

async fn a_call_that_is_not_sent_yet_goes_to_a_worker_that_comes(stage: &Stage) {
    probe!("grace-comes");
    let server = || ProbeServer::new(Answers::echo());
    start!(stage, server()).end().await;
    let raw = stage.raw().await;
    has_no_consumer(&raw, "rpc.grace-comes").await;
    let client =
        Client::with_options(&stage.connect().await, ClientOptions::default().timeout(DEADLINE).grace(DEADLINE / 2));
    let probe = ProbeClient::from_client(client.clone());
    let call = tokio::spawn(probe.ask("x".to_owned()).into_future());
    eventually(SOON, "it sees nobody several times", async || client.stats().looks > 5).await;
    assert_eq!(raw.queue("rpc.grace-comes").await.unwrap().ready, 0, "nothing was sent");
    let process = start!(stage, server());
    assert_eq!(within(SOON, "its answer", call).await.unwrap().unwrap(), "x");
    process.end().await;
}

async fn a_handler_that_takes_long_ends_no_call(stage: &Stage) {
    probe!("grace-long");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let client = graceful(&stage.connect().await);
    let call = tokio::spawn(ProbeClient::from_client(client.clone()).ask("x".to_owned()).into_future());
    held.begun().await;
    let looks = client.stats().looks;
    eventually(SOON, "it looks again and again", async || client.stats().looks > looks + 10).await;
    assert!(!call.is_finished());
    held.release.add_permits(1);
    assert_eq!(within(SOON, "its answer", call).await.unwrap().unwrap(), "x");
    assert_eq!(client.stats().unserved, 0);
    process.end().await;
}

async fn a_pool_that_drains_ends_no_call_until_its_last_handler_has_ended(stage: &Stage) {
    probe!("grace-drain");
    let (answers, held) = Held::new();
    let pool = stage.pool(ProbeServer::new(answers)).await.concurrency(1).prefetch(1).start().await.unwrap();
    let client = graceful(&stage.connect().await);
    let probe = ProbeClient::from_client(client.clone());
    let running = tokio::spawn(probe.ask("running".to_owned()).into_future());
    held.begun().await;
    let queued = tokio::spawn(probe.ask("queued".to_owned()).into_future());
    let raw = stage.raw().await;
    let is_queued = async || raw.queue("rpc.grace-drain").await.unwrap().ready == 1;
    eventually(SOON, "the other request is queued", is_queued).await;
    let draining = tokio::spawn(pool.shutdown(DEADLINE));
    has_no_consumer(&raw, "rpc.grace-drain").await;
    let looks = client.stats().looks;
    eventually(SOON, "it sees that", async || client.stats().looks > looks + 1).await;
    // One that is not sent needs no handler that still runs.
    let error = end_of(tokio::spawn(probe.ask("late".to_owned()).into_future())).await;
    assert!(is_unserved(&error, false), "{error:?}");
    sleep(A_WHILE).await;
    assert!(!running.is_finished() && !queued.is_finished() && !draining.is_finished());
    held.release.add_permits(1);
    assert_eq!(within(SOON, "its answer", running).await.unwrap().unwrap(), "running");
    let error = end_of(queued).await;
    assert!(is_unserved(&error, true), "{error:?}");
    draining.await.unwrap().unwrap();
}

async fn each_method_queue_counts(stage: &Stage) {
    #[rpc_core::service(name = "grace-queues", codec = "json")]
    trait Shop {
        async fn buy(&self) -> u32;
        #[rpc(queue = "slow")]
        async fn report(&self) -> u32;
    }
    #[derive(Clone)]
    struct Shelf;
    impl Shop for Shelf {
        async fn buy(&self) -> u32 {
            1
        }
        async fn report(&self) -> u32 {
            2
        }
    }
    start!(stage, ShopServer::new(Shelf)).end().await;
    let raw = stage.raw().await;
    has_no_consumer(&raw, "rpc.grace-queues.slow").await;
    // A server of another kind, of one of the queues.
    let server = stage.raw().await;
    let mut requests = server.consume("rpc.grace-queues", 10).await;
    let shop = ShopClient::from_client(graceful(&stage.connect().await));
    let bought = tokio::spawn(shop.buy().into_future());
    let error = within(SOON, "the call ends", shop.report().into_future()).await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchService { maybe_executed: false, .. }), "{error:?}");
    let request = requests.next().await;
    server.answer_with(&request, BasicProperties::default().with_content_type("application/json".into()), b"5").await;
    assert_eq!(within(SOON, "its answer", bought).await.unwrap().unwrap(), 5);
}

async fn a_queue_that_is_gone_has_no_workers(stage: &Stage) {
    probe!("grace-gone");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let client = graceful(&stage.connect().await);
    let probe = ProbeClient::from_client(client.clone());
    let call = tokio::spawn(probe.ask("x".to_owned()).into_future());
    held.begun().await;
    process.end().await;
    stage.raw().await.delete_queue("rpc.grace-gone").await;
    let error = end_of(call).await;
    assert!(is_unserved(&error, true), "{error:?}");
    let error = end_of(tokio::spawn(probe.ask("x".to_owned()).into_future())).await;
    assert!(is_unserved(&error, false), "{error:?}");
}

async fn a_server_of_another_kind_counts(stage: &Stage) {
    #[rpc_core::service(name = "grace-bare", queue = "grace-bare")]
    trait Bare {
        async fn fib(&self, n: String) -> String;
    }
    stage.fresh("grace-bare").await;
    let server = stage.raw().await;
    server.durable_queue("grace-bare").await;
    let client = graceful(&stage.connect().await);
    let bare = BareClient::from_client(client.clone());
    let error = within(SOON, "the call ends", bare.fib("7".to_owned()).into_future()).await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchService { maybe_executed: false, .. }), "{error:?}");
    let mut requests = server.consume("grace-bare", 10).await;
    let call = tokio::spawn(bare.fib("7".to_owned()).into_future());
    let request = within(SOON, "the request arrives", requests.next()).await;
    let looks = client.stats().looks;
    eventually(SOON, "it looks again and again", async || client.stats().looks > looks + 5).await;
    server.answer(&request, b"13").await;
    assert_eq!(within(SOON, "its answer", call).await.unwrap().unwrap(), "13");
    // One that dies with the request leaves it in the queue.
    let call = tokio::spawn(bare.fib("8".to_owned()).into_future());
    within(SOON, "the request arrives", requests.next()).await;
    server.close().await;
    let error = within(SOON, "the call ends", call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::NoSuchService { maybe_executed: true, .. }), "{error:?}");
}

async fn a_call_that_was_sent_is_repeated_if_it_is_idempotent(stage: &Stage) {
    probe!("grace-retried");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let policy = rpc_core::RetryPolicy::default().attempts(1_000);
    let policy = policy.backoff(Duration::from_millis(20), Duration::from_millis(50));
    let budget = rpc_core::RetryBudget::default().min_per_s(1_000);
    let options = ClientOptions::default().timeout(DEADLINE).grace(GRACE).retry(policy).retry_budget(budget);
    let client = Client::with_options(&stage.connect().await, options);
    let probe = ProbeClient::from_client(client.clone());
    let once = tokio::spawn(probe.ask("once".to_owned()).into_future());
    held.begun().await;
    let again = tokio::spawn(probe.ask_again("again".to_owned()).into_future());
    eventually(SOON, "both begin", async || held.begun.load(Ordering::SeqCst) == 2).await;
    process.end().await;
    let error = end_of(once).await;
    assert!(is_unserved(&error, true), "{error:?}");
    eventually(SOON, "the other one is tried again", async || client.stats().unserved > 3).await;
    assert!(!again.is_finished());
    held.release.add_permits(100);
    let process = start!(stage, ProbeServer::new(answers.clone()));
    assert_eq!(within(SOON, "its answer", again).await.unwrap().unwrap(), "again");
    process.end().await;
}

async fn oneway_requests_wait_for_workers(stage: &Stage) {
    #[rpc_core::service(name = "grace-oneway")]
    trait Notes {
        #[rpc(oneway)]
        async fn note(&self);
    }
    #[derive(Clone)]
    struct Pad;
    impl Notes for Pad {
        async fn note(&self) {}
    }
    start!(stage, NotesServer::new(Pad)).end().await;
    let raw = stage.raw().await;
    has_no_consumer(&raw, "rpc.grace-oneway").await;
    let client = graceful(&stage.connect().await);
    NotesClient::from_client(client.clone()).note().await.unwrap();
    assert_eq!(raw.queue("rpc.grace-oneway").await.unwrap().ready, 1);
    assert_eq!(client.stats().looks, 0);
}

async fn a_handler_whose_call_is_held_keeps_its_slot_from_no_other(stage: &Stage) {
    probe!("grace-slot");
    const INNER: &str = "grace-slot-inner";
    let (queue, raw) = (format!("rpc.{INNER}"), stage.raw().await);
    stage.fresh(&queue).await;
    raw.durable_queue(&queue).await;
    let options = ClientOptions::default().timeout(DEADLINE).grace(DEADLINE - SOON);
    let inner = Client::with_options(&stage.connect().await, options);
    let probe = NamedProbe::new(inner.clone(), INNER);
    let answers = Answers::with(move |asked| {
        let nested = (asked.question == "nest").then(|| probe.ask("x", false).into_future());
        async move {
            match nested {
                Some(call) => call.await.unwrap_err().code().to_owned(),
                None => asked.question,
            }
        }
    });
    let _pool = stage.pool(ProbeServer::new(answers)).await.concurrency(1).prefetch(8).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let nesting = tokio::spawn(client.ask("nest".to_owned()).timeout(DEADLINE).into_future());
    eventually(SOON, "the call of the handler is held", async || inner.stats().looks > 0).await;
    let other = within(SOON, "another one is answered", client.ask("other".to_owned()).into_future()).await;
    assert_eq!(other.unwrap(), "other");
    nesting.abort();
    assert_eq!(raw.queue(&queue).await.unwrap().ready, 0, "its call was not sent");
}

async fn each_service_may_have_its_own(stage: &Stage) {
    probe!("grace-own");
    start!(stage, ProbeServer::new(Answers::echo())).end().await;
    has_no_consumer(&stage.raw().await, "rpc.grace-own").await;
    let limit = Duration::from_secs(3);
    let is_unserved = async |client: Client| {
        client.ready().await.unwrap();
        let call = ProbeClient::from_client(client).ask("x".to_owned()).timeout(limit);
        let error = within(SOON, "the call ends", call.into_future()).await.unwrap_err();
        match &error {
            CallError::NoSuchService { .. } => true,
            CallError::Timeout { .. } => false,
            _ => panic!("{error:?}"),
        }
    };
    let connection = stage.connect().await;
    let (short, options) = (Duration::from_millis(20), ClientOptions::default);
    assert!(!is_unserved(Client::new(&connection)).await);
    let own = Client::with_options(&connection, options().service_grace("grace-own", short));
    eventually(SOON, "it is unserved", async || is_unserved(own.clone()).await).await;
    let others = Client::with_options(&connection, options().grace(short).service_grace("grace-own", limit));
    assert!(!is_unserved(others.clone()).await, "its grace is as long as its timeout");
    let layered = others.layer(rpc_core::layer::TraceLayer::new()).with_grace(short);
    eventually(SOON, "it is unserved", async || is_unserved(layered.clone()).await).await;
    assert_eq!(others.stats().unserved, 1, "clients that share all else count together");
}

async fn nobody_looks_when_nothing_waits(stage: &Stage) {
    probe!("grace-idle");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let client = graceful(&stage.connect().await);
    let call = tokio::spawn(ProbeClient::from_client(client.clone()).ask("x".to_owned()).into_future());
    held.begun().await;
    eventually(SOON, "it looks", async || client.stats().looks > 2).await;
    call.abort();
    let mut looks = 0;
    let is_still = async || {
        sleep(A_WHILE).await;
        std::mem::replace(&mut looks, client.stats().looks) == client.stats().looks
    };
    eventually(SOON, "it looks no more", is_still).await;
    process.end().await;
}

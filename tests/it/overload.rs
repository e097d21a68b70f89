//! More calls than there are hands: they are refused early, and the callers know at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rpc_core::{
    AckPolicy, CallError, Client, Connection, Context, PoolHandle, TimeoutStage, WorkerPool, broker::Broker, service,
};
use rpc_tests::{
    Answers, Stage, eventually, framework_uri, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
    within,
};
use tokio::{sync::Semaphore, time::sleep};

on_both_brokers!(
    a_full_queue_refuses_in_one_round_trip,
    many_refusals_and_answers_reach_their_own_calls,
    a_service_with_a_bound_that_nobody_serves_is_reported_at_once,
    a_worker_refuses_a_request_that_it_would_begin_too_late,
    replies_to_callers_that_have_gone_are_counted,
    confirmed_replies_to_callers_that_have_gone_are_counted,
    a_channel_whose_oneway_requests_are_all_refused_is_replaced,
);

/// Holds its handlers until it is told to let one go.
#[derive(Clone)]
struct Gate {
    release: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
    /// Of the last request.
    reply_to: Arc<Mutex<Option<String>>>,
}

impl Gate {
    fn closed() -> Self {
        Self { release: Arc::new(Semaphore::new(0)), begun: Arc::default(), reply_to: Arc::default() }
    }

    async fn pass(&self, ctx: &Context) {
        *self.reply_to.lock().unwrap() = ctx.reply_to().map(str::to_owned);
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.release.acquire().await.unwrap().forget();
    }
}

/// Declares a service of that name, whose queue holds three requests, and what implements it.
macro_rules! bounded {
    ($name:literal) => {
        #[service(name = $name, max_length = 3)]
        trait Bounded {
            #[rpc(no_cancel)]
            async fn pass(&self, ctx: &Context, n: usize) -> usize;
        }

        impl Bounded for Gate {
            async fn pass(&self, ctx: &Context, n: usize) -> usize {
                Gate::pass(self, ctx).await;
                n
            }
        }
    };
}

async fn a_full_queue_refuses_in_one_round_trip(stage: &Stage) {
    bounded!("overload-full");
    let gate = Gate::closed();
    let pool = stage.pool(BoundedServer::new(gate.clone())).await.concurrency(1).prefetch(1).start().await.unwrap();
    let client = BoundedClient::new(&stage.connect().await);
    let call = |n| tokio::spawn(client.pass(n).timeout(Duration::from_secs(20)).into_future());
    let mut calls = vec![call(0)];
    eventually(SOON, "the first runs", async || gate.begun.load(Ordering::SeqCst) == 1).await;
    calls.extend((1..=3).map(call));
    let raw = stage.raw().await;
    eventually(SOON, "three wait", async || raw.queue("rpc.overload-full").await.unwrap().ready == 3).await;
    let begin = Instant::now();
    let error = call(4).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Overloaded { .. }), "{error:?}");
    assert!(!error.maybe_executed() && error.is_retryable());
    assert!(begin.elapsed() < Duration::from_secs(3), "not at its deadline: {:?}", begin.elapsed());
    gate.release.add_permits(100);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), n);
    }
    assert_eq!(client.pass(5).await.unwrap(), 5, "there is room again");
    assert_eq!(pool.stats().answered, 5);
}

async fn many_refusals_and_answers_reach_their_own_calls(stage: &Stage) {
    bounded!("overload-many");
    let gate = Gate::closed();
    gate.release.add_permits(100_000);
    let _pool = stage.pool(BoundedServer::new(gate.clone())).await.concurrency(1).prefetch(1).start().await.unwrap();
    let client = BoundedClient::new(&stage.connect().await);
    let (mut answered, mut refused) = (0, 0);
    // Often, because only threads that publish at the same moment can take each other's confirm.
    for _ in 0..10 {
        let calls: Vec<_> = (0..400).map(|n| tokio::spawn(client.pass(n).into_future())).collect();
        for (n, call) in calls.into_iter().enumerate() {
            match within(Duration::from_secs(15), "an end", call).await.unwrap() {
                Ok(answer) => {
                    assert_eq!(answer, n);
                    answered += 1;
                }
                Err(CallError::Overloaded { .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    assert_eq!(gate.begun.load(Ordering::SeqCst), answered, "a refused call was executed");
    assert_eq!(client.client().in_flight(), 0);
}

async fn a_service_with_a_bound_that_nobody_serves_is_reported_at_once(stage: &Stage) {
    bounded!("overload-nobody");
    let client = BoundedClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..50).map(|n| tokio::spawn(client.pass(n).into_future())).collect();
    for call in calls {
        let error = within(SOON, "not at its deadline", call).await.unwrap().unwrap_err();
        assert_eq!(error.code(), "no_such_service");
    }
}

async fn a_worker_refuses_a_request_that_it_would_begin_too_late(stage: &Stage) {
    probe!("overload-late");
    let answers = Answers::with(async |asked| {
        sleep(Duration::from_millis(100)).await;
        asked.question
    });
    let pool = stage.pool(ProbeServer::new(answers)).await.concurrency(1).prefetch(40).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let ask = |budget| tokio::spawn(client.ask(String::new()).timeout(budget).into_future());
    let calls: Vec<_> = (0..35).map(|_| ask(Duration::from_secs(30))).collect();
    // By now the worker knows its pace, and more than ten are before any new one.
    eventually(SOON, "some are answered", async || pool.stats().answered >= 20).await;
    let begin = Instant::now();
    let error = ask(Duration::from_millis(600)).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Overloaded { .. }), "{error:?}");
    assert!(!error.maybe_executed() && begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    let stats = pool.stats();
    assert_eq!((stats.shed, &*stats.methods[0].errors), (1, &[("overloaded", 1)][..]));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    ask(Duration::from_millis(600)).await.unwrap().unwrap();
}

/// A call whose client is gone before its answer.
async fn call_and_leave(stage: &Stage, gate: &Gate, call: impl AsyncFn(Client)) {
    let connection = stage.connect().await;
    let client = Client::new(&connection);
    tokio::select! {
        () = call(client) => panic!("the gate is closed"),
        () = eventually(SOON, "it runs", async || gate.begun.load(Ordering::SeqCst) == 1) => {}
    }
    // The client went with its call, and its reply queue with it.
    drop(connection);
    let (raw, reply_to) = (stage.raw().await, gate.reply_to.lock().unwrap().clone().unwrap());
    eventually(SOON, "the reply queue is gone", async || raw.can_declare(&reply_to).await).await;
    drop(raw);
    let raw = stage.raw().await;
    eventually(SOON, "and no other in its place", async || raw.queue(&reply_to).await.is_none()).await;
    gate.release.add_permits(1);
}

async fn is_counted(stage: &Stage, pool: PoolHandle, queue: &str) {
    eventually(SOON, "the reply has come back", async || pool.stats().callers_gone == 1).await;
    assert_eq!(pool.stats().answered, 1);
    pool.shutdown(SOON).await.unwrap();
    assert_eq!(stage.raw().await.queue(queue).await.unwrap().ready, 0, "the request is done with");
}

async fn replies_to_callers_that_have_gone_are_counted(stage: &Stage) {
    bounded!("overload-gone");
    let gate = Gate::closed();
    let pool = stage.pool(BoundedServer::new(gate.clone())).await.start().await.unwrap();
    call_and_leave(stage, &gate, async |client| drop(BoundedClient::from_client(client).pass(1).await)).await;
    is_counted(stage, pool, "rpc.overload-gone").await;
}

async fn confirmed_replies_to_callers_that_have_gone_are_counted(stage: &Stage) {
    bounded!("overload-gone-too");
    let gate = Gate::closed();
    let pool = stage.pool(BoundedServer::new(gate.clone())).await;
    let pool = pool.ack_policy(AckPolicy::AfterConfirmedReply).start().await.unwrap();
    call_and_leave(stage, &gate, async |client| drop(BoundedClient::from_client(client).pass(1).await)).await;
    is_counted(stage, pool, "rpc.overload-gone-too").await;
}

/// The broker reads them and confirms none: a quorum queue without a majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_confirmed_have_a_bound_in_bytes() {
    #[service(name = "overload-heavy", max_length = 1_000)]
    trait Heavy {
        async fn weigh(&self, load: String) -> usize;
    }
    struct Scales;
    impl Heavy for Scales {
        async fn weigh(&self, load: String) -> usize {
            load.len()
        }
    }
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(&framework_uri(broker.uri())).await.unwrap();
    let pool = || WorkerPool::new(&connection).serve(HeavyServer::new(Scales));
    pool().declare().await.unwrap();
    let client = HeavyClient::new(&connection);
    client.client().ready().await.unwrap();
    broker.faults().withhold_confirms();
    let load = "x".repeat(1 << 20);
    let call = |_| tokio::spawn(client.weigh(load.clone()).timeout(Duration::from_secs(40)).into_future());
    let calls: Vec<_> = (0..40).map(call).collect();
    let waiting = || broker.queues().iter().find(|queue| queue.name == "rpc.overload-heavy").unwrap().ready;
    eventually(SOON, "as many as have room", async || waiting() >= 31).await;
    let error = client.weigh(load.clone()).timeout(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Blocked, .. }), "{error:?}");
    assert!(!error.maybe_executed());
    assert_eq!(waiting(), 31, "of 1 MiB and a little more, in 32 MiB");
    broker.faults().release_confirms();
    let serving = pool().start().await.unwrap();
    for call in calls {
        assert_eq!(within(5 * SOON, "an answer", call).await.unwrap().unwrap(), 1 << 20);
    }
    drop(serving);
}

/// RabbitMQ: a channel may refuse everything for as long as it lives. A full queue looks the same.
async fn a_channel_whose_oneway_requests_are_all_refused_is_replaced(stage: &Stage) {
    #[service(name = "overload-replaced", max_length = 1)]
    trait Notes {
        #[rpc(oneway)]
        async fn note(&self, n: u32);
    }
    impl Notes for Gate {
        async fn note(&self, _n: u32) {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
    }
    let gate = Gate::closed();
    stage.pool(NotesServer::new(gate.clone())).await.declare().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let notes = NotesClient::new(&Connection::open(proxy.uri()).await.unwrap());
    notes.note(0).await.unwrap();
    let opened = proxy.passed(Direction::ToBroker, Method::OpenChannel);
    eventually(SOON, "another channel is opened", async || {
        let refused = notes.note(1).await.unwrap_err();
        assert!(matches!(refused, CallError::Overloaded { .. }), "{refused:?}");
        proxy.passed(Direction::ToBroker, Method::OpenChannel) > opened
    })
    .await;
    let _pool = stage.pool(NotesServer::new(gate.clone())).await.start().await.unwrap();
    eventually(SOON, "the queue is empty", async || gate.begun.load(Ordering::SeqCst) == 1).await;
    notes.note(2).await.unwrap();
}

const SOON: Duration = Duration::from_secs(10);

//! Requests that were held up on their way: none is begun after its caller has given up, whatever the clocks show.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use rpc_core::{Connection, PoolHandle, WorkerPool, service};
use rpc_tests::{
    BrokerProcess, NamedProbe, Stage, WorkerProcess, eventually, framework_uri, on_both_brokers,
    proxy::{Direction, Proxy},
    within,
};
use tokio::task::JoinSet;

on_both_brokers!(
    requests_that_a_broker_reads_late_are_not_begun,
    requests_that_a_worker_reads_late_are_not_begun,
    a_frozen_worker_begins_no_expired_request_when_it_goes_on,
    clocks_an_hour_apart_refuse_no_good_call,
);

/// Counts its executions. Its calls are never cancelled: a deadline alone keeps a request from being begun.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn begun(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

macro_rules! till {
    ($name:literal) => {
        #[service(name = $name)]
        trait Till {
            #[rpc(no_cancel)]
            async fn pay(&self) -> u32;
        }

        impl Till for Counted {
            async fn pay(&self) -> u32 {
                self.0.fetch_add(1, Ordering::SeqCst);
                7
            }
        }
    };
}

/// Calls that end as timed out while they are held up, and what happens to their requests then.
macro_rules! held_up {
    ($client:expr, $service:expr, $pool:expr, $hold:expr, $release:expr) => {{
        let (client, service, pool): (TillClient, &Counted, &PoolHandle) = ($client, &$service, &$pool);
        for _ in 0..3 {
            assert_eq!(client.pay().await.unwrap(), 7);
        }
        $hold;
        let mut calls: JoinSet<_> = (0..HELD).map(|_| client.pay().timeout(BUDGET).into_future()).collect();
        while let Some(ended) = calls.join_next().await {
            assert_eq!(ended.unwrap().unwrap_err().code(), "timeout");
        }
        // The margin within which a worker believes no clock.
        tokio::time::sleep(MARGIN).await;
        $release;
        eventually(SOON, "their requests arrive", async || pool.stats().received == 3 + HELD as u64).await;
        assert_eq!(client.pay().await.unwrap(), 7);
        assert_eq!((service.begun(), pool.stats().expired), (3 + 1, HELD as u64));
    }};
}

async fn requests_that_a_broker_reads_late_are_not_begun(stage: &Stage) {
    till!("late-broker");
    let service = Counted::default();
    let pool = stage.pool(TillServer::new(service.clone())).await.start().await.unwrap();
    let proxy = Proxy::start(stage.uri()).await;
    let client = TillClient::new(&Connection::open(proxy.uri()).await.unwrap());
    held_up!(client, service, pool, proxy.stall(Direction::ToBroker), proxy.release());
}

async fn requests_that_a_worker_reads_late_are_not_begun(stage: &Stage) {
    till!("late-worker");
    let service = Counted::default();
    stage.fresh("rpc.late-worker").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(TillServer::new(service.clone())).prefetch(100);
    let pool = pool.start().await.unwrap();
    let client = TillClient::new(&stage.connect().await);
    held_up!(client, service, pool, proxy.stall(Direction::ToPeer), proxy.release());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_the_sockets_of_a_frozen_broker_are_not_begun() {
    let broker = BrokerProcess::spawn(Path::new(env!("CARGO_BIN_EXE_test_broker"))).await;
    requests_in_the_sockets_of(broker.uri(), || broker.freeze(), || broker.thaw()).await;
}

/// Calls are made while the broker at `uri` is frozen.
pub(crate) async fn requests_in_the_sockets_of(uri: &str, freeze: impl FnOnce(), thaw: impl FnOnce()) {
    till!("late-frozen");
    let uri = framework_uri(uri);
    let service = Counted::default();
    let connection = Connection::open(&uri).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(TillServer::new(service.clone())).start().await.unwrap();
    let client = TillClient::new(&Connection::open(&uri).await.unwrap());
    held_up!(client, service, pool, freeze(), thaw());
}

async fn a_frozen_worker_begins_no_expired_request_when_it_goes_on(stage: &Stage) {
    const SERVICE: &str = "late-frozen-worker";
    stage.fresh("rpc.late-frozen-worker").await;
    let program = Path::new(env!("CARGO_BIN_EXE_test_worker"));
    let worker = WorkerProcess::spawn(program, stage.uri(), SERVICE, "w", Duration::ZERO).await;
    let probe = NamedProbe::new(stage.client().await, SERVICE);
    for question in ["one", "two"] {
        assert_eq!(probe.ask(question, false).await.unwrap(), format!("w: {question}"));
    }
    worker.freeze();
    let late: Vec<_> = (0..4).map(|n| format!("late {n}")).collect();
    let mut calls: JoinSet<_> =
        late.iter().map(|question| probe.ask(question, false).timeout(BUDGET).into_future()).collect();
    while let Some(ended) = calls.join_next().await {
        assert_eq!(ended.unwrap().unwrap_err().code(), "timeout");
    }
    tokio::time::sleep(MARGIN).await;
    worker.thaw();
    let next = within(SOON, "the next answer", probe.ask("three", false).into_future()).await;
    assert_eq!(next.unwrap(), "w: three");
    for question in late {
        assert_eq!(worker.begun(&question), 0, "{question}");
    }
    assert_eq!(worker.begun("one"), 1);
}

async fn clocks_an_hour_apart_refuse_no_good_call(stage: &Stage) {
    till!("late-clocks");
    const CALLS: usize = 40;
    let service = Counted::default();
    let pool = stage.pool(TillServer::new(service.clone())).await.start().await.unwrap();
    let raw = stage.raw().await;
    let budget_ms = 1_000;
    let pay = async |caller: &str, ahead_ms: i64| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut headers = FieldTable::default();
        let deadline_ms = i64::try_from(since_1970.as_millis()).unwrap() + ahead_ms + budget_ms;
        headers.insert("rpc-deadline".into(), AMQPValue::LongLongInt(deadline_ms));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_reply_to(caller.into())
            .with_correlation_id("1".into())
            .with_expiration(budget_ms.to_string().into());
        raw.publish("rpc", "late-clocks.pay", properties, &[0x90]).await;
    };
    let callers = [("behind", -3_600_000), ("exact", 0), ("ahead", 3_600_000)];
    for _ in 0..CALLS {
        for (caller, ahead_ms) in callers {
            pay(&format!("late-clocks-{caller}"), ahead_ms).await;
        }
    }
    eventually(SOON, "all are begun", async || service.begun() == 3 * CALLS).await;
    assert_eq!(pool.stats().expired, 0);
    // By the clock that was learnt, this one was sent 5 s ago.
    for (caller, ahead_ms) in callers {
        pay(&format!("late-clocks-{caller}"), ahead_ms - 5_000).await;
    }
    eventually(SOON, "they are expired", async || pool.stats().expired == 3).await;
    assert_eq!(service.begun(), 3 * CALLS);
}

const HELD: usize = 40;
const BUDGET: Duration = Duration::from_millis(400);
const MARGIN: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(10);

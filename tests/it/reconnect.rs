//! The broker goes away and comes back: connections, clients and pools recover by themselves.
//!
//! On the bundled broker, which a test can restart; it comes back empty.

use std::time::Duration;

use rpc_core::{
    CallError, Client, Connection, ConnectionOptions, ConnectionState, WorkerPool,
    broker::{Broker, BrokerError, Restart},
    service,
};
use rpc_tests::{eventually, framework_uri, within};

#[service(name = "reconnect")]
trait Counting {
    #[rpc(idempotent, timeout = "20s")]
    async fn double(&self, n: u32) -> u32;
    async fn once(&self, milliseconds: u64) -> u64;
}

#[service(name = "reconnect-never-seen")]
trait NeverSeen {
    #[rpc(idempotent)]
    async fn ask(&self) -> u32;
}

struct Counter;

impl Counting for Counter {
    async fn double(&self, n: u32) -> u32 {
        2 * n
    }
    async fn once(&self, milliseconds: u64) -> u64 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        milliseconds
    }
}

async fn connect(uri: &str) -> Connection {
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    Connection::open_with(&framework_uri(uri), options).await.unwrap()
}

/// The port may still be closing.
async fn restart(port: u16) -> Broker {
    for _ in 0..100 {
        match Broker::builder().port(port).start().await {
            Ok(broker) => return broker,
            Err(BrokerError::Bind { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("port {port} stays taken");
}

#[tokio::test]
async fn calls_are_answered_again_after_the_broker_came_back() {
    let broker = Broker::start().await.unwrap();
    let port = broker.address().port();
    let connection = connect(broker.uri()).await;
    let pool = WorkerPool::new(&connect(broker.uri()).await).serve(CountingServer::new(Counter)).start().await.unwrap();
    let client = CountingClient::from_client(Client::new(&connection));
    assert_eq!(client.double(1).await.unwrap(), 2);
    broker.shutdown().await;
    for round in 1..4 {
        let broker = restart(port).await;
        let recovered = async || client.double(round).await.ok() == Some(2 * round);
        eventually(Duration::from_secs(20), "calls are answered again", recovered).await;
        assert_eq!(connection.state(), ConnectionState::Connected);
        broker.shutdown().await;
    }
    drop(pool);
}

#[tokio::test]
async fn an_idempotent_call_waits_for_the_broker_and_others_say_whether_they_may_have_run() {
    let broker = Broker::start().await.unwrap();
    let port = broker.address().port();
    let connection = connect(broker.uri()).await;
    let worker = connect(broker.uri()).await;
    let _pool = WorkerPool::new(&worker).serve(CountingServer::new(Counter)).start().await.unwrap();
    let client = CountingClient::new(&connection);
    assert_eq!(client.double(1).await.unwrap(), 2);
    let running = tokio::spawn(client.once(60_000).timeout(Duration::from_secs(30)).into_future());
    eventually(Duration::from_secs(5), "the request is running", async || client.client().in_flight() == 1).await;
    broker.shutdown().await;
    let lost = within(Duration::from_secs(10), "the call in flight ends", running).await.unwrap();
    assert!(matches!(lost, Err(CallError::Disconnected { maybe_executed: true, .. })), "{lost:?}");
    let unsent = client.once(1).timeout(Duration::from_millis(300)).await;
    assert!(matches!(&unsent, Err(error) if !error.maybe_executed()), "{unsent:?}");
    let waiting = tokio::spawn(client.double(21).into_future());
    let broker = restart(port).await;
    // The service has a queue again once the worker is back; until then nobody serves it.
    match within(Duration::from_secs(25), "the waiting call ends", waiting).await.unwrap() {
        Ok(answer) => assert_eq!(answer, 42),
        Err(error) => assert_eq!(error.code(), "no_such_service"),
    }
    let served = async || client.double(21).await.ok() == Some(42);
    eventually(Duration::from_secs(20), "the pool serves again", served).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn an_idempotent_call_outlives_a_broker_that_has_lost_its_service() {
    let broker = Broker::start().await.unwrap();
    let connection = connect(broker.uri()).await;
    let worker = connect(broker.uri()).await;
    WorkerPool::new(&worker).serve(CountingServer::new(Counter)).start().await.unwrap().shutdown(LIMIT).await.unwrap();
    let client = CountingClient::new(&connection);
    // Queued: nobody serves.
    let waiting = tokio::spawn(client.double(21).into_future());
    let is_queued = async || broker.queue("rpc.reconnect").is_some_and(|queue| queue.ready == 1);
    eventually(LIMIT, "the request is queued", is_queued).await;
    broker.faults().restart(Restart::LoseEverything);
    // A client without an earlier success learns that there is no such service; the waiting one knows that there was.
    let error = CountingClient::new(&connect(broker.uri()).await).double(1).await.unwrap_err();
    assert_eq!(error.code(), "no_such_service");
    eventually(LIMIT, "its client is back", async || client.client().ready().await.is_ok()).await;
    // Long enough to be told a few times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    let _pool = WorkerPool::new(&worker).serve(CountingServer::new(Counter)).start().await.unwrap();
    assert_eq!(within(LIMIT, "its answer", waiting).await.unwrap().unwrap(), 42);
}

#[tokio::test]
async fn calls_of_a_service_that_has_answered_wait_for_its_worker_after_a_restart() {
    let broker = Broker::start().await.unwrap();
    let connection = connect(broker.uri()).await;
    let worker = connect(broker.uri()).await;
    let pool = WorkerPool::new(&worker).serve(CountingServer::new(Counter)).start().await.unwrap();
    let client = CountingClient::new(&connection);
    assert_eq!(client.double(1).await.unwrap(), 2);
    pool.shutdown(LIMIT).await.unwrap();
    broker.faults().restart(Restart::LoseEverything);
    eventually(LIMIT, "its client is back", async || client.client().ready().await.is_ok()).await;
    // Begun when nothing is left of the service.
    let calls: Vec<_> = (0..20).map(|n| tokio::spawn(client.double(n).into_future())).collect();
    // A call that may run once only, and one of a service that has never answered, have nothing to wait for.
    let began = std::time::Instant::now();
    assert_eq!(client.once(1).await.unwrap_err().code(), "no_such_service");
    let never_seen = NeverSeenClient::new(&connection).ask().timeout(Duration::from_secs(20)).await.unwrap_err();
    assert_eq!(never_seen.code(), "no_such_service");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(calls.iter().all(|call| !call.is_finished()), "within their budget they wait");
    let short = client.double(1).timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(short.code(), "no_such_service", "at its deadline it says what it waited for: {short}");
    let _pool = WorkerPool::new(&worker).serve(CountingServer::new(Counter)).start().await.unwrap();
    for (n, call) in (0..).zip(calls) {
        assert_eq!(within(LIMIT, "its answer", call).await.unwrap().unwrap(), 2 * n);
    }
}

#[tokio::test]
async fn a_connection_that_may_not_reconnect_closes() {
    let broker = Broker::start().await.unwrap();
    let options = ConnectionOptions::default().reconnect_attempts(Some(0));
    let connection = Connection::open_with(&framework_uri(broker.uri()), options).await.unwrap();
    broker.shutdown().await;
    let closed = async || matches!(connection.state(), ConnectionState::Closed { .. });
    eventually(Duration::from_secs(10), "the connection is closed", closed).await;
    let error = CountingClient::new(&connection).once(1).await.unwrap_err();
    assert!(matches!(error, CallError::Disconnected { maybe_executed: false, .. }), "{error:?}");
}

const LIMIT: Duration = Duration::from_secs(10);

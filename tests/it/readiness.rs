//! Readiness: whether a pool takes requests, and whether a client could send one.

use std::time::Duration;

use rpc_core::{Client, Connection, WorkerPool};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
};

on_both_brokers!(
    a_pool_is_ready_while_every_queue_has_its_consumer,
    a_pool_and_a_client_are_not_ready_while_their_connection_is_away,
    a_pool_that_drains_is_not_ready,
);

/// A loss is noticed within it.
const SOON: Duration = Duration::from_secs(1);
/// The repair may wait for its backoff.
const LATER: Duration = Duration::from_secs(20);

async fn a_pool_is_ready_while_every_queue_has_its_consumer(stage: &Stage) {
    mod other {
        rpc_tests::probe!("readiness-other");
    }
    probe!("readiness-lost");
    stage.fresh("rpc.readiness-lost").await;
    stage.fresh("rpc.readiness-other").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection)
        .serve(ProbeServer::new(Answers::echo()))
        .serve(other::ProbeServer::new(Answers::echo()))
        .start()
        .await
        .unwrap();
    let monitor = pool.monitor();
    assert!(pool.is_ready() && monitor.is_ready());
    // One of two queues goes, and with it its consumer; the next one is not let through.
    proxy.hold(Direction::ToBroker, Method::Consume);
    stage.raw().await.delete_queue("rpc.readiness-lost").await;
    eventually(SOON, "the lost consumer is noticed", async || !pool.is_ready() && !monitor.is_ready()).await;
    proxy.is_holding(Direction::ToBroker).await;
    assert!(!pool.is_ready(), "the queue is there again, and has no consumer");
    proxy.release();
    eventually(LATER, "it consumes again", async || pool.is_ready() && monitor.is_ready()).await;
    let client = ProbeClient::new(&stage.connect().await);
    assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
}

async fn a_pool_and_a_client_are_not_ready_while_their_connection_is_away(stage: &Stage) {
    probe!("readiness-away");
    stage.fresh("rpc.readiness-away").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let client = Client::new(&connection);
    assert!(!client.is_ready(), "nothing is open yet");
    client.ready().await.unwrap();
    assert!(client.is_ready() && pool.is_ready());
    proxy.refuse();
    proxy.cut();
    eventually(SOON, "the loss is noticed", async || !client.is_ready() && !pool.is_ready()).await;
    proxy.accept();
    eventually(LATER, "both are back", async || client.is_ready() && pool.is_ready()).await;
    client.shutdown();
    assert!(!client.is_ready());
    connection.close().await.unwrap();
    eventually(SOON, "a connection that was closed in order has no consumer", async || !pool.is_ready()).await;
}

async fn a_pool_that_drains_is_not_ready(stage: &Stage) {
    probe!("readiness-drains");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let monitor = pool.monitor();
    assert!(monitor.is_ready());
    let draining = tokio::spawn(pool.shutdown(Duration::from_secs(10)));
    eventually(SOON, "the shutdown has begun", async || !monitor.is_ready()).await;
    draining.await.unwrap().unwrap();
    assert!(!monitor.is_ready());
}

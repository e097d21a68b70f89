//! Requests that come again to a worker that remembers its answers.

use std::time::Duration;

use lapin::BasicProperties;
use rpc_core::{CallError, Connection, ConnectionOptions, DedupeOptions, WorkerPool, service};
use rpc_tests::{
    Stage, eventually, on_both_brokers,
    proxy::{Direction, Method, Proxy},
    within,
};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;

on_both_brokers!(
    a_request_sent_again_gets_the_same_answer_and_runs_once,
    a_request_sent_while_the_first_runs_waits_for_its_answer,
    a_redelivered_request_is_answered_from_memory,
    a_handler_that_panicked_runs_again,
    without_the_option_every_request_runs,
    the_memory_is_bounded,
    requests_without_a_name_all_run,
    a_key_with_other_arguments_is_a_bad_request,
);

/// The handler of both methods.
async fn book(ledger: &Ledger, what: &str) -> Result<usize, Refused> {
    let number = ledger.enter().await;
    match what {
        "refused" => Err(Refused { number }),
        "panic" if number == 1 => panic!("the first time"),
        _ => Ok(number),
    }
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("refused as number {number}")]
struct Refused {
    number: usize,
}

/// Declares the service where it stands, under that name.
macro_rules! ledger {
    ($name:literal) => {
        #[service(name = $name)]
        trait Books {
            async fn book(&self, what: String) -> Result<usize, Refused>;
            async fn book_elsewhere(&self, what: String) -> Result<usize, Refused>;
        }

        impl Books for Ledger {
            async fn book(&self, what: String) -> Result<usize, Refused> {
                $crate::dedupe::book(self, &what).await
            }
            async fn book_elsewhere(&self, what: String) -> Result<usize, Refused> {
                $crate::dedupe::book(self, &what).await
            }
        }
    };
}

async fn a_request_sent_again_gets_the_same_answer_and_runs_once(stage: &Stage) {
    ledger!("dedupe-again");
    let ledger = Ledger::open();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = |what: &str, key: &str| client.book(what.to_owned()).idempotency_key(key).into_future();
    for _ in 0..3 {
        assert_eq!(book("a", "key 1").await.unwrap(), 1);
        let refused = book("refused", "key 2").await.unwrap_err();
        let CallError::Service { error, .. } = refused else { panic!("{refused:#}") };
        assert_eq!(error.number, 2, "the service's own errors are answers");
    }
    assert_eq!((ledger.count(), pool.stats().deduplicated, pool.stats().answered), (2, 4, 6));
    assert_eq!(book("a", "key 3").await.unwrap(), 3, "another key is another request");
    let elsewhere = client.book_elsewhere("a".to_owned()).idempotency_key("key 1").await;
    assert_eq!(elsewhere.unwrap(), 4, "so is another method");
    // Another client, another reply queue: the key counts.
    let other = BooksClient::new(&stage.connect().await);
    assert_eq!(other.book("a".to_owned()).idempotency_key("key 1").await.unwrap(), 1);
}

async fn a_request_sent_while_the_first_runs_waits_for_its_answer(stage: &Stage) {
    ledger!("dedupe-running");
    let ledger = Ledger::closed();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let calls: Vec<_> =
        (0..5).map(|_| tokio::spawn(client.book("a".to_owned()).idempotency_key("same").into_future())).collect();
    eventually(SOON, "all have arrived", async || pool.stats().received == 5).await;
    ledger.release.add_permits(5);
    for call in calls {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), 1);
    }
    assert_eq!((ledger.count(), pool.stats().deduplicated), (1, 4));
}

/// The worker's connection is cut between its reply and its ack.
async fn a_redelivered_request_is_answered_from_memory(stage: &Stage) {
    ledger!("dedupe-redelivered");
    stage.fresh("rpc.dedupe-redelivered").await;
    let proxy = Proxy::start(stage.uri()).await;
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    let connection = Connection::open_with(proxy.uri(), options).await.unwrap();
    let ledger = Ledger::open();
    let pool = WorkerPool::new(&connection).serve(BooksServer::new(ledger.clone())).dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    proxy.hold(Direction::ToBroker, Method::Ack);
    assert_eq!(client.book("a".to_owned()).idempotency_key("same").await.unwrap(), 1);
    proxy.is_holding(Direction::ToBroker).await;
    proxy.cut();
    eventually(RECONNECTED, "it comes again", async || pool.stats().deduplicated == 1).await;
    assert_eq!((pool.stats().received, ledger.count()), (2, 1), "answered, not executed");
    assert_eq!(client.book("a".to_owned()).idempotency_key("same").await.unwrap(), 1);
    pool.shutdown(SOON).await.unwrap();
    let raw = stage.raw().await;
    assert_eq!(raw.queue("rpc.dedupe-redelivered").await.unwrap().ready, 0, "and acknowledged");
}

async fn a_handler_that_panicked_runs_again(stage: &Stage) {
    ledger!("dedupe-panic");
    let ledger = Ledger::open();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default());
    let _pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = || client.book("panic".to_owned()).idempotency_key("same").into_future();
    assert_eq!(book().await.unwrap_err().code(), "internal");
    assert_eq!(book().await.unwrap(), 2);
    assert_eq!(book().await.unwrap(), 2);
}

async fn without_the_option_every_request_runs(stage: &Stage) {
    ledger!("dedupe-off");
    let ledger = Ledger::open();
    let _pool = stage.pool(BooksServer::new(ledger.clone())).await.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    for number in 1..=2 {
        assert_eq!(client.book("a".to_owned()).idempotency_key("same").await.unwrap(), number);
    }
}

async fn the_memory_is_bounded(stage: &Stage) {
    ledger!("dedupe-bound");
    let ledger = Ledger::open();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default().entries(2));
    let _pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = |key: &str| client.book("a".to_owned()).idempotency_key(key).into_future();
    for (key, number) in [("1", 1), ("2", 2), ("3", 3), ("2", 2), ("3", 3), ("1", 4)] {
        assert_eq!(book(key).await.unwrap(), number, "key {key}");
    }
}

async fn requests_without_a_name_all_run(stage: &Stage) {
    ledger!("dedupe-nameless");
    let ledger = Ledger::open();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default());
    let _pool = pool.start().await.unwrap();
    let raw = stage.raw().await;
    for number in ["1", "2"] {
        // The same correlation_id every time: many simple programs do that.
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let reply = raw.call("rpc", "dedupe-nameless.book", properties, br#"{"what": "a"}"#).await;
        assert_eq!(String::from_utf8_lossy(&reply.data), number);
    }
}

async fn a_key_with_other_arguments_is_a_bad_request(stage: &Stage) {
    ledger!("dedupe-arguments");
    let ledger = Ledger::closed();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe(DedupeOptions::default());
    let _pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = |what: &str| client.book(what.to_owned()).idempotency_key("same").into_future();
    ledger.refuses_other_arguments(book).await;
}

const SOON: Duration = Duration::from_secs(5);
/// A cut connection is opened again.
const RECONNECTED: Duration = Duration::from_secs(20);

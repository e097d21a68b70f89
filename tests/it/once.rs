//! Requests that are sent to several pools with one store of answers.

mod faults;
mod faulty;
mod redis;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{
    CallError, Connection, ConnectionOptions, Context, DedupeOptions, Error, PoolHandle, RedeliveryPolicy,
    ServiceError, WorkerPool,
    dedupe::{DedupeStore, FencingToken, MemoryStore, StoreOptions},
    layer::{self, Caller, Next, Request},
    service,
};
use rpc_tests::{
    Stage, check_store, eventually, on_both_brokers,
    proxy::{Direction, Method, Proxy},
    within,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ledger::Ledger;

on_both_brokers!(
    a_request_that_two_pools_get_is_executed_once,
    a_request_that_runs_elsewhere_is_waited_for,
    a_key_with_other_arguments_is_a_bad_request,
    errors_that_are_final_are_kept_and_others_release_the_key,
    a_handler_that_its_caller_stops_releases_the_key,
    answers_belong_to_their_caller,
    a_redelivered_request_is_answered_from_the_store,
    methods_that_are_excepted_run_each_time,
    an_answer_that_is_too_large_leaves_a_mark,
    a_pool_that_remembers_answers_does_not_start_with_hedged_methods,
    requests_that_wait_for_a_handler_do_not_keep_its_slot,
);

/// The handler of both methods.
async fn book(ledger: &Ledger, what: &str, ctx: &Context) -> Result<usize, BookError> {
    let number = ledger.enter().await;
    match what {
        "refused" => Err(BookError::Refused { number }),
        "busy" => Err(BookError::Busy { number }),
        "panic" => panic!("number {number}"),
        "token" => Ok(ctx.extensions().get::<FencingToken>().map_or(0, |token| token.get() as usize)),
        _ => Ok(number),
    }
}

#[derive(Debug, thiserror::Error, ServiceError, Serialize, Deserialize)]
enum BookError {
    #[error("refused as number {number}")]
    Refused { number: usize },
    #[error("busy as number {number}")]
    #[rpc(retryable)]
    Busy { number: usize },
}

/// Declares the service where it stands, under that name.
macro_rules! ledger {
    ($name:literal) => {
        #[service(name = $name)]
        trait Books {
            async fn book(&self, what: String, ctx: &Context) -> Result<usize, BookError>;
            async fn list(&self, what: String, ctx: &Context) -> Result<usize, BookError>;
        }

        impl Books for Ledger {
            async fn book(&self, what: String, ctx: &Context) -> Result<usize, BookError> {
                $crate::once::book(self, &what, ctx).await
            }
            async fn list(&self, what: String, ctx: &Context) -> Result<usize, BookError> {
                $crate::once::book(self, &what, ctx).await
            }
        }
    };
}
use ledger;

fn memory() -> Arc<dyn DedupeStore> {
    Arc::new(MemoryStore::default())
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    check_store(memory(), "").await;
}

async fn a_request_that_two_pools_get_is_executed_once(stage: &Stage) {
    ledger!("once-two");
    let (ledger, store) = (Ledger::open(), memory());
    let mut pools: Vec<PoolHandle> = Vec::new();
    for _ in 0..2 {
        let pool = stage.pool(BooksServer::new(ledger.clone())).await.prefetch(2);
        pools.push(pool.dedupe_store(StoreOptions::new(Arc::clone(&store))).start().await.unwrap());
    }
    let client = BooksClient::new(&stage.connect().await);
    for key in ["a", "b", "c"] {
        let before = ledger.count();
        let book = || client.book("it".to_owned()).idempotency_key(key).into_future();
        let calls: Vec<_> = (0..10).map(|_| tokio::spawn(book())).collect();
        for call in calls {
            assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), before + 1);
        }
        assert_eq!(ledger.count(), before + 1, "once");
    }
    assert!(pools.iter().all(|pool| pool.stats().received > 0), "both had requests");
    assert_eq!(pools.iter().map(|pool| pool.stats().deduplicated).sum::<u64>(), 27);
    let token = async |key: &str| client.book("token".to_owned()).idempotency_key(key).await.unwrap();
    let first = token("d").await;
    assert!(first > 0 && token("e").await > first, "handlers see the number of their claim");
}

async fn a_request_that_runs_elsewhere_is_waited_for(stage: &Stage) {
    ledger!("once-elsewhere");
    let (ledger, store) = (Ledger::closed(), memory());
    let start = async || {
        let pool = stage.pool(BooksServer::new(ledger.clone())).await.prefetch(1).concurrency(1);
        pool.dedupe_store(StoreOptions::new(Arc::clone(&store))).start().await.unwrap()
    };
    let (_one, _other) = (start().await, start().await);
    let client = BooksClient::new(&stage.connect().await);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "the first one runs", async || ledger.count() == 1).await;
    let error = book().timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.code() == "timeout" && error.maybe_executed(), "{error:?}");
    let second = tokio::spawn(book().into_future());
    ledger.release.add_permits(2);
    for call in [first, second] {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), 1);
    }
    assert_eq!(ledger.count(), 1);
}

async fn a_key_with_other_arguments_is_a_bad_request(stage: &Stage) {
    ledger!("once-arguments");
    let ledger = Ledger::closed();
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_store(StoreOptions::new(memory()));
    let _pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = |what: &str| client.book(what.to_owned()).idempotency_key("same").into_future();
    ledger.refuses_other_arguments(book).await;
}

async fn errors_that_are_final_are_kept_and_others_release_the_key(stage: &Stage) {
    ledger!("once-errors");
    let ledger = Ledger::open();
    // No claim runs out: keys are free because they were released.
    let options = StoreOptions::new(memory()).lease(LONG);
    let _pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_store(options).start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book =
        async |what: &str| within(SOON, what, client.book(what.to_owned()).idempotency_key(what).into_future()).await;
    for _ in 0..2 {
        let error = book("refused").await.unwrap_err();
        assert!(matches!(error, CallError::Service { error: BookError::Refused { number: 1 }, .. }), "{error:?}");
    }
    for expected in [2, 3] {
        let error = book("busy").await.unwrap_err();
        let CallError::Service { error: BookError::Busy { number }, .. } = error else { panic!("{error:?}") };
        assert_eq!(number, expected);
    }
    for expected in [4, 5] {
        assert_eq!(book("panic").await.unwrap_err().code(), "internal");
        assert_eq!(ledger.count(), expected);
    }
}

async fn a_handler_that_its_caller_stops_releases_the_key(stage: &Stage) {
    ledger!("once-stopped");
    let ledger = Ledger::closed();
    let options = StoreOptions::new(memory()).lease(LONG);
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_store(options).start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "it runs", async || ledger.count() == 1).await;
    first.abort();
    eventually(SOON, "it was stopped", async || pool.stats().cancelled == 1).await;
    ledger.release.add_permits(1);
    assert_eq!(within(SOON, "another one runs", book().into_future()).await.unwrap(), 2);
}

async fn answers_belong_to_their_caller(stage: &Stage) {
    ledger!("once-callers");
    let ledger = Ledger::open();
    let named = layer::from_fn(|mut request: Request, next: Next| async move {
        if let Some(name) = request.header("name").and_then(|name| name.as_str().map(str::to_owned)) {
            request.extensions_mut().insert(Caller::new(name));
        }
        next.run(request).await
    });
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.layer(named);
    let _pool = pool.dedupe_store(StoreOptions::new(memory())).start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = || client.book("it".to_owned()).idempotency_key("order 7");
    assert_eq!(book().header("name", "ada").await.unwrap(), 1);
    assert_eq!(book().header("name", "bob").await.unwrap(), 2);
    assert_eq!(book().await.unwrap(), 3);
    assert_eq!(book().header("name", "ada").await.unwrap(), 1);
    assert_eq!((book().header("name", "bob").await.unwrap(), book().await.unwrap()), (2, 3));
}

/// The worker's connection is cut between its reply and its ack; its policy forbids to execute such a request again.
async fn a_redelivered_request_is_answered_from_the_store(stage: &Stage) {
    ledger!("once-redelivered");
    stage.fresh("rpc.once-redelivered").await;
    let proxy = Proxy::start(stage.uri()).await;
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    let connection = Connection::open_with(proxy.uri(), options).await.unwrap();
    let ledger = Ledger::open();
    let pool = WorkerPool::new(&connection).serve(BooksServer::new(ledger.clone()));
    let pool = pool.redelivery_policy(RedeliveryPolicy::ReplyMaybeExecuted).dedupe_store(StoreOptions::new(memory()));
    let pool = pool.start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    proxy.hold(Direction::ToBroker, Method::Ack);
    assert_eq!(client.book("a".to_owned()).await.unwrap(), 1, "no key: it is known by its reply");
    proxy.is_holding(Direction::ToBroker).await;
    proxy.cut();
    eventually(RECONNECTED, "it comes again", async || pool.stats().deduplicated == 1).await;
    assert_eq!((pool.stats().received, ledger.count()), (2, 1), "answered, not executed");
    let book = || pool.stats().methods.into_iter().find(|method| method.method == "book").unwrap();
    eventually(SOON, "both have ended", async || book().running == 0).await;
    assert_eq!((book().calls, book().failed()), (2, 0), "{:?}", book());
    pool.shutdown(SOON).await.unwrap();
    let raw = stage.raw().await;
    assert_eq!(raw.queue("rpc.once-redelivered").await.unwrap().ready, 0, "and acknowledged");
}

async fn methods_that_are_excepted_run_each_time(stage: &Stage) {
    ledger!("once-excepted");
    for is_stored in [false, true] {
        let ledger = Ledger::open();
        let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_except(["once-excepted.list"]);
        let pool = match is_stored {
            false => pool.dedupe(DedupeOptions::default()),
            true => pool.dedupe_store(StoreOptions::new(memory())),
        };
        let pool = pool.start().await.unwrap();
        let client = BooksClient::new(&stage.connect().await);
        for number in 1..=3 {
            assert_eq!(client.list("it".to_owned()).idempotency_key("same").await.unwrap(), number);
        }
        for _ in 0..2 {
            assert_eq!(client.book("it".to_owned()).idempotency_key("same").await.unwrap(), 4);
        }
        pool.shutdown(SOON).await.unwrap();
    }
    let misspelt = stage.pool(BooksServer::new(Ledger::open())).await.dedupe(DedupeOptions::default());
    let error = misspelt.dedupe_except(["once-excepted.lists"]).start().await.unwrap_err();
    assert!(matches!(&error, Error::Configuration(words) if words.contains("once-excepted.lists")), "{error}");
}

async fn an_answer_that_is_too_large_leaves_a_mark(stage: &Stage) {
    ledger!("once-large");
    let ledger = Ledger::open();
    let options = StoreOptions::new(memory()).reply_max_bytes(0);
    let _pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_store(options).start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    assert_eq!(book().await.unwrap(), 1);
    let error = book().await.unwrap_err();
    assert!(error.code() == "payload_too_large" && error.maybe_executed(), "{error:?}");
    assert_eq!(ledger.count(), 1);
}

async fn a_pool_that_remembers_answers_does_not_start_with_hedged_methods(stage: &Stage) {
    #[service(name = "once-hedged")]
    trait Prices {
        #[rpc(idempotent, hedge)]
        async fn price(&self) -> u32;
    }
    struct Fixed;
    impl Prices for Fixed {
        async fn price(&self) -> u32 {
            7
        }
    }
    let pool = async || stage.pool(PricesServer::new(Fixed)).await;
    let refused = [
        pool().await.dedupe(DedupeOptions::default()).start().await,
        pool().await.dedupe_store(StoreOptions::new(memory())).start().await,
    ];
    for error in refused.map(Result::unwrap_err) {
        assert!(matches!(&error, Error::Configuration(words) if words.contains("'once-hedged.price'")), "{error}");
    }
    let excepted = pool().await.dedupe(DedupeOptions::default()).dedupe_except(["once-hedged.price"]);
    let (_pool, _plain) = (excepted.start().await.unwrap(), pool().await.start().await.unwrap());
    assert_eq!(PricesClient::new(&stage.connect().await).price().await.unwrap(), 7);
}

/// The handler needs a slot again after its own call, and there is one slot.
async fn requests_that_wait_for_a_handler_do_not_keep_its_slot(stage: &Stage) {
    #[service(name = "once-slots")]
    trait Shop {
        async fn order(&self) -> u32;
        async fn price(&self) -> u32;
    }
    #[derive(Clone)]
    struct Counter {
        shop: ShopClient,
        orders: Arc<AtomicUsize>,
        release: Arc<Semaphore>,
    }
    impl Shop for Counter {
        async fn order(&self) -> u32 {
            self.orders.fetch_add(1, Ordering::SeqCst);
            self.shop.price().await.unwrap()
        }
        async fn price(&self) -> u32 {
            self.release.acquire().await.unwrap().forget();
            7
        }
    }
    let connection = stage.connect().await;
    for is_stored in [false, true] {
        let shop = ShopClient::new(&connection);
        let counter = Counter { shop, orders: Arc::default(), release: Arc::new(Semaphore::new(0)) };
        let pool = stage.pool(ShopServer::new(counter.clone())).await.concurrency(1).prefetch(8);
        let pool = match is_stored {
            false => pool.dedupe(DedupeOptions::default()),
            true => pool.dedupe_store(StoreOptions::new(memory())),
        };
        let pool = pool.start().await.unwrap();
        let order = || counter.shop.order().idempotency_key("same").into_future();
        let calls: Vec<_> = (0..4).map(|_| tokio::spawn(order())).collect();
        eventually(SOON, "four orders and a nested call are here", async || pool.stats().received == 5).await;
        counter.release.add_permits(1);
        for call in calls {
            assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), 7);
        }
        assert_eq!((counter.orders.load(Ordering::SeqCst), pool.stats().deduplicated), (1, 3));
        pool.shutdown(SOON).await.unwrap();
    }
}

const SOON: Duration = Duration::from_secs(10);
/// A cut connection is opened again.
const RECONNECTED: Duration = Duration::from_secs(20);
/// Does not run out during a test.
const LONG: Duration = Duration::from_secs(600);

//! The store in Redis.

mod processes;

use std::{sync::Arc, time::Duration};

use rpc_core::{
    Context,
    dedupe::{RedisStore, StoreOptions},
    service,
};
use rpc_tests::{RedisProcess, Stage, check_store, eventually, on_both_brokers, within};

use super::{BookError, Ledger, SOON, ledger};

on_both_brokers!(pools_go_on_when_redis_is_killed_or_frozen_and_comes_back);

fn store(redis: &RedisProcess) -> RedisStore {
    // A machine under load is no reason for a store to be away.
    RedisStore::new(&redis.url()).unwrap().limit(Duration::from_secs(5))
}

#[tokio::test]
async fn the_store_keeps_the_contract() {
    let Some(redis) = RedisProcess::start().await else { return };
    let two = [store(&redis), store(&redis).prefix("another:")];
    for store in two {
        check_store(Arc::new(store), "").await;
    }
}

async fn pools_go_on_when_redis_is_killed_or_frozen_and_comes_back(stage: &Stage) {
    ledger!("once-redis");
    let Some(mut redis) = RedisProcess::start().await else { return };
    let ledger = Ledger::open();
    let options =
        StoreOptions::new(Arc::new(store(&redis).limit(Duration::from_secs(1)))).limit(Duration::from_secs(2));
    let pool = stage.pool(BooksServer::new(ledger.clone())).await.dedupe_store(options).start().await.unwrap();
    let client = BooksClient::new(&stage.connect().await);
    let book = |key: &str| client.book("it".to_owned()).idempotency_key(key).into_future();
    assert_eq!((book("a").await.unwrap(), book("a").await.unwrap()), (1, 1));
    redis.freeze();
    let error = within(SOON, "a refusal", book("b")).await.unwrap_err();
    assert!(error.code() == "overloaded" && !error.maybe_executed(), "{error:?}");
    redis.thaw();
    eventually(SOON, "it is asked again", async || book("a").await.is_ok_and(|number| number == 1)).await;
    redis.kill();
    let error = within(SOON, "a refusal", book("c")).await.unwrap_err();
    assert!(error.code() == "overloaded" && !error.maybe_executed(), "{error:?}");
    redis.restart().await;
    eventually(SOON, "it is asked again", async || book("d").await.is_ok_and(|number| number == 2)).await;
    assert_eq!((book("d").await.unwrap(), ledger.count()), (2, 2));
    assert!(pool.stats().store_refused >= 2);
}

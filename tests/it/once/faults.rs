//! The store is away, slow, or a claim runs out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rpc_core::{
    Context,
    dedupe::{StoreOptions, WhenAway},
    service,
};
use rpc_tests::{Stage, eventually, on_both_brokers, within};

use super::{BookError, LONG, Ledger, SOON, faulty::Faulty, ledger};

on_both_brokers!(
    while_the_store_is_away_requests_are_refused_unexecuted,
    while_the_store_is_away_requests_are_executed_by_option,
    a_store_that_does_not_answer_counts_as_away,
    a_request_that_ran_elsewhere_is_not_refused_as_unexecuted,
    an_answer_that_could_not_be_kept_at_once_is_kept_later,
    an_answer_that_cannot_be_kept_is_counted,
    two_handlers_of_one_request_give_one_answer,
    a_claim_is_renewed_while_its_handler_runs,
    a_late_answer_that_nobody_has_overtaken_counts,
);

/// A pool of its own with that store, and a client.
macro_rules! pool_and_client {
    ($stage:expr, $ledger:expr, $options:expr) => {{
        let pool = $stage.pool(BooksServer::new($ledger.clone())).await.dedupe_store($options).start().await.unwrap();
        (pool, BooksClient::new(&$stage.connect().await))
    }};
}

fn options(store: &Arc<Faulty>) -> StoreOptions {
    StoreOptions::new(Arc::clone(store) as _)
}

async fn while_the_store_is_away_requests_are_refused_unexecuted(stage: &Stage) {
    ledger!("once-away-refuse");
    let (ledger, store) = (Ledger::open(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store));
    store.fails_to_claim.store(true, Ordering::SeqCst);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let error = book().await.unwrap_err();
    assert!(error.code() == "overloaded" && !error.maybe_executed() && error.is_retryable(), "{error:?}");
    assert_eq!((ledger.count(), pool.stats().store_refused), (0, 1));
    store.fails_to_claim.store(false, Ordering::SeqCst);
    assert_eq!((book().await.unwrap(), book().await.unwrap(), ledger.count()), (1, 1, 1));
}

async fn while_the_store_is_away_requests_are_executed_by_option(stage: &Stage) {
    ledger!("once-away-go-on");
    let (ledger, store) = (Ledger::open(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).when_away(WhenAway::GoOn));
    store.fails_to_claim.store(true, Ordering::SeqCst);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    assert_eq!((book().await.unwrap(), book().await.unwrap()), (1, 2));
    assert_eq!((pool.stats().store_bypassed, pool.stats().store_refused), (2, 0));
    store.fails_to_claim.store(false, Ordering::SeqCst);
    assert_eq!((book().await.unwrap(), book().await.unwrap()), (3, 3));
}

async fn a_store_that_does_not_answer_counts_as_away(stage: &Stage) {
    ledger!("once-hangs");
    let (ledger, store) = (Ledger::open(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).limit(Duration::from_millis(50)));
    store.hangs.store(true, Ordering::SeqCst);
    let call = client.book("it".to_owned()).idempotency_key("same").into_future();
    assert_eq!(within(SOON, "a refusal", call).await.unwrap_err().code(), "overloaded");
    assert_eq!((ledger.count(), pool.stats().store_refused), (0, 1));
}

async fn a_request_that_ran_elsewhere_is_not_refused_as_unexecuted(stage: &Stage) {
    ledger!("once-away-running");
    let (ledger, store) = (Ledger::closed(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store));
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "it runs", async || ledger.count() == 1).await;
    let second = tokio::spawn(book().timeout(Duration::from_secs(3)).into_future());
    let third = tokio::spawn(book().into_future());
    eventually(SOON, "all are here", async || pool.stats().received == 3).await;
    // Each has seen that the request runs: they look at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.fails_to_claim.store(true, Ordering::SeqCst);
    let error = within(SOON, "its deadline", second).await.unwrap().unwrap_err();
    assert!(error.code() == "timeout" && error.maybe_executed(), "{error:?}");
    store.fails_to_claim.store(false, Ordering::SeqCst);
    ledger.release.add_permits(1);
    for call in [first, third] {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), 1);
    }
    assert_eq!((ledger.count(), pool.stats().store_refused), (1, 0));
}

async fn an_answer_that_could_not_be_kept_at_once_is_kept_later(stage: &Stage) {
    ledger!("once-late-complete");
    let (ledger, store) = (Ledger::open(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).lease(LONG));
    store.fails_to_complete.store(true, Ordering::SeqCst);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    assert_eq!(within(SOON, "the first answer", book().into_future()).await.unwrap(), 1);
    eventually(SOON, "it is tried again", async || store.completes.load(Ordering::SeqCst) > 2).await;
    store.fails_to_complete.store(false, Ordering::SeqCst);
    assert_eq!(within(SOON, "the same answer", book().into_future()).await.unwrap(), 1);
    assert_eq!((ledger.count(), pool.stats().answers_unkept), (1, 0));
}

async fn an_answer_that_cannot_be_kept_is_counted(stage: &Stage) {
    ledger!("once-unkept");
    let (ledger, store) = (Ledger::open(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).lease(Duration::from_millis(300)));
    store.fails_to_complete.store(true, Ordering::SeqCst);
    let book = || client.book("it".to_owned()).idempotency_key("same");
    assert_eq!(book().await.unwrap(), 1);
    eventually(SOON, "it is given up", async || pool.stats().answers_unkept == 1).await;
    store.fails_to_complete.store(false, Ordering::SeqCst);
    assert_eq!(book().await.unwrap(), 2, "its claim has run out");
}

/// The first one's claim runs out while its handler runs, and a second handler begins.
async fn two_handlers_of_one_request_give_one_answer(stage: &Stage) {
    ledger!("once-lost-claim");
    let (ledger, store) = (Ledger::closed(), Arc::new(Faulty::default()));
    store.fails_to_renew.store(true, Ordering::SeqCst);
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).lease(Duration::from_secs(2)));
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "it runs", async || ledger.count() == 1).await;
    let second = tokio::spawn(book().into_future());
    eventually(SOON, "another one runs", async || ledger.count() == 2).await;
    store.fails_to_renew.store(false, Ordering::SeqCst);
    // In turn: the first handler ends first, and its answer is not the one that counts.
    ledger.release.add_permits(1);
    eventually(SOON, "its claim is lost", async || pool.stats().claims_lost == 1).await;
    ledger.release.add_permits(1);
    for call in [first, second] {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), 2);
    }
    assert_eq!(book().await.unwrap(), 2);
    assert_eq!(ledger.count(), 2);
}

async fn a_claim_is_renewed_while_its_handler_runs(stage: &Stage) {
    ledger!("once-renewed");
    let (ledger, store) = (Ledger::closed(), Arc::new(Faulty::default()));
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).lease(Duration::from_secs(1)));
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "it runs", async || ledger.count() == 1).await;
    let error = book().timeout(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!((error.code(), ledger.count()), ("timeout", 1), "three times as long as the claim lasts");
    ledger.release.add_permits(1);
    assert_eq!(within(SOON, "an answer", first).await.unwrap().unwrap(), 1);
    assert_eq!((book().await.unwrap(), pool.stats().claims_lost), (1, 0));
}

async fn a_late_answer_that_nobody_has_overtaken_counts(stage: &Stage) {
    ledger!("once-late-answer");
    let (ledger, store) = (Ledger::closed(), Arc::new(Faulty::default()));
    store.fails_to_renew.store(true, Ordering::SeqCst);
    let (pool, client) = pool_and_client!(stage, ledger, options(&store).lease(Duration::from_secs(1)));
    let book = || client.book("it".to_owned()).idempotency_key("same");
    let first = tokio::spawn(book().into_future());
    eventually(SOON, "it runs", async || ledger.count() == 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ledger.release.add_permits(1);
    assert_eq!(within(SOON, "an answer", first).await.unwrap().unwrap(), 1);
    assert_eq!((pool.stats().claims_lost, book().await.unwrap(), ledger.count()), (1, 1, 1));
}

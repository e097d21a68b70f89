//! Publishes to an exchange that the user may not write to, or that is gone: no other call of the connection notices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Connection, WorkerPool, service};
use rpc_tests::{Stage, eventually, on_both_brokers, raw, within};
use tokio::sync::Semaphore;

on_both_brokers!(
    a_request_that_the_user_may_not_publish_ends_its_own_call,
    a_cancel_that_the_user_may_not_publish_hurts_no_call,
    requests_and_cancels_to_an_exchange_that_is_gone_hurt_no_other_call,
);

/// `pay` waits until it is released.
#[derive(Clone)]
struct Till {
    paid: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

impl Till {
    fn new() -> Self {
        Self { paid: Arc::default(), release: Arc::new(Semaphore::new(0)) }
    }

    async fn begun(&self, payments: usize) {
        eventually(SOON, "the payment begins", async || self.paid.load(Ordering::SeqCst) == payments).await;
    }
}

macro_rules! shop {
    ($name:literal) => {
        #[service(name = $name)]
        trait Shop {
            #[rpc(timeout = "40s")]
            async fn pay(&self) -> u32;
            async fn count(&self, n: u32) -> u32;
            #[rpc(idempotent)]
            async fn again(&self, n: u32) -> u32;
            #[rpc(oneway)]
            async fn note(&self, n: u32);
        }
        impl Shop for Till {
            async fn pay(&self) -> u32 {
                self.paid.fetch_add(1, Ordering::SeqCst);
                self.release.acquire().await.unwrap().forget();
                7
            }
            async fn count(&self, n: u32) -> u32 {
                n
            }
            async fn again(&self, n: u32) -> u32 {
                n
            }
            async fn note(&self, _n: u32) {}
        }
    };
}

async fn a_request_that_the_user_may_not_publish_ends_its_own_call(stage: &Stage) {
    shop!("denied-shop");
    #[service(name = "denied-bare", queue = "denied.bare")]
    trait Bare {
        async fn shout(&self, text: String) -> String;
    }
    #[service(name = "denied-note", queue = "denied.note")]
    trait BareNote {
        #[rpc(oneway)]
        async fn note(&self, text: String);
    }
    fn assert_denied<T: std::fmt::Debug>(outcome: Result<T, CallError>) {
        let error = outcome.unwrap_err();
        assert!(error.code() == "topology" && !error.maybe_executed(), "{error:?}");
    }
    let till = Till::new();
    let pool = stage.pool(ShopServer::new(till.clone())).await.start().await.unwrap();
    // It may publish to `rpc`, and not to the default exchange, to which requests of the bare profile go.
    let connection = Connection::open(&stage.uri_as("silent", "")).await.unwrap();
    let client = ShopClient::new(&connection);
    let pay = tokio::spawn(client.pay().into_future());
    till.begun(1).await;
    let shared = client.client().clone();
    let (bare, note) = (BareClient::from_client(shared.clone()), BareNoteClient::from_client(shared));
    for n in 0..3 {
        // The large one travels with a confirm.
        let (small, large) = (bare.shout("x".to_owned()), bare.shout("x".repeat(10_000)));
        let (small, large, note, count) = within(SOON, "their ends", async {
            tokio::join!(
                small.into_future(),
                large.into_future(),
                note.note("x".to_owned()).into_future(),
                client.count(n).into_future()
            )
        })
        .await;
        assert_denied(small);
        assert_denied(large);
        assert_denied(note);
        assert_eq!(count.unwrap(), n);
    }
    till.release.add_permits(1);
    assert_eq!(within(SOON, "the payment", pay).await.unwrap().unwrap(), 7);
    assert_eq!(till.paid.load(Ordering::SeqCst), 1, "it ran once");
    pool.shutdown(SOON).await.unwrap();
}

async fn a_cancel_that_the_user_may_not_publish_hurts_no_call(stage: &Stage) {
    shop!("denied-cancel");
    let till = Till::new();
    let pool = stage.pool(ShopServer::new(till.clone())).await.start().await.unwrap();
    // It may publish to `rpc` alone.
    let connection = Connection::open(&stage.uri_as("plain", "")).await.unwrap();
    let client = ShopClient::new(&connection);
    let pay = tokio::spawn(client.pay().into_future());
    till.begun(1).await;
    for n in 0..4 {
        let given_up = tokio::spawn(client.pay().into_future());
        till.begun(n + 2).await;
        given_up.abort();
        for n in 0..10 {
            assert_eq!(client.count(n).await.unwrap(), n);
        }
    }
    till.release.add_permits(5);
    assert_eq!(within(SOON, "the payment", pay).await.unwrap().unwrap(), 7);
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!((stats.cancelled, till.paid.load(Ordering::SeqCst)), (0, 5), "no cancel got through, and each ran once");
}

/// On a vhost of its own, because other cases need the exchanges.
async fn requests_and_cancels_to_an_exchange_that_is_gone_hurt_no_other_call(stage: &Stage) {
    shop!("denied-gone");
    let uri = stage.uri_as("resident", "parity");
    let raw = raw::Peer::connect(uri.split('?').next().unwrap()).await;
    for queue in ["rpc.denied-gone", "rpc.denied-gone.nested.calls"] {
        raw.delete_queue(queue).await;
    }
    let till = Till::new();
    let start = async || {
        let connection = Connection::open(&uri).await.unwrap();
        WorkerPool::new(&connection).serve(ShopServer::new(till.clone())).start().await.unwrap()
    };
    let pool = start().await;
    let client = ShopClient::new(&Connection::open(&uri).await.unwrap());
    let pay = tokio::spawn(client.pay().into_future());
    till.begun(1).await;

    let give_up = async |payments| {
        let given_up = tokio::spawn(client.pay().into_future());
        till.begun(payments).await;
        given_up.abort();
    };
    give_up(2).await;
    eventually(SOON, "it is cancelled", async || pool.stats().cancelled == 1).await;
    raw.delete_exchange("rpc.cancel").await;
    give_up(3).await;
    assert_eq!(client.count(1).await.unwrap(), 1);

    client.note(1).await.unwrap();
    raw.delete_exchange("rpc").await;
    let (count, again, note) = tokio::join!(
        client.count(2).timeout(Duration::from_secs(1)).into_future(),
        client.again(3).timeout(SOON).into_future(),
        client.note(4).timeout(SOON).into_future(),
    );
    // The broker does not say which of a channel's requests it has not taken, so only repeatable ones are sent again.
    let count = count.unwrap_err();
    assert!(matches!(count, CallError::Timeout { .. } | CallError::Disconnected { .. }), "{count:?}");
    assert_eq!(again.unwrap(), 3);
    let note = note.unwrap_err();
    assert!(matches!(note, CallError::Disconnected { .. }), "{note:?}");
    // The client has declared the exchange again.
    assert_eq!(client.count(5).await.unwrap(), 5);
    client.note(6).await.unwrap();

    till.release.add_permits(2);
    assert_eq!(within(SOON, "the payment", pay).await.unwrap().unwrap(), 7);
    assert_eq!(till.paid.load(Ordering::SeqCst), 3, "each ran once");
    pool.shutdown(SOON).await.unwrap();
    // A worker that starts binds its queue again.
    start().await.shutdown(SOON).await.unwrap();
}

const SOON: Duration = Duration::from_secs(10);

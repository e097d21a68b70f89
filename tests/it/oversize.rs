//! Requests that the broker refuses: each ends its own call, and no other one notices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Client, ClientOptions, Connection, WorkerPool, broker::Broker, service};
use rpc_tests::{Stage, on_both_brokers, within};

on_both_brokers!(
    a_request_beyond_the_brokers_limit_ends_its_own_call,
    a_budget_of_years_is_no_malformed_expiration,
    a_header_that_names_routing_keys_is_refused,
);

macro_rules! store {
    ($name:literal) => {
        #[service(name = $name)]
        trait Store {
            async fn put(&self, text: String) -> usize;
            #[rpc(idempotent)]
            async fn put_again(&self, text: String) -> usize;
            async fn pay(&self, milliseconds: u64) -> u64;
            #[rpc(oneway)]
            async fn tell(&self, text: String);
        }
        struct Shelf {
            paid: Arc<AtomicU32>,
        }
        impl Store for Shelf {
            async fn put(&self, text: String) -> usize {
                text.len()
            }
            async fn put_again(&self, text: String) -> usize {
                text.len()
            }
            async fn pay(&self, milliseconds: u64) -> u64 {
                self.paid.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                milliseconds
            }
            async fn tell(&self, _text: String) {}
        }
    };
}

fn assert_too_large<T: std::fmt::Debug>(outcome: &Result<T, CallError>, expected: usize) {
    match outcome {
        Err(error @ CallError::PayloadTooLarge { limit_bytes, .. }) => {
            assert!(*limit_bytes == expected && !error.maybe_executed(), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

async fn a_request_beyond_the_brokers_limit_ends_its_own_call(stage: &Stage) {
    store!("oversize-limit");
    let limit_bytes = stage.expects().message_max_bytes;
    let paid = Arc::default();
    let _pool = stage.pool(StoreServer::new(Shelf { paid: Arc::clone(&paid) })).await.start().await.unwrap();
    let options = ClientOptions::default().max_body_bytes(1 << 30);
    let client = StoreClient::from_client(Client::with_options(&stage.connect().await, options));
    assert_eq!(client.pay(0).await.unwrap(), 0);
    let running = tokio::spawn(client.pay(3_000).timeout(Duration::from_secs(40)).into_future());
    let large = client.put("x".repeat(limit_bytes + 1)).timeout(Duration::from_secs(40)).await;
    assert_too_large(&large, limit_bytes);
    assert_eq!(running.await.unwrap().unwrap(), 3_000);
    assert_eq!(paid.load(Ordering::Relaxed), 2, "no call ran twice");
    // Now the limit is known.
    let again = client.put_again("x".repeat(limit_bytes + 1)).timeout(Duration::from_secs(40)).await;
    assert_too_large(&again, limit_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_every_kind_beyond_the_limit_end_alone() {
    store!("oversize-kinds");
    // One limit below the sizes that are taken for accepted, and one above.
    for limit_bytes in [1 << 20, 20_000] {
        let broker = Broker::builder().message_max_bytes(limit_bytes as u64).start().await.unwrap();
        // Natively, whatever the other tests use: over lapin others may notice (below).
        let connection = Connection::open(broker.uri()).await.unwrap();
        let paid = Arc::default();
        let server = StoreServer::new(Shelf { paid: Arc::clone(&paid) });
        let _pool = WorkerPool::new(&connection).serve(server).start().await.unwrap();
        let client = StoreClient::new(&connection);
        client.pay(0).await.unwrap();
        let running: Vec<_> = (0..20).map(|_| tokio::spawn(client.pay(1_000).into_future())).collect();
        let good: Vec<_> =
            (0..10).map(|n| tokio::spawn(client.put_again("x".repeat(limit_bytes / (n + 2))).into_future())).collect();
        let large = || "x".repeat(2 * limit_bytes);
        let begin = std::time::Instant::now();
        let (put, again, tell) = tokio::join!(
            client.put(large()).into_future(),
            client.put_again(large()).into_future(),
            client.tell(large()).into_future(),
        );
        let elapsed = begin.elapsed();
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}: {put:?}, {again:?}, {tell:?}");
        assert_too_large(&put, limit_bytes);
        assert_too_large(&again, limit_bytes);
        assert_too_large(&tell, limit_bytes);
        for call in running {
            assert_eq!(within(Duration::from_secs(10), "it ends", call).await.unwrap().unwrap(), 1_000);
        }
        for (n, call) in good.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), limit_bytes / (n + 2));
        }
        assert_eq!(paid.load(Ordering::Relaxed), 21, "no call ran twice");
        client.tell(String::new()).await.unwrap();
    }
}

/// lapin answers `channel.close` before the frames that it has queued for that channel, which may cost the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_lapin_requests_beyond_the_limit_end_and_the_client_recovers() {
    store!("oversize-lapin");
    for limit_bytes in [1 << 20, 20_000] {
        let broker = Broker::builder().message_max_bytes(limit_bytes as u64).start().await.unwrap();
        let connection = Connection::open(&format!("{}?transport=lapin", broker.uri())).await.unwrap();
        let server = StoreServer::new(Shelf { paid: Arc::default() });
        let _pool = WorkerPool::new(&connection).serve(server).start().await.unwrap();
        let client = StoreClient::new(&connection);
        client.pay(0).await.unwrap();
        let running: Vec<_> = (0..20).map(|_| tokio::spawn(client.pay(100).into_future())).collect();
        let large = || "x".repeat(2 * limit_bytes);
        let (put, again, tell) = tokio::join!(
            within(Duration::from_secs(15), "an end", client.put(large()).into_future()),
            within(Duration::from_secs(15), "an end", client.put_again(large()).into_future()),
            within(Duration::from_secs(15), "an end", client.tell(large()).into_future()),
        );
        assert!(put.is_err() && again.is_err() && tell.is_err(), "{put:?}, {again:?}, {tell:?}");
        for call in running {
            match within(Duration::from_secs(15), "an end", call).await.unwrap() {
                Ok(100) | Err(CallError::Disconnected { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let good = client.put_again("x".to_owned()).timeout(Duration::from_secs(10));
        assert_eq!(good.await.unwrap(), 1, "the client works again");
    }
}

async fn a_budget_of_years_is_no_malformed_expiration(stage: &Stage) {
    store!("oversize-years");
    let _pool = stage.pool(StoreServer::new(Shelf { paid: Arc::default() })).await.start().await.unwrap();
    let client = StoreClient::new(&stage.connect().await);
    for days in [49, 50, 10_000] {
        let call = client.put("x".to_owned()).timeout(Duration::from_secs(days * 24 * 60 * 60));
        assert_eq!(within(Duration::from_secs(10), "the answer", call.into_future()).await.unwrap(), 1, "{days}");
    }
}

async fn a_header_that_names_routing_keys_is_refused(stage: &Stage) {
    store!("oversize-headers");
    let _pool = stage.pool(StoreServer::new(Shelf { paid: Arc::default() })).await.start().await.unwrap();
    let client = StoreClient::new(&stage.connect().await);
    let running = tokio::spawn(client.pay(300).into_future());
    for name in ["CC", "BCC"] {
        let refused = client.put("x".to_owned()).header(name, "elsewhere").await.unwrap_err();
        assert_eq!(refused.code(), "bad_request", "{refused}");
        let refused = client.tell("x".to_owned()).header(name, "elsewhere").await.unwrap_err();
        assert_eq!(refused.code(), "bad_request", "{refused}");
    }
    assert_eq!(running.await.unwrap().unwrap(), 300);
}

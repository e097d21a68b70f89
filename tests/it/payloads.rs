//! Bodies of every size.

use std::time::Duration;

use rpc_core::{CallError, Client, ClientOptions};
use rpc_tests::{Stage, on_both_brokers};

on_both_brokers!(
    bodies_of_every_size_survive_both_ways,
    megabytes_travel_beside_small_calls,
    a_body_above_the_limit_is_not_sent,
);

/// Bytes that differ from their neighbours, so that a lost or doubled frame shows.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 % 251) as u8).collect()
}

/// One module for each case: a service under a name of its own.
macro_rules! store {
    ($name:literal) => {
        #[rpc_core::service(name = $name)]
        trait Store {
            async fn swap(&self, body: Vec<u8>) -> Vec<u8>;
            async fn ping(&self, n: u32) -> u32;
        }
        struct Reversing;
        impl Store for Reversing {
            async fn swap(&self, mut body: Vec<u8>) -> Vec<u8> {
                body.reverse();
                body
            }
            async fn ping(&self, n: u32) -> u32 {
                n
            }
        }
    };
}

async fn bodies_of_every_size_survive_both_ways(stage: &Stage) {
    store!("payloads-sizes");
    let _pool = stage.pool(StoreServer::new(Reversing)).await.start().await.unwrap();
    let client = StoreClient::new(&stage.connect().await);
    // Around one frame of 131 072 bytes and around two; a Vec<u8> is up to two bytes an element in MessagePack.
    let sizes = [0, 1, 1_000, 65_000, 80_000, 131_000, 131_064, 131_072, 131_073, 262_128, 262_144, 1 << 20];
    for bytes in sizes {
        let body = pattern(bytes);
        let mut expected = body.clone();
        expected.reverse();
        let answer = client.swap(body).timeout(Duration::from_secs(30)).await.unwrap();
        assert!(answer == expected, "{bytes} bytes came back as {}", answer.len());
    }
}

async fn megabytes_travel_beside_small_calls(stage: &Stage) {
    store!("payloads-mixed");
    let _pool = stage.pool(StoreServer::new(Reversing)).await.start().await.unwrap();
    let client = StoreClient::new(&stage.connect().await);
    let body = pattern(1 << 20);
    let large: Vec<_> = (0..8)
        .map(|_| tokio::spawn(client.swap(body.clone()).timeout(Duration::from_secs(30)).into_future()))
        .collect();
    let small: Vec<_> = (0..200).map(|n| tokio::spawn(client.ping(n).into_future())).collect();
    for (n, call) in small.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap() as usize, n);
    }
    let mut expected = body;
    expected.reverse();
    for call in large {
        assert!(call.await.unwrap().unwrap() == expected);
    }
}

async fn a_body_above_the_limit_is_not_sent(stage: &Stage) {
    store!("payloads-limit");
    let pool = stage.pool(StoreServer::new(Reversing)).await.start().await.unwrap();
    let options = ClientOptions::default().max_body_bytes(1_000);
    let client = StoreClient::from_client(Client::with_options(&stage.connect().await, options));
    let error = client.swap(pattern(2_000)).await.unwrap_err();
    match error {
        CallError::PayloadTooLarge { body_bytes, limit_bytes, .. } => {
            assert!(body_bytes > 2_000 && limit_bytes == 1_000)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.ping(1).await.unwrap(), 1);
    assert_eq!(pool.stats().received, 1, "the large one never arrived");
}

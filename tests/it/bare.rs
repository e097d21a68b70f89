//! The bare profile: the queue and the plain-text bodies of RabbitMQ's RPC tutorial, both ways.

use std::time::Duration;

use lapin::BasicProperties;
use rpc_tests::{
    Stage, on_both_brokers,
    raw::{content_type, kind},
};

on_both_brokers!(
    a_rust_client_calls_a_foreign_fibonacci_server,
    a_foreign_client_calls_a_rust_fibonacci_server,
    a_rust_client_calls_a_rust_server,
    a_queue_that_exists_with_other_arguments_is_used_as_it_is,
);

/// The tutorial's service under a queue name of its own for each case.
macro_rules! fib {
    ($queue:literal) => {
        #[rpc_core::service(queue = $queue)]
        trait Fib {
            async fn fib(&self, n: u32) -> u64;
        }
        #[allow(dead_code, reason = "some cases need only the client")]
        struct Fast;
        impl Fib for Fast {
            async fn fib(&self, n: u32) -> u64 {
                fibonacci(n)
            }
        }
    };
}

fn fibonacci(n: u32) -> u64 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

async fn a_rust_client_calls_a_foreign_fibonacci_server(stage: &Stage) {
    fib!("bare-foreign-server");
    stage.fresh("bare-foreign-server").await;
    let server = stage.raw().await;
    server.durable_queue("bare-foreign-server").await;
    let mut requests = server.consume("bare-foreign-server", 1).await;
    let serving = tokio::spawn(async move {
        for _ in 0..3 {
            let request = requests.next().await;
            let n = std::str::from_utf8(&request.data).unwrap().parse().unwrap();
            server.answer(&request, fibonacci(n).to_string().as_bytes()).await;
        }
        server
    });
    let client = FibClient::new(&stage.connect().await);
    for (n, expected) in [(0, 0), (30, 832_040), (90, 2_880_067_194_370_816_120)] {
        assert_eq!(client.fib(n).await.unwrap(), expected);
    }
    serving.await.unwrap().close().await;
}

async fn a_foreign_client_calls_a_rust_fibonacci_server(stage: &Stage) {
    fib!("bare-rust-server");
    let _pool = stage.pool(FibServer::new(Fast)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let reply = raw.call("", "bare-rust-server", BasicProperties::default(), b"30").await;
    assert_eq!(reply.data.to_vec(), b"832040");
    assert_eq!(content_type(&reply), Some("text/plain"));
    let reply = raw.call("", "bare-rust-server", BasicProperties::default(), b"thirty").await;
    assert_eq!(kind(&reply), Some("rpc.error"));
}

async fn a_rust_client_calls_a_rust_server(stage: &Stage) {
    fib!("bare-both");
    let pool = stage.pool(FibServer::new(Fast)).await.start().await.unwrap();
    let client = FibClient::new(&stage.connect().await);
    assert_eq!(client.fib(30).await.unwrap(), 832_040);
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_queue_that_exists_with_other_arguments_is_used_as_it_is(stage: &Stage) {
    fib!("bare-exists");
    stage.fresh("bare-exists").await;
    let raw = stage.raw().await;
    raw.limited_queue("bare-exists").await;
    let _pool = rpc_core::WorkerPool::new(&stage.connect().await).serve(FibServer::new(Fast)).start().await.unwrap();
    assert_eq!(FibClient::new(&stage.connect().await).fib(10).await.unwrap(), 55);
}

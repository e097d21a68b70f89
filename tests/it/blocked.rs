//! A broker that is short of memory, as pika sees it: `interop/blocked.py` on both brokers.
//!
//! RabbitMQ's watermark is moved, which everybody on the node feels: that test is for a node nobody else uses, which
//! `tests/run` names in `RPC_TEST_RABBITMQ_CTL`.

use rpc_core::broker::Broker;
use rpc_tests::{Script, raw};

use crate::kill_points::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundled() {
    let broker = Broker::builder().memory_high_watermark(100_000).start().await.unwrap();
    let Some(mut python) = Script::python("blocked.py", &[broker.uri()]) else { return };
    assert_eq!(python.line().await, "published");
    let ballast = raw::Peer::connect(broker.uri()).await;
    ballast.durable_queue("ballast").await;
    for _ in 0..4 {
        ballast.publish("", "ballast", Default::default(), &[b'x'; 30_000]).await;
    }
    assert_eq!(python.line().await, "blocked");
    // RabbitMQ no longer reads from a connection that has published.
    raw::Peer::connect(broker.uri()).await.delete_queue("ballast").await;
    python.succeeds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "alone: it moves the node's watermark; `tests/run` does"]
async fn rabbitmq() {
    let Some(mut world) = World::rabbitmq() else {
        println!("skipped: no RabbitMQ whose watermark this test may move");
        return;
    };
    let uri = world.place(String::new()).uri;
    let Some(mut python) = Script::python("blocked.py", &[&uri]) else { return };
    assert_eq!(python.line().await, "published");
    world.block().await;
    let line = tokio::spawn(async move { (python.line().await, python) }).await;
    // Before the assertions, so that a failure does not leave RabbitMQ blocked for the next cases.
    world.unblock().await;
    let (line, python) = line.unwrap();
    assert_eq!(line, "blocked");
    python.succeeds().await;
}

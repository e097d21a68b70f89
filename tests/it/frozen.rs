//! Frozen processes (SIGSTOP): a broker that falls silent and closes nothing, and a client that wakes up when all is over.
//!
//! With heartbeats of 1 s; two of them without a sign are the end of a connection. RabbitMQ's node is frozen as a whole: that test is
//! for a node nobody else uses, which `tests/run` names in `RPC_TEST_RABBITMQ_CTL`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rpc_core::{CallError, Connection, ConnectionOptions, WorkerPool, broker::Broker};
use rpc_tests::{
    Answers, BrokerProcess, ClientProcess, eventually, framework_uri, probe, raw, signal, with_parameter, within,
};
use tokio::process::Command;

use crate::{kill_points::world::World, late};

probe!("frozen");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_open_at_a_frozen_broker_go_on_at_another_one() {
    let first = BrokerProcess::spawn(Path::new(env!("CARGO_BIN_EXE_test_broker"))).await;
    fail_over(first.uri(), || first.freeze()).await;
    // A process that is stopped is killed all the same.
}

mod rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it stops the node; `tests/run` does"]
    async fn calls_open_at_a_frozen_node_go_on_at_another_broker() {
        let Some(node) = Node::find().await else { return };
        // The node requeues the requests that an earlier run had open, and they live for twenty seconds.
        let raw = raw::Peer::connect(&node.uri).await;
        raw.delete_queue("rpc.frozen").await;
        raw.close().await;
        fail_over(&node.uri, || node.freeze()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it stops the node; `tests/run` does"]
    async fn requests_in_the_sockets_of_a_frozen_node_are_not_begun() {
        let Some(node) = Node::find().await else { return };
        late::requests_in_the_sockets_of(&node.uri, || node.freeze(), || node.thaw()).await;
    }

    /// Goes on when dropped.
    struct Node {
        uri: String,
        process_id: u32,
    }

    impl Node {
        async fn find() -> Option<Self> {
            let Some(World::RabbitMq { uri, ctl }) = World::rabbitmq() else {
                println!("skipped: no RabbitMQ that this test may stop");
                return None;
            };
            let output = Command::new(ctl).args(["eval", "os:getpid()."]).output().await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let process_id = text.trim().trim_matches('"').parse().unwrap_or_else(|_| panic!("a process id: {text}"));
            Some(Self { uri, process_id })
        }

        fn freeze(&self) {
            signal(self.process_id, "STOP");
        }

        fn thaw(&self) {
            signal(self.process_id, "CONT");
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            self.thaw();
        }
    }
}

/// Calls are open at the broker `first` when it is frozen: their client is to find the second one.
async fn fail_over(first: &str, freeze: impl FnOnce()) {
    let second = Broker::start().await.unwrap();
    let with_heartbeat = |uri: &str| with_parameter(uri, "heartbeat=1");
    let (first, second) = (with_heartbeat(&framework_uri(first)), with_heartbeat(&framework_uri(second.uri())));
    let serve = async |uri: &str, name: &'static str| {
        let answers = Answers::with(move |asked| async move {
            if name == "first" && asked.question == "wait" {
                std::future::pending::<()>().await;
            }
            name.to_owned()
        });
        let connection = Connection::open(uri).await.unwrap();
        WorkerPool::new(&connection).serve(ProbeServer::new(answers)).start().await.unwrap()
    };
    let (at_first, _at_second) = (serve(&first, "first").await, serve(&second, "second").await);
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(100));
    let connection = Connection::open_any(&[&first, &second], options).await.unwrap();
    let client = ProbeClient::new(&connection);
    assert_eq!(client.ask_again(String::new()).await.unwrap(), "first");
    let limit = Duration::from_secs(20);
    let idempotent = tokio::spawn(client.ask_again("wait".to_owned()).timeout(limit).into_future());
    let other = tokio::spawn(client.ask("wait".to_owned()).timeout(limit).into_future());
    eventually(Duration::from_secs(10), "both are begun", async || at_first.stats().received == 3).await;
    freeze();
    let began = Instant::now();
    assert_eq!(within(limit, "its answer", idempotent).await.unwrap().unwrap(), "second");
    let went_on = began.elapsed();
    let lost = within(limit, "its end", other).await.unwrap().unwrap_err();
    assert!(matches!(lost, CallError::Disconnected { maybe_executed: true, .. }), "{lost:?}");
    println!("the call went on after {went_on:?}");
    // Two heartbeats, half a one until that is noticed, and a new connection and session.
    assert!(went_on < Duration::from_secs(5), "{went_on:?}");
    assert_eq!(client.ask(String::new()).await.unwrap(), "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_frozen_ends_its_calls_and_reconnects() {
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(&framework_uri(broker.uri())).await.unwrap();
    let _pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let uri = framework_uri(&format!("{}?heartbeat=1", broker.uri()));
    let mut client = ClientProcess::spawn(Path::new(env!("CARGO_BIN_EXE_test_client")), &uri, "frozen");
    for _ in 0..100 {
        assert_eq!(client.line().await, "answered");
    }
    client.freeze();
    // Until the broker has given it up: it has one connection left, the pool's.
    let is_gone = async || broker.connections().len() == 1;
    eventually(Duration::from_secs(20), "the broker closes the frozen client's connection", is_gone).await;
    client.thaw();
    let (mut is_lost, mut is_back, mut answered) = (false, false, 0);
    while answered < 100 {
        let line = client.line().await;
        match line.split_once(' ').map_or(&*line, |(word, _)| word) {
            "reconnecting" => is_lost = true,
            "connected" => is_back = true,
            "answered" if is_back => answered += 1,
            // Also by a reply that came before it was frozen.
            "answered" | "ended" => {}
            _ => panic!("{line}"),
        }
    }
    assert!(is_lost, "it has noticed");
}

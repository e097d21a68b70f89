//! Handlers that run longer than the broker's `consumer_timeout`: RabbitMQ 3.10 closes their channel, and 4.3 cancels their
//! consumer. The pool consumes again either way, and the requests are executed again.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{Connection, PoolHandle, QueueKind, WorkerPool};
use rpc_tests::{Answers, eventually, framework_uri, probe, within};
use tokio::time::sleep;

mod bundled {
    use rpc_core::broker::{Broker, Profile};

    use super::*;

    async fn broker(profile: Profile) -> Broker {
        rpc_tests::broker().profile(profile).consumer_timeout(LIMIT).start().await.unwrap()
    }

    async fn requests_are_executed_again(profile: Profile, kind: QueueKind) {
        let broker = broker(profile).await;
        overdue_requests_are_executed_again(broker.uri(), kind).await;
        let left = broker.queue("rpc.overdue").map(|queue| (queue.ready, queue.unacked));
        assert_eq!(left, Some((0, 0)));
        broker.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_of_a_closed_channel_are_executed_again() {
        for kind in [QueueKind::Classic, QueueKind::Quorum] {
            requests_are_executed_again(Profile::RabbitMq3_10, kind).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_of_a_cancelled_consumer_are_executed_again() {
        requests_are_executed_again(Profile::RabbitMq4_3, QueueKind::Quorum).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_classic_queue_of_rabbitmq_4_3_has_no_limit() {
        let broker = broker(Profile::RabbitMq4_3).await;
        let service = Slow::default();
        let connection = Connection::open(&framework_uri(broker.uri())).await.unwrap();
        let pool = service.pool(&connection, QueueKind::Classic).await;
        let client = ProbeClient::new(&connection);
        let call = tokio::spawn(client.ask("slow".to_owned()).timeout(SOON).into_future());
        eventually(SOON, "it runs", async || service.begun() == 1).await;
        sleep(3 * LIMIT).await;
        assert_eq!(client.ask("quick".to_owned()).await.unwrap(), "quick");
        assert!(!call.is_finished() && service.begun() == 1, "the handler is left alone");
        call.abort();
        pool.shutdown(Duration::ZERO).await.unwrap();
        broker.shutdown().await;
    }
}

mod rabbitmq {
    use rpc_tests::version_at;
    use tokio::process::Command;

    use super::*;
    use crate::kill_points::world::World;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it sets a policy; `tests/run` does"]
    async fn requests_of_a_cancelled_consumer_are_executed_again() {
        let Some(World::RabbitMq { uri, ctl }) = World::rabbitmq() else {
            println!("skipped: no RabbitMQ that this test may change");
            return;
        };
        if !version_at(&uri).starts_with("4.3") {
            return println!("skipped: it has no policy for the timeout of consumers");
        }
        let policy = format!("{{\"consumer-timeout\": {}}}", LIMIT.as_millis());
        let set = ["set_policy", "overdue", "^rpc\\.overdue$", &policy, "--apply-to", "quorum_queues"];
        assert!(Command::new(&ctl).args(set).status().await.unwrap().success());
        overdue_requests_are_executed_again(&uri, QueueKind::Quorum).await;
        assert!(Command::new(&ctl).args(["clear_policy", "overdue"]).status().await.unwrap().success());
    }
}

probe!("overdue");

/// A service whose slow requests never end, unless they are delivered again. It counts the slow ones that have begun.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<AtomicUsize>,
}

impl Slow {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn pool(&self, connection: &Connection, kind: QueueKind) -> PoolHandle {
        let begun = Arc::clone(&self.begun);
        let answers = Answers::with(move |asked| {
            let begun = Arc::clone(&begun);
            async move {
                if asked.question != "quick" {
                    begun.fetch_add(1, Ordering::SeqCst);
                    if !asked.is_redelivered {
                        pending::<()>().await;
                    }
                }
                asked.question
            }
        });
        WorkerPool::new(connection).serve(ProbeServer::new(answers)).queue_kind(kind).start().await.unwrap()
    }
}

/// One request runs for too long, and another has only begun when that is noticed: both are executed again, and their
/// callers get their answers. The pool goes on.
async fn overdue_requests_are_executed_again(uri: &str, kind: QueueKind) {
    let service = Slow::default();
    let connection = Connection::open(&framework_uri(uri)).await.unwrap();
    let pool = service.pool(&connection, kind).await;
    let client = ProbeClient::new(&connection);
    let ask = |question: &str| tokio::spawn(client.ask(question.to_owned()).timeout(2 * SOON).into_future());
    let slow = ask("slow");
    eventually(SOON, "it runs", async || service.begun() == 1).await;
    sleep(LIMIT / 2).await;
    let young = ask("young");
    eventually(SOON, "it runs beside the other", async || service.begun() >= 2).await;
    for (question, call) in [("slow", slow), ("young", young)] {
        assert_eq!(within(2 * SOON, question, call).await.unwrap().unwrap(), question);
    }
    assert_eq!(service.begun(), 4, "each once more");
    for _ in 0..20 {
        assert_eq!(client.ask("quick".to_owned()).await.unwrap(), "quick");
    }
    pool.shutdown(SOON).await.unwrap();
    connection.close().await.unwrap();
}

const LIMIT: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(20);

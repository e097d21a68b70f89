//! A vhost whose default queue type is `quorum`: each queue has the type that its pool declares.

use std::time::Duration;

use rpc_core::{Connection, QueueKind, WorkerPool};
use rpc_tests::{Answers, Stage, on_both_brokers, probe, raw};

on_both_brokers!(queues_have_the_type_of_their_pool_whatever_the_default_of_the_vhost_is);

async fn queues_have_the_type_of_their_pool_whatever_the_default_of_the_vhost_is(stage: &Stage) {
    probe!("queue-types");
    let uri = stage.uri_on("quorum");
    for (kind, other) in [(QueueKind::Classic, "quorum"), (QueueKind::Quorum, "classic")] {
        let raw = raw::Peer::connect(&stage.broker_uri_on("quorum")).await;
        let queues = ["", ".dead", ".dead.callers", ".nested.calls"].map(|end| format!("rpc.queue-types{end}"));
        for queue in &queues {
            raw.delete_queue(queue).await;
        }
        // The second pool declares what is there.
        for question in ["first", "second"] {
            let connection = Connection::open(&uri).await.unwrap();
            let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).queue_kind(kind);
            let pool = if kind == QueueKind::Classic { pool.max_priority(3) } else { pool };
            let pool = pool.start().await.unwrap();
            let client = ProbeClient::new(&connection);
            assert_eq!(client.ask(question.to_owned()).await.unwrap(), question);
            pool.shutdown(Duration::from_secs(10)).await.unwrap();
        }
        let refusal = raw.refusal_of_type(&queues[0], other).await.expect("the queue has another type");
        assert!(refusal.contains("inequivalent arg 'x-"), "{refusal}");
        for queue in &queues {
            raw.delete_queue(queue).await;
        }
    }
}

//! Many at once.

use std::{sync::Arc, time::Duration};

use rpc_core::{Client, ClientOptions};
use rpc_tests::{Answers, Stage, on_both_brokers, probe, within};
use tokio::sync::Barrier;

on_both_brokers!(
    a_thousand_calls_are_in_flight_at_once,
    answers_out_of_order_reach_their_callers,
    many_clients_on_many_connections_get_their_own_answers,
    many_clients_share_one_connection,
);

async fn a_thousand_calls_are_in_flight_at_once(stage: &Stage) {
    const CALLS: usize = 1_000;
    probe!("concurrency-thousand");
    // No answer before all thousand requests are with their handlers.
    let barrier = Arc::new(Barrier::new(CALLS));
    let answers = {
        let barrier = Arc::clone(&barrier);
        Answers::with(move |asked| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                asked.question
            }
        })
    };
    let pool = stage.pool(ProbeServer::new(answers)).await;
    let _pool = pool.concurrency(CALLS).prefetch(CALLS as u16).start().await.unwrap();
    let options = ClientOptions::default().timeout(Duration::from_secs(30));
    let client = ProbeClient::from_client(Client::with_options(&stage.connect().await, options));
    let calls: Vec<_> = (0..CALLS).map(|n| tokio::spawn(client.ask(n.to_string()).into_future())).collect();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = within(Duration::from_secs(30), "the answer", call).await.unwrap();
        assert_eq!(answer.unwrap(), n.to_string());
    }
}

async fn answers_out_of_order_reach_their_callers(stage: &Stage) {
    probe!("concurrency-order");
    // The later a question, the sooner its answer.
    let answers = Answers::with(async |asked| {
        let n: u64 = asked.question.parse().unwrap();
        tokio::time::sleep(Duration::from_millis(200 - 4 * n)).await;
        asked.question
    });
    let _pool = stage.pool(ProbeServer::new(answers)).await.concurrency(50).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..50).map(|n| tokio::spawn(client.ask(n.to_string()).into_future())).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n.to_string());
    }
}

async fn many_clients_on_many_connections_get_their_own_answers(stage: &Stage) {
    probe!("concurrency-clients");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let mut callers = Vec::new();
    for client in 0..20 {
        let probe = ProbeClient::new(&stage.connect().await);
        callers.push(tokio::spawn(async move {
            for n in 0..25 {
                let question = format!("{client}/{n}");
                assert_eq!(probe.ask(question.clone()).await.unwrap(), question);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn many_clients_share_one_connection(stage: &Stage) {
    probe!("concurrency-shared");
    let connection = stage.connect().await;
    // The worker, too.
    stage.fresh("rpc.concurrency-shared").await;
    let pool = rpc_core::WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo()));
    let _pool = pool.start().await.unwrap();
    let mut callers = Vec::new();
    for client in 0..50 {
        let probe = ProbeClient::new(&connection);
        callers.push(tokio::spawn(async move {
            for n in 0..10 {
                let question = format!("{client}/{n}");
                assert_eq!(probe.ask(question.clone()).await.unwrap(), question);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

//! A broker that takes nothing more: requests wait in their callers, and connections are opened ever more slowly.

use std::time::Duration;

use rpc_core::{CallError, Connection, ConnectionOptions, TimeoutStage};
use rpc_tests::{eventually, framework_uri};
use tokio::time::sleep;

use super::{VictimClient, broker::Scripted, scenarios::Scenario};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_in_their_callers_when_the_broker_reads_nothing() {
    let broker = Scripted::start(&Scenario::new("frozen", "request", 1, &["freeze"])).await;
    // The least that there is.
    let options = ConnectionOptions::default().outbox_max_bytes(0);
    let connection = Connection::open_with(&framework_uri(broker.uri()), options).await.unwrap();
    let client = VictimClient::new(&connection);
    client.client().ready().await.unwrap();
    // Of those that share a channel, and of those that are confirmed because of their size.
    for question_bytes in [4_000, 8_000] {
        let question = "x".repeat(question_bytes);
        let is_blocked = async || {
            let calls: Vec<_> = (0..500)
                .map(|_| tokio::spawn(client.ask(question.clone()).timeout(Duration::from_millis(200)).into_future()))
                .collect();
            let mut blocked = 0;
            for call in calls {
                match call.await.unwrap() {
                    Err(error @ CallError::Timeout { stage: TimeoutStage::Blocked, .. }) => {
                        assert!(!error.maybe_executed(), "{error}");
                        blocked += 1;
                    }
                    Err(CallError::Timeout { .. }) => {}
                    outcome => panic!("{outcome:?}"),
                }
            }
            blocked > 0
        };
        eventually(Duration::from_secs(30), "a call ends that was not sent", is_blocked).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_opens_connections_and_no_channel_is_asked_ever_more_slowly() {
    let broker = Scripted::start(&Scenario::new("closed", "channel.open", 0, &["close"])).await;
    let options = ConnectionOptions::default()
        .reconnect_delay_initial(Duration::from_millis(10))
        .reconnect_delay_max(Duration::from_secs(30));
    let connection = Connection::open_with(&framework_uri(broker.uri()), options).await.unwrap();
    let client = VictimClient::new(&connection);
    let asking = tokio::spawn(client.ask_again(String::new()).timeout(Duration::from_secs(20)).into_future());
    // This is what is measured, by the clock of both transports.
    sleep(Duration::from_secs(3)).await;
    asking.abort();
    let connections = broker.connections();
    // Pauses of at most 10, 20, 40 ms and so on: ten take 5 s on average. Without growth there are some 200.
    assert!((3..40).contains(&connections), "{connections} connections in 3 s");
}

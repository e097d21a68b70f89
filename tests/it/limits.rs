//! Limits that hosted brokers set: connections and channels of a user, channels of a connection.
//!
//! The user `hosted` of `parity/definitions.json` may have two connections and four channels; RabbitMQ alone has limits of users.

use std::time::Duration;

use rpc_core::{CallError, Client, Connection, ConnectionState, Error, WorkerPool};
use rpc_tests::{Answers, Stage, on_both_brokers, probe, with_parameter, within};
use tokio::time::timeout;

on_both_brokers!(a_connection_of_few_channels_serves_and_says_when_there_are_no_more);

/// RabbitMQ alone has limits of users.
mod of_a_user {
    mod rabbitmq {
        #[test]
        fn limits_are_named_and_cause_no_storm() {
            rpc_tests::run(rpc_tests::Target::RabbitMq, super::super::limits_are_named_and_cause_no_storm);
        }
    }
}

async fn limits_are_named_and_cause_no_storm(stage: &Stage) {
    probe!("limits-user");
    let uri = stage.uri_as("hosted", "");
    let mut kept = Vec::new();
    let refused = loop {
        match Connection::open(&uri).await {
            Ok(connection) => kept.push(connection),
            Err(error) => break error,
        }
        // 4.3 counts a little late.
        assert!(kept.len() <= 50);
    };
    let Error::ConnectionLimit { reply_text } = &refused else { panic!("{refused:?}") };
    assert!(reply_text.contains("connection limit (2) is reached"), "{reply_text}");

    // The fifth channel ends the connection, again and again.
    let connection = kept.pop().unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let mut states = connection.states();
    let client = ProbeClient::new(&connection);
    let error = client.ask("x".to_owned()).timeout(Duration::from_secs(5)).await.unwrap_err();
    let CallError::Topology { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("the maximum allowed user limit of"), "{source}");
    let mut opened = 0;
    let count = async {
        while let Ok(state) = states.changed().await {
            opened += u32::from(matches!(state, ConnectionState::Connected));
        }
    };
    drop(timeout(Duration::from_secs(5), count).await);
    println!("opened {opened} times more");
    assert!(opened <= 15, "{opened} connections in 5 s");
    drop((pool, client));
    connection.close().await.unwrap();
}

/// Hosted brokers give eight.
async fn a_connection_of_few_channels_serves_and_says_when_there_are_no_more(stage: &Stage) {
    probe!("limits-few");
    let uri = with_parameter(stage.uri(), "channel_max=8");
    let _fresh = stage.pool(ProbeServer::new(Answers::echo())).await;
    let connection = Connection::open(&uri).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let other = Connection::open(&uri).await.unwrap();
    let mut clients = Vec::new();
    let error = loop {
        let client = ProbeClient::from_client(Client::new(&other));
        match client.ask("x".to_owned()).timeout(Duration::from_secs(5)).await {
            Ok(answer) => assert_eq!(answer, "x"),
            Err(error) => break error,
        }
        clients.push(client);
        assert!(clients.len() < 8, "each has a channel at least");
    };
    let CallError::Topology { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, Error::NoChannelLeft { channel_max: 8 }), "{source:?}");
    assert!(error.to_string().contains("cannot set up"), "{error}");
    // Those that have theirs go on.
    for client in &clients {
        assert_eq!(client.ask("again".to_owned()).await.unwrap(), "again");
    }
    within(Duration::from_secs(10), "the end", pool.shutdown(Duration::from_secs(5))).await.unwrap();
}

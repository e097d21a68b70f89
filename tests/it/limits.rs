//! Limits that hosted brokers set: connections and channels of a user, channels of a connection.
//!
//! The user `hosted` of `parity/definitions.json` may have two connections and four channels; RabbitMQ alone has limits of users.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Client, Connection, ConnectionState, Error, WorkerPool};
use rpc_tests::{Answers, Stage, eventually, on_both_brokers, probe, with_parameter, within};
use tokio::time::{sleep, timeout};

on_both_brokers!(
    a_connection_of_few_channels_serves_and_says_when_there_are_no_more,
    cancels_that_find_no_channel_are_sent_when_there_is_one,
);

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

async fn cancels_that_find_no_channel_are_sent_when_there_is_one(stage: &Stage) {
    probe!("limits-cancels");
    let begun = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&begun);
    let answers = Answers::with(move |asked| {
        let counted = Arc::clone(&counted);
        async move {
            if asked.question == "hang" {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            asked.question
        }
    });
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let few = Connection::open(&with_parameter(stage.uri(), "channel_max=16")).await.unwrap();
    let mut clients = Vec::new();
    while clients.len() < 16 {
        let client = ProbeClient::from_client(Client::new(&few));
        if client.ask("x".to_owned()).timeout(Duration::from_secs(5)).await.is_err() {
            break;
        }
        clients.push(client);
    }
    // Two channels are missing, where one may be left.
    let idle = clients.split_off(2);
    assert!(!idle.is_empty(), "their channels are needed");
    let calls: Vec<_> = clients
        .iter()
        .map(|client| tokio::spawn(client.ask("hang".to_owned()).without_timeout().into_future()))
        .collect();
    eventually(SOON, "both run", async || begun.load(Ordering::SeqCst) == 2).await;
    calls.iter().for_each(|call| call.abort());
    sleep(Duration::from_millis(300)).await;
    assert!(pool.stats().cancelled < 2, "both have found a channel");
    drop(idle);
    eventually(SOON, "both are cancelled", async || pool.stats().cancelled == 2).await;
    // And later ones as soon as they are noted.
    let call = tokio::spawn(clients[0].ask("hang".to_owned()).without_timeout().into_future());
    eventually(SOON, "it runs", async || begun.load(Ordering::SeqCst) == 3).await;
    call.abort();
    eventually(SOON, "it is cancelled", async || pool.stats().cancelled == 3).await;
}

const SOON: Duration = Duration::from_secs(10);

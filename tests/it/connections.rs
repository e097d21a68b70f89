//! Opening, watching and closing connections.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use rpc_core::{Client, Connection, ConnectionOptions, ConnectionState, Error, broker::Broker};
use rpc_tests::{Answers, Stage, address_of, eventually, framework_uri, on_both_brokers, probe, proxy::Proxy, within};
use tokio::time::sleep;

on_both_brokers!(
    a_refused_connection_says_so,
    a_wrong_password_says_so,
    an_empty_password_is_not_replaced_by_the_default_one,
    a_missing_vhost_says_so,
    an_invalid_uri_says_so,
    a_process_may_start_before_its_broker,
    a_wait_for_a_broker_ends_at_its_limit_and_over_a_refusal,
    a_peer_that_says_nothing_is_given_up,
    the_state_follows_the_connection,
    a_queue_with_other_arguments_is_reported_with_both_sides,
    a_closed_connection_ends_its_calls,
    a_connection_closes_while_channels_are_opened,
);

/// A port that was free a moment ago, and that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn open_error(uri: &str) -> Error {
    within(Duration::from_secs(20), "the attempt ends", Connection::open(uri)).await.unwrap_err()
}

/// The stage's URI with another user info or path.
fn changed(stage: &Stage, user_info: &str, path: &str) -> String {
    let address = address_of(stage.broker_uri());
    framework_uri(&format!("amqp://{user_info}@{address}{path}"))
}

async fn a_refused_connection_says_so(_: &Stage) {
    let port = free_port();
    let error = open_error(&framework_uri(&format!("amqp://127.0.0.1:{port}"))).await;
    assert!(
        matches!(&error, Error::Unreachable { address, .. } if *address == format!("127.0.0.1:{port}")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_connection_without_a_channel_left_says_how_many_it_has_over_either_transport() {
    // A client has one for replies, one for requests, and one for one-way requests.
    let broker = Broker::builder().channel_max(3).start().await.unwrap();
    for query in ["", "?transport=lapin"] {
        let connection = Connection::open(&format!("{}{query}", broker.uri())).await.unwrap();
        let client = Client::new(&connection);
        client.ready().await.unwrap();
        let error = Client::new(&connection).ready().await.unwrap_err();
        assert!(matches!(error, Error::NoChannelLeft { channel_max: 3 }), "{query}: {error:?}");
        connection.close().await.unwrap();
    }
}

/// A broker that closes what connects until it is up, as one that boots behind a balancer.
async fn a_process_may_start_before_its_broker(stage: &Stage) {
    let proxy = Proxy::start(stage.uri()).await;
    proxy.refuse();
    let options = ConnectionOptions::default().wait_for_broker(Duration::from_secs(30));
    let uri = proxy.uri().to_owned();
    let opening = tokio::spawn(async move { Connection::open_with(&uri, options).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    proxy.accept();
    let connection = within(Duration::from_secs(20), "it is opened", opening).await.unwrap().unwrap();
    Client::new(&connection).ready().await.unwrap();
}

#[tokio::test]
async fn a_process_may_start_before_anybody_listens() {
    for query in ["", "?transport=lapin"] {
        let port = free_port();
        let uri = format!("amqp://127.0.0.1:{port}{query}");
        let options = ConnectionOptions::default().wait_for_broker(Duration::from_secs(30));
        let opening = tokio::spawn(async move { Connection::open_with(&uri, options).await });
        sleep(Duration::from_millis(300)).await;
        assert!(!opening.is_finished());
        let _broker = Broker::builder().port(port).start().await.unwrap();
        within(Duration::from_secs(20), "it is opened", opening).await.unwrap().unwrap();
    }
}

async fn a_wait_for_a_broker_ends_at_its_limit_and_over_a_refusal(stage: &Stage) {
    let open = async |uri: &str, limit| {
        let options = ConnectionOptions::default().wait_for_broker(limit);
        within(Duration::from_secs(20), "the wait ends", Connection::open_with(uri, options)).await.unwrap_err()
    };
    let uri = framework_uri(&format!("amqp://127.0.0.1:{}", free_port()));
    let error = open(&uri, Duration::from_millis(500)).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let hour = Duration::from_secs(3_600);
    let error = open(&changed(stage, "guest:not-the-secret", ""), hour).await;
    assert!(matches!(error, Error::AuthenticationRefused { .. }), "{error:?}");
    let error = open(&changed(stage, "guest:guest", "/no-such-vhost"), hour).await;
    assert!(matches!(error, Error::VhostRefused { .. }), "{error:?}");
}

async fn a_wrong_password_says_so(stage: &Stage) {
    let error = open_error(&changed(stage, "guest:not-the-secret", "")).await;
    assert!(matches!(&error, Error::AuthenticationRefused { user, .. } if user == "guest"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("not-the-secret"), "no password in an error");
}

async fn an_empty_password_is_not_replaced_by_the_default_one(stage: &Stage) {
    let error = open_error(&changed(stage, "guest:", "")).await;
    assert!(matches!(&error, Error::AuthenticationRefused { user, .. } if user == "guest"), "{error:?}");
}

async fn a_missing_vhost_says_so(stage: &Stage) {
    let error = open_error(&changed(stage, "guest:guest", "/no-such-vhost")).await;
    assert!(matches!(&error, Error::VhostRefused { vhost, .. } if vhost == "no-such-vhost"), "{error:?}");
}

async fn an_invalid_uri_says_so(_: &Stage) {
    for uri in ["", "localhost", "http://localhost", "amqp://guest:secret@host:port/"] {
        let error = open_error(uri).await;
        assert!(matches!(error, Error::InvalidUri { .. }), "{uri}: {error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

async fn a_peer_that_says_nothing_is_given_up(_: &Stage) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ConnectionOptions::default().connect_timeout(Duration::from_millis(300));
    let begin = Instant::now();
    let error = Connection::open_with(&framework_uri(&format!("amqp://{}", silent.local_addr().unwrap())), options)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

async fn the_state_follows_the_connection(stage: &Stage) {
    let connection = stage.connect().await;
    assert_eq!(connection.state(), ConnectionState::Connected);
    let mut states = connection.states();
    connection.close().await.unwrap();
    let closed = states.wait_for(|state| matches!(state, ConnectionState::Closed { .. }));
    within(Duration::from_secs(5), "the closed state", closed).await.unwrap();
    connection.close().await.unwrap();
}

async fn a_queue_with_other_arguments_is_reported_with_both_sides(stage: &Stage) {
    probe!("connections-arguments");
    stage.fresh("rpc.connections-arguments").await;
    let raw = stage.raw().await;
    raw.limited_queue("rpc.connections-arguments").await;
    let connection = stage.connect().await;
    let pool = rpc_core::WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo()));
    match pool.start().await.unwrap_err() {
        Error::Refused { operation, reply_code, reply_text } => {
            assert_eq!(reply_code, 406);
            assert!(operation.contains("rpc.connections-arguments"), "{operation}");
            assert!(reply_text.contains("received none but current is the value '7000'"), "{reply_text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(raw.queue("rpc.connections-arguments").await.is_some(), "never repaired by deleting");
}

async fn a_closed_connection_ends_its_calls(stage: &Stage) {
    probe!("connections-closed");
    let answers = Answers::with(async |_| std::future::pending().await);
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let connection = stage.connect().await;
    let client = ProbeClient::new(&connection);
    let call = tokio::spawn(client.ask(String::new()).timeout(Duration::from_secs(30)).into_future());
    eventually(Duration::from_secs(5), "the call is at the worker", async || pool.stats().received == 1).await;
    connection.close().await.unwrap();
    let error = within(Duration::from_secs(5), "the call ends", call).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "disconnected", "{error}");
    let error = client.ask(String::new()).timeout(Duration::from_secs(2)).await.unwrap_err();
    assert!(!error.maybe_executed(), "{error}");
}

async fn a_connection_closes_while_channels_are_opened(stage: &Stage) {
    close_while_opening(stage.uri()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closed_while_channels_were_opened_is_gone() {
    let broker = Broker::start().await.unwrap();
    close_while_opening(&framework_uri(broker.uri())).await;
    let is_alone = async || broker.connections().is_empty();
    eventually(Duration::from_secs(10), "the broker has no connection left", is_alone).await;
}

async fn close_while_opening(uri: &str) {
    for round in 0..30 {
        let connection = Connection::open(uri).await.unwrap();
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let client = Client::new(&connection);
                // Half of them are given up.
                let limit = Duration::from_millis(if round % 2 == 0 { 5_000 } else { round / 4 });
                tokio::spawn(async move { tokio::time::timeout(limit, client.ready()).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(100 * (round % 10))).await;
        within(Duration::from_secs(10), "the connection closes", connection.close()).await.unwrap();
        for client in opening {
            drop(within(Duration::from_secs(10), "nobody waits for a channel", client).await.unwrap());
        }
    }
}

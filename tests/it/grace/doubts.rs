//! Looks that tell nothing end no call.

use super::*;

on_both_brokers!(
    answers_that_come_late_are_no_verdict,
    a_connection_that_is_away_or_blocked_is_no_verdict,
    a_user_who_may_only_call_has_it_too,
    a_user_who_may_not_look_waits_as_before,
);

async fn answers_that_come_late_are_no_verdict(stage: &Stage) {
    probe!("grace-late");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let proxy = Proxy::start(stage.uri()).await;
    let client = graceful(&Connection::open(proxy.uri()).await.unwrap());
    let probe = ProbeClient::from_client(client.clone());
    let call = tokio::spawn(probe.ask("x".to_owned()).into_future());
    held.begun().await;
    proxy.hold(Direction::ToBroker, Method::DeclareQueue);
    proxy.is_holding(Direction::ToBroker).await;
    process.end().await;
    has_no_consumer(&stage.raw().await, "rpc.grace-late").await;
    let looks = client.stats().looks;
    eventually(SOON, "looks have no answer", async || client.stats().looks > looks + 1).await;
    assert!(!call.is_finished());
    // A call that would be held is sent, for what is known.
    let other = tokio::spawn(probe.ask("x".to_owned()).into_future());
    eventually(SOON, "it is sent", async || client.in_flight() == 2).await;
    proxy.release();
    let error = end_of(call).await;
    assert!(is_unserved(&error, true), "{error:?}");
    let error = end_of(other).await;
    assert!(is_unserved(&error, true), "{error:?}");
}

async fn a_connection_that_is_away_or_blocked_is_no_verdict(stage: &Stage) {
    probe!("grace-away");
    let (answers, held) = Held::new();
    let process = start!(stage, ProbeServer::new(answers.clone()));
    let proxy = Proxy::start(stage.uri()).await;
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(100));
    let connection = Connection::open_with(proxy.uri(), options).await.unwrap();
    let client = graceful(&connection);
    let call = tokio::spawn(ProbeClient::from_client(client.clone()).ask_again("x".to_owned()).into_future());
    held.begun().await;
    proxy.refuse();
    proxy.cut();
    process.end().await;
    has_no_consumer(&stage.raw().await, "rpc.grace-away").await;
    sleep(A_WHILE).await;
    assert!(!call.is_finished(), "the connection is away");
    proxy.block();
    proxy.accept();
    proxy.has_passed(Direction::ToPeer, Method::Blocked, 1).await;
    sleep(A_WHILE).await;
    assert!(!call.is_finished(), "the connection is blocked");
    proxy.unblock();
    let error = end_of(call).await;
    assert!(is_unserved(&error, true), "{error:?}");
}

/// The beginning of a call of that user to a worker that ends then, and leaves the request in its queue.
macro_rules! of_user {
    ($stage:expr, $user:expr, $service:literal, $timeout:expr) => {{
        probe!($service);
        let (answers, held) = Held::new();
        let process = start!($stage, ProbeServer::new(answers.clone()));
        let connection = Connection::open(&$stage.uri_as($user, "")).await.unwrap();
        let client = Client::with_options(&connection, ClientOptions::default().timeout($timeout).grace(GRACE));
        let call = tokio::spawn(ProbeClient::from_client(client.clone()).ask("x".to_owned()).into_future());
        held.begun().await;
        process.end().await;
        (client, call)
    }};
}

async fn a_user_who_may_only_call_has_it_too(stage: &Stage) {
    // With the recipe of a caller, which on RabbitMQ 4.3 has a right on the queues.
    let (client, call) = of_user!(stage, "caller", "roles-grace", DEADLINE);
    let error = end_of(call).await;
    assert!(is_unserved(&error, true), "{error:?}");
    assert_eq!(client.stats().unserved, 1);
}

async fn a_user_who_may_not_look_waits_as_before(stage: &Stage) {
    // It may publish to `rpc` alone: not ask whether a pool drains, and on RabbitMQ 4.3 not look.
    let timeout = Duration::from_secs(5);
    let (client, call) = of_user!(stage, "plain", "grace-plain", timeout);
    let error = end_of(call).await;
    if stage.expects().looks_need_a_right {
        assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Unknown, .. }), "{error:?}");
        assert_eq!(client.stats().unserved, 0);
        let looks = client.stats().looks;
        assert!((1..5).contains(&looks), "{looks}: it does not go on asking");
    } else {
        assert!(is_unserved(&error, true), "{error:?}");
    }
}

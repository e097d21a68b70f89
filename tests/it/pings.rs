//! Pings: whether somebody serves a service now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::BasicProperties;
use rpc_core::{Client, ClientOptions, Connection, Error, WorkerPool};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
};
use tokio::sync::Semaphore;

on_both_brokers!(
    a_ping_is_answered_while_a_pool_serves,
    a_pool_that_drains_is_silent,
    a_pool_is_asked_again_after_the_loss_of_its_connection,
    a_pool_answers_the_users_that_it_serves,
    a_program_of_another_kind_asks_in_its_own_way,
    a_hostile_ping_hurts_nobody,
    a_worker_that_may_not_be_asked_serves_all_the_same,
    a_user_who_may_not_ask_is_told_so,
    a_name_that_no_service_has_is_refused,
);

/// For what the broker does at once.
const SOON: Duration = Duration::from_secs(10);
/// For an answer that does not come.
const SHORT: Duration = Duration::from_millis(300);

fn impatient(connection: &Connection) -> Client {
    Client::with_options(connection, ClientOptions::default().timeout(SHORT))
}

fn is_timeout(outcome: &Result<Option<rpc_core::Pong>, Error>) -> bool {
    matches!(outcome, Err(Error::TimedOut { .. }))
}

/// Handlers that have begun, and permits for their answers.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) release: Arc<Semaphore>,
}

impl Held {
    pub(crate) fn new() -> (Answers, Self) {
        let held = Self { begun: Arc::default(), release: Arc::new(Semaphore::new(0)) };
        let of_handlers = held.clone();
        let answers = Answers::with(move |asked| {
            let held = of_handlers.clone();
            async move {
                held.begun.fetch_add(1, Ordering::SeqCst);
                held.release.acquire().await.unwrap().forget();
                asked.question
            }
        });
        (answers, held)
    }

    pub(crate) async fn begun(&self) {
        eventually(SOON, "a handler begins", async || self.begun.load(Ordering::SeqCst) == 1).await;
    }
}

async fn a_ping_is_answered_while_a_pool_serves(stage: &Stage) {
    probe!("pings-serving");
    stage.fresh("rpc.pings-serving").await;
    let client = Client::new(&stage.connect().await);
    assert_eq!(client.ping("pings-serving").await.unwrap(), None);
    let start = async || {
        let pool = WorkerPool::new(&stage.connect().await).serve(ProbeServer::new(Answers::echo()));
        pool.start().await.unwrap()
    };
    let (first, second) = (start().await, start().await);
    let pong = client.ping("pings-serving").await.unwrap().unwrap();
    assert_eq!((pong.version, pong.pool.len()), (1, 36));
    assert_eq!(client.ping("pings").await.unwrap(), None, "another service");
    first.shutdown(SOON).await.unwrap();
    // The queue of a pool that has ended is gone a moment later.
    let of_second = async || client.ping("pings-serving").await.unwrap().unwrap().pool;
    let remaining = of_second().await;
    assert_eq!(of_second().await, remaining);
    second.shutdown(SOON).await.unwrap();
    // A ping that reaches the queue of a pool that is ending has no answer.
    let client = impatient(&stage.connect().await);
    let is_none = async || client.ping("pings-serving").await.is_ok_and(|pong| pong.is_none());
    eventually(SOON, "nobody is there", is_none).await;
}

async fn a_pool_that_drains_is_silent(stage: &Stage) {
    probe!("pings-drain");
    stage.fresh("rpc.pings-drain").await;
    let (answers, held) = Held::new();
    let connection = stage.connect().await;
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(answers)).start().await.unwrap();
    let client = impatient(&connection);
    let call = tokio::spawn(ProbeClient::new(&connection).ask("x".to_owned()).into_future());
    held.begun().await;
    assert!(client.ping("pings-drain").await.unwrap().is_some());
    let ending = tokio::spawn(pool.shutdown(SOON));
    eventually(SOON, "it is silent", async || is_timeout(&client.ping("pings-drain").await)).await;
    assert!(!ending.is_finished());
    held.release.add_permits(1);
    call.await.unwrap().unwrap();
    ending.await.unwrap().unwrap();
}

async fn a_pool_is_asked_again_after_the_loss_of_its_connection(stage: &Stage) {
    probe!("pings-lost");
    stage.fresh("rpc.pings-lost").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let client = impatient(&stage.connect().await);
    let first = client.ping("pings-lost").await.unwrap().unwrap();
    proxy.cut();
    let answer =
        async || client.ping("pings-lost").await.is_ok_and(|pong| pong.is_some_and(|pong| pong.pool == first.pool));
    eventually(SOON, "it answers again", answer).await;
    pool.shutdown(SOON).await.unwrap();
}

async fn a_pool_answers_the_users_that_it_serves(stage: &Stage) {
    probe!("pings-users");
    stage.fresh("rpc.pings-users").await;
    let connection = stage.connect().await;
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).users(["shop"]).send_user_id(true);
    let pool = pool.start().await.unwrap();
    assert!(is_timeout(&impatient(&connection).ping("pings-users").await), "it does not serve this one");
    let shop = Connection::open(&stage.uri_as("shop", "")).await.unwrap();
    let named = Client::with_options(&shop, ClientOptions::default().send_user_id(true).reply_users(["guest"]));
    assert!(named.ping("pings-users").await.unwrap().is_some());
    let options = ClientOptions::default().send_user_id(true).reply_users(["mallory"]).timeout(SHORT);
    assert!(is_timeout(&Client::with_options(&shop, options).ping("pings-users").await), "it takes others' answers");
    pool.shutdown(SOON).await.unwrap();
}

async fn a_program_of_another_kind_asks_in_its_own_way(stage: &Stage) {
    probe!("pings-foreign");
    stage.fresh("rpc.pings-foreign").await;
    let pool = WorkerPool::new(&stage.connect().await).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let answer = stage.raw().await.call("rpc.srv", "ping.pings-foreign", BasicProperties::default(), b"").await;
    let body: serde_json::Value = serde_json::from_slice(&answer.data).unwrap();
    assert_eq!(body["type"], "rpc.srv.v1.ping_response");
    assert_eq!((&body["name"], &body["version"]), (&"pings-foreign".into(), &"1.0.0".into()));
    assert_eq!(body["id"].as_str().unwrap().len(), 36);
    pool.shutdown(SOON).await.unwrap();
}

async fn a_hostile_ping_hurts_nobody(stage: &Stage) {
    probe!("pings-hostile");
    stage.fresh("rpc.pings-hostile").await;
    let proxy = Proxy::start(stage.uri()).await;
    let connection = Connection::open(proxy.uri()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    client.ask("x".to_owned()).await.unwrap();
    let consumers = proxy.passed(Direction::ToBroker, Method::Consume);
    for reply_to in ["amq.rabbitmq.reply-to.forged", "amq.rabbitmq.reply-to", "", "no.such.queue"] {
        let properties = BasicProperties::default().with_reply_to(reply_to.into());
        for key in ["ping.pings-hostile", "ping.", "ping.other"] {
            // The broker refuses some of them itself, and closes the channel.
            stage.raw().await.try_publish("rpc.srv", key, properties.clone(), &[0; 100_000]).await;
        }
    }
    for _ in 0..3 {
        assert!(client.client().ping("pings-hostile").await.unwrap().is_some());
        client.ask("x".to_owned()).await.unwrap();
    }
    assert_eq!(proxy.passed(Direction::ToBroker, Method::Consume), consumers, "the pool has kept all its channels");
    pool.shutdown(SOON).await.unwrap();
}

async fn a_worker_that_may_not_be_asked_serves_all_the_same(stage: &Stage) {
    probe!("pings-unasked");
    stage.fresh("rpc.pings-unasked").await;
    // Another pool declares the exchange.
    let other = WorkerPool::new(&stage.connect().await).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    other.shutdown(SOON).await.unwrap();
    let worker = Connection::open(&stage.uri_as("unasked", "")).await.unwrap();
    let (answers, held) = Held::new();
    let pool = WorkerPool::new(&worker).serve(ProbeServer::new(answers)).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("x".to_owned()).into_future());
    held.begun().await;
    assert_eq!(client.client().ping("pings-unasked").await.unwrap(), None);
    call.abort();
    eventually(SOON, "its cancels arrive", async || pool.stats().cancelled == 1).await;
    pool.shutdown(SOON).await.unwrap();
}

async fn a_user_who_may_not_ask_is_told_so(stage: &Stage) {
    probe!("pings-plain");
    stage.fresh("rpc.pings-plain").await;
    let pool = WorkerPool::new(&stage.connect().await).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    // It may publish to `rpc` alone.
    let plain = Connection::open(&stage.uri_as("plain", "")).await.unwrap();
    let client = ProbeClient::new(&plain);
    let refused = client.client().ping("pings-plain").await.unwrap_err();
    assert!(matches!(refused, Error::Refused { reply_code: 403, .. }), "{refused:?}");
    assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
    pool.shutdown(SOON).await.unwrap();
}

async fn a_name_that_no_service_has_is_refused(stage: &Stage) {
    let client = Client::new(&stage.connect().await);
    for name in ["", "*", "a.b", "UPPER", &"x".repeat(101)] {
        let refused = client.ping(name).await.unwrap_err();
        assert!(matches!(refused, Error::Configuration(_)), "{name:?}: {refused:?}");
    }
    client.shutdown();
    assert!(matches!(client.ping("pings").await, Err(Error::Closed { .. })));
}

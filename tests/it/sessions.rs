//! A client's session is opened by a task of its own: impatient callers, a broker that is far away, and clients that are dropped at
//! any moment.

use std::{future::IntoFuture, time::Duration};

use rpc_core::{CallError, Client, Connection, ConnectionState, Error, broker::Broker, service};
use rpc_tests::{SlowLink, Stage, eventually, framework_uri, on_both_brokers, within};
use tokio::{runtime::Builder, time::timeout};

on_both_brokers!(
    a_session_opens_over_a_slow_link_although_its_callers_give_up,
    a_call_is_answered_after_the_runtime_that_opened_its_session_has_ended,
    a_call_ends_on_time_although_the_runtime_of_its_session_stands_still,
    a_call_outside_a_runtime_is_an_error,
);

macro_rules! echo {
    ($name:literal) => {
        #[service(name = $name)]
        trait Echo {
            async fn ask(&self, question: String) -> String;
            #[rpc(oneway)]
            async fn tell(&self, question: String);
        }
        struct Echoing;
        impl Echo for Echoing {
            async fn ask(&self, question: String) -> String {
                question
            }
            async fn tell(&self, _question: String) {}
        }
    };
}

async fn a_session_opens_over_a_slow_link_although_its_callers_give_up(stage: &Stage) {
    echo!("sessions-slow");
    let _pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let link = SlowLink::start(stage.uri(), Duration::from_millis(40)).await;
    let client = EchoClient::new(&Connection::open(link.uri()).await.unwrap());
    // Less than the round trips that a session takes, one after another.
    let limit = Duration::from_millis(400);
    // A session takes two round trips of 80 ms (a channel; then the queue and its consumer in one flight, while the channel for
    // requests is opened), a call one more: on an idle machine the first call is answered. Each later one finds more done.
    let mut calls = 1;
    while client.ask("x".to_owned()).timeout(limit).await.is_err() {
        calls += 1;
    }
    assert!(calls <= 5, "answered at the {calls}th call");
    // One-way requests have a channel of their own, two round trips again.
    within(Duration::from_secs(2), "it is ready", client.client().ready()).await.unwrap();
    for _ in 0..5 {
        client.ask("x".to_owned()).timeout(limit).await.unwrap();
        client.tell("x".to_owned()).timeout(limit).await.unwrap();
    }
}

async fn a_call_is_answered_after_the_runtime_that_opened_its_session_has_ended(stage: &Stage) {
    echo!("sessions-ended");
    let _pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let client = EchoClient::new(&stage.connect().await);
    let first = client.clone();
    let other = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(first.ask("first".to_owned()).into_future()).unwrap()
    });
    assert_eq!(tokio::task::spawn_blocking(|| other.join().unwrap()).await.unwrap(), "first");
    assert_eq!(client.ask("second".to_owned()).await.unwrap(), "second");
    client.tell("third".to_owned()).await.unwrap();
}

async fn a_call_ends_on_time_although_the_runtime_of_its_session_stands_still(stage: &Stage) {
    echo!("sessions-still");
    let pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let uri = stage.uri().to_owned();
    // It is not polled any more, and not dropped either.
    let (still, connection, client) = tokio::task::spawn_blocking(move || {
        let still = Builder::new_current_thread().enable_all().build().unwrap();
        let (connection, client) = still.block_on(async {
            let connection = Connection::open(&uri).await.unwrap();
            let client = EchoClient::new(&connection);
            client.client().ready().await.unwrap();
            (connection, client)
        });
        (still, connection, client)
    })
    .await
    .unwrap();
    drop(pool);
    let call = client.ask("x".to_owned()).timeout(Duration::from_millis(200)).into_future();
    let error = within(Duration::from_secs(5), "the call ends", call).await.unwrap_err();
    assert_eq!(error.code(), "timeout", "{error}");
    assert_eq!(connection.state(), ConnectionState::Connected);
    tokio::task::spawn_blocking(move || drop(still)).await.unwrap();
    let is_told = async || matches!(connection.state(), ConnectionState::Closed { .. });
    eventually(Duration::from_secs(5), "the state tells that the runtime has gone", is_told).await;
    let late = client.ask("x".to_owned()).timeout(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(late, CallError::Disconnected { maybe_executed: false, .. }), "{late:?}");
}

async fn a_call_outside_a_runtime_is_an_error(stage: &Stage) {
    echo!("sessions-outside");
    let _pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let connection = stage.connect().await;
    let (new, ready) = (EchoClient::new(&connection), EchoClient::new(&connection));
    ready.client().ready().await.unwrap();
    for client in [new, ready] {
        let (call, oneway) = (client.ask("x".to_owned()).into_future(), client.tell("x".to_owned()).into_future());
        let begun = client.ask("begun".to_owned()).timeout(Duration::from_secs(1)).into_future();
        let mut begun = Box::pin(begun);
        // Its first poll is one inside.
        drop(timeout(Duration::ZERO, &mut begun).await);
        let errors = std::thread::spawn(move || {
            let waker = std::task::Waker::noop();
            let mut cx = std::task::Context::from_waker(waker);
            let is_topology = |error: &CallError| matches!(error, CallError::Topology { source, .. } if matches!(**source, Error::Configuration(_)));
            let call = std::pin::pin!(call).poll(&mut cx);
            let oneway = std::pin::pin!(oneway).poll(&mut cx);
            let _ = begun.as_mut().poll(&mut cx);
            (
                matches!(call, std::task::Poll::Ready(Err(error)) if is_topology(&error)),
                matches!(oneway, std::task::Poll::Ready(Err(error)) if is_topology(&error)),
            )
        });
        let errors = tokio::task::spawn_blocking(|| errors.join().expect("it does not panic")).await.unwrap();
        assert_eq!(errors, (true, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_dropped_at_any_moment_leave_no_reply_queue_behind() {
    echo!("sessions-dropped");
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(&framework_uri(broker.uri())).await.unwrap();
    let _pool = rpc_core::WorkerPool::new(&connection).serve(EchoServer::new(Echoing)).start().await.unwrap();
    let mut answered = 0;
    for round in 0..300_u64 {
        let client = EchoClient::new(&connection);
        let call = timeout(Duration::from_micros(round * 37 % 4_000), client.ask("x".to_owned()).into_future());
        answered += u32::from(matches!(call.await, Ok(Ok(_))));
    }
    let left = || broker.queues().iter().filter(|queue| queue.name.starts_with("rpc.reply.")).count();
    eventually(Duration::from_secs(20), "their reply queues are gone", async || left() == 0).await;
    println!("{answered} answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_opened_again_before_the_next_call() {
    let broker = Broker::start().await.unwrap();
    let options = rpc_core::ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(50));
    let connection = Connection::open_with(&framework_uri(broker.uri()), options).await.unwrap();
    let client = Client::new(&connection);
    client.ready().await.unwrap();
    let names = || -> Vec<_> {
        let queues = broker.queues();
        queues.into_iter().map(|queue| queue.name).filter(|name| name.starts_with("rpc.reply.")).collect()
    };
    let first = names();
    assert_eq!(first.len(), 1);
    broker.faults().drop_connections();
    let is_open = async || names().len() == 1 && names() != first;
    eventually(Duration::from_secs(20), "the session is open again, without a call", is_open).await;
}

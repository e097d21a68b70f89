//! Replies that the broker refuses: each hurts its own call alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::BasicProperties;
use rpc_core::{AckPolicy, CallError, CallFuture, Connection, WorkerPool, service};
use rpc_tests::{Stage, eventually, on_both_brokers, raw::header, within};
use tokio::sync::Semaphore;

on_both_brokers!(
    a_result_above_the_brokers_limit_ends_its_own_call_alone,
    a_malformed_direct_reply_to_is_never_published,
    a_refused_reply_does_not_make_its_handler_run_again,
    a_worker_that_may_not_reply_executes_each_request_twice_at_most,
    a_oneway_request_that_fails_is_counted_and_dead_lettered,
    a_handler_that_panics_while_it_is_dropped_gives_its_place_back,
);

/// Counts what it begins; `pay` waits until it is released.
#[derive(Clone)]
struct Counting {
    begun: Arc<AtomicUsize>,
    paid: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

impl Counting {
    fn new() -> Self {
        Self { begun: Arc::default(), paid: Arc::default(), release: Arc::new(Semaphore::new(0)) }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn paid(&self) -> usize {
        self.paid.load(Ordering::SeqCst)
    }
}

/// Panics when it is dropped before it is disarmed.
struct Armed(bool);

impl Drop for Armed {
    fn drop(&mut self) {
        assert!(!self.0, "dropped while it was armed");
    }
}

macro_rules! work {
    ($name:literal) => {
        #[service(name = $name)]
        trait Work {
            async fn text(&self, bytes: usize) -> String;
            async fn pay(&self) -> u32;
            async fn trap(&self) -> u32;
            #[rpc(oneway)]
            async fn note(&self, n: u32);
        }

        impl Work for Counting {
            async fn text(&self, bytes: usize) -> String {
                self.begun.fetch_add(1, Ordering::SeqCst);
                "x".repeat(bytes)
            }
            async fn pay(&self) -> u32 {
                self.paid.fetch_add(1, Ordering::SeqCst);
                self.release.acquire().await.unwrap().forget();
                7
            }
            async fn trap(&self) -> u32 {
                self.begun.fetch_add(1, Ordering::SeqCst);
                let mut armed = Armed(true);
                std::future::pending::<()>().await;
                armed.0 = false;
                0
            }
            async fn note(&self, n: u32) {
                assert!(n != 13, "an unlucky number\n");
            }
        }
    };
}

async fn a_result_above_the_brokers_limit_ends_its_own_call_alone(stage: &Stage) {
    work!("refusals-large");
    let max_bytes = stage.expects().message_max_bytes;
    for ack_policy in [AckPolicy::AfterReply, AckPolicy::AfterConfirmedReply] {
        let service = Counting::new();
        let pool = stage.pool(WorkServer::new(service.clone())).await.ack_policy(ack_policy).start().await.unwrap();
        let client = WorkClient::new(&stage.connect().await);
        let pay = tokio::spawn(client.pay().timeout(LONG).into_future());
        eventually(SOON, "a payment is under way", async || service.paid() == 1).await;
        let error = client.text(max_bytes + 1_000).timeout(LONG).await.unwrap_err();
        let CallError::PayloadTooLarge { body_bytes, limit_bytes, maybe_executed, .. } = error else {
            panic!("{error:?}")
        };
        assert!(body_bytes > max_bytes && limit_bytes == max_bytes && maybe_executed);
        // A large one that fits takes the same way.
        assert_eq!(client.text(1 << 20).timeout(LONG).await.unwrap().len(), 1 << 20);
        service.release.add_permits(1);
        assert_eq!(within(SOON, "the payment", pay).await.unwrap().unwrap(), 7);
        assert_eq!((service.begun(), service.paid()), (2, 1), "each ran once");
        let stats = pool.shutdown(SOON).await.unwrap().stats;
        assert_eq!((stats.received, stats.answered, stats.replies_refused), (3, 3, 0));
    }
}

async fn a_malformed_direct_reply_to_is_never_published(stage: &Stage) {
    work!("refusals-direct");
    for ack_policy in [AckPolicy::AfterReply, AckPolicy::AfterConfirmedReply] {
        let service = Counting::new();
        let pool = stage.pool(WorkServer::new(service.clone())).await.ack_policy(ack_policy).start().await.unwrap();
        let client = WorkClient::new(&stage.connect().await);
        let pay = tokio::spawn(client.pay().timeout(LONG).into_future());
        eventually(SOON, "a payment is under way", async || service.paid() == 1).await;
        let raw = stage.raw().await;
        let tokens = ["garbage", "AAAA.BBBB", "", ".", "g2dk.AAAA"];
        for token in tokens {
            let reply_to = format!("amq.rabbitmq.reply-to.{token}");
            let properties = BasicProperties::default().with_reply_to(reply_to.into()).with_correlation_id("1".into());
            // An array of the one argument.
            raw.publish("rpc", "refusals-direct.text", properties, &[0x91, 3]).await;
        }
        eventually(SOON, "all are executed", async || pool.stats().replies_refused == tokens.len() as u64).await;
        service.release.add_permits(1);
        assert_eq!(within(SOON, "the payment", pay).await.unwrap().unwrap(), 7);
        assert_eq!((service.begun(), service.paid()), (tokens.len(), 1), "each ran once");
        pool.shutdown(SOON).await.unwrap();
    }
}

async fn a_refused_reply_does_not_make_its_handler_run_again(stage: &Stage) {
    work!("refusals-full");
    let service = Counting::new();
    let pool = stage.pool(WorkServer::new(service.clone())).await.ack_policy(AckPolicy::AfterConfirmedReply);
    let pool = pool.start().await.unwrap();
    let raw = stage.raw().await;
    let full = raw.full_queue().await;
    let properties = BasicProperties::default().with_reply_to(full.into()).with_correlation_id("1".into());
    raw.publish("rpc", "refusals-full.text", properties, &[0x91, 3]).await;
    eventually(SOON, "the reply is given up", async || pool.stats().replies_refused == 1).await;
    let client = WorkClient::new(&stage.connect().await);
    assert_eq!(client.text(1).await.unwrap(), "x");
    assert_eq!(service.begun(), 2, "each ran once");
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!((stats.received, stats.requeued), (2, 0));
}

async fn a_worker_that_may_not_reply_executes_each_request_twice_at_most(stage: &Stage) {
    work!("refusals-silent");
    stage.fresh("rpc.refusals-silent").await;
    let service = Counting::new();
    // It may write to every exchange of the framework, and not to the default exchange, which leads to reply queues.
    let connection = Connection::open(&stage.uri_as("silent", "")).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(WorkServer::new(service.clone())).start().await.unwrap();
    let client = WorkClient::new(&stage.connect().await);
    let call = |budget_s| -> CallFuture<String> { client.text(1).timeout(Duration::from_secs(budget_s)).into_future() };
    let first = tokio::spawn(call(20));
    eventually(SOON, "its reply is given up", async || pool.stats().replies_refused == 1).await;
    assert_eq!(service.begun(), 2, "the second reply travelled apart");
    // From now on no reply shares the channel of the others.
    let second = tokio::spawn(call(20));
    eventually(SOON, "its reply is given up, too", async || pool.stats().replies_refused == 2).await;
    assert_eq!((service.begun(), pool.stats().received), (3, 3));
    first.abort();
    second.abort();
}

async fn a_oneway_request_that_fails_is_counted_and_dead_lettered(stage: &Stage) {
    work!("refusals-oneway");
    stage.fresh("rpc.refusals-oneway.dead").await;
    let pool = stage.pool(WorkServer::new(Counting::new())).await.concurrency(1).start().await.unwrap();
    let raw = stage.raw().await;
    let oneway = |id: &str| BasicProperties::default().with_message_id(id.into());
    let cases: [(&str, &str, &[u8]); 4] = [
        ("refusals-oneway.note", "bad_request", b"\xC1"),
        ("refusals-oneway.unheard\n-of", "no_such_method", &[0x91, 3]),
        ("refusals-oneway.note", "internal", &[0x91, 13]),
        ("refusals-oneway.text", "bad_request", b""),
    ];
    for (at, (routing_key, _, body)) in cases.iter().enumerate() {
        raw.publish("rpc", routing_key, oneway(&format!("m{at}")), body).await;
    }
    let mut letters = Vec::new();
    eventually(SOON, "all are dead-lettered", async || pool.stats().dead_lettered == 4).await;
    let mut dead = raw.consume("rpc.refusals-oneway.dead", 8).await;
    for _ in cases {
        let letter = dead.next().await;
        let id = letter.properties.message_id().as_ref().unwrap().to_string();
        letters.push((id, header(&letter, "rpc-dead-reason").unwrap().to_owned(), letter.data.clone()));
    }
    letters.sort();
    for (at, (letter, (_, reason, body))) in letters.iter().zip(&cases).enumerate() {
        assert_eq!((&*letter.0, &*letter.1, &*letter.2), (&*format!("m{at}"), *reason, *body));
    }
    let client = WorkClient::new(&stage.connect().await);
    assert_eq!(client.text(1).await.unwrap(), "x");
    assert_eq!((pool.stats().oneway_failed, pool.stats().received), (4, 5));
}

async fn a_handler_that_panics_while_it_is_dropped_gives_its_place_back(stage: &Stage) {
    work!("refusals-trap");
    for is_inline in [true, false] {
        let service = Counting::new();
        let pool = stage.pool(WorkServer::new(service.clone())).await.concurrency(1).inline(is_inline);
        let pool = pool.start().await.unwrap();
        let client = WorkClient::new(&stage.connect().await);
        // At its deadline, and when it is cancelled.
        let error = client.trap().timeout(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!((error.code(), service.begun()), ("timeout", 1));
        let dropped = tokio::spawn(client.trap().timeout(LONG).into_future());
        eventually(SOON, "the handler runs", async || service.begun() == 2).await;
        dropped.abort();
        for _ in 0..3 {
            assert_eq!(client.text(1).timeout(SOON).await.unwrap(), "x");
        }
        let stats = pool.shutdown(SOON).await.unwrap().stats;
        assert_eq!((stats.received, stats.requeued), (5, 0));
    }
}

const SOON: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(40);

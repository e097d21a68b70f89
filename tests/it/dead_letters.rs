//! Dead letters that workers store: the bounds of their queue, and letters that cannot be stored.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    BasicProperties,
    options::BasicAckOptions,
    types::{AMQPValue, FieldTable},
};
use rpc_core::{Connection, DeadLetterOptions, RedeliveryPolicy, WorkerPool, service};
use rpc_tests::{Stage, eventually, on_both_brokers, within};

on_both_brokers!(
    the_queue_of_dead_letters_has_the_bounds_of_its_options,
    a_dead_letter_goes_to_no_queue_that_its_sender_named,
    requests_whose_dead_letters_are_refused_are_counted_and_settled,
    a_worker_that_may_declare_nothing_stores_dead_letters,
);

macro_rules! notes {
    ($name:literal) => {
        #[service(name = $name)]
        trait Notes {
            #[rpc(oneway)]
            async fn note(&self, n: u32);
            #[rpc(timeout = "30s")]
            async fn once(&self) -> u32;
        }
        #[derive(Clone)]
        struct Desk;
        impl Notes for Desk {
            async fn note(&self, n: u32) {
                assert!(n < 100, "too large");
            }
            async fn once(&self) -> u32 {
                1
            }
        }
    };
}

async fn the_queue_of_dead_letters_has_the_bounds_of_its_options(stage: &Stage) {
    notes!("dead-bounds");
    const DEAD: &str = "rpc.dead-bounds.dead";
    stage.fresh(DEAD).await;
    let raw = stage.raw().await;
    let client = NotesClient::new(&stage.connect().await);
    let by_age = DeadLetterOptions::default().age(Duration::from_millis(700));
    for (what, options, left) in [
        ("length", DeadLetterOptions::default().length(3), 3),
        // The body of each has four bytes.
        ("bytes", DeadLetterOptions::default().bytes(8), 2),
        ("age", by_age, 0),
    ] {
        let pool = stage.pool(NotesServer::new(Desk)).await.dead_letters(options).start().await.unwrap();
        for n in 100..110 {
            client.note(n).await.unwrap();
        }
        eventually(SOON, "all are dead-lettered", async || pool.stats().dead_lettered == 10).await;
        let ready = async || raw.queue(DEAD).await.unwrap().ready;
        eventually(SOON, what, async || ready().await == left).await;
        pool.shutdown(SOON).await.unwrap();
        raw.delete_queue(DEAD).await;
    }
}

/// RabbitMQ takes the headers CC and BCC for routing keys: of the letter, with the rights of the worker.
async fn a_dead_letter_goes_to_no_queue_that_its_sender_named(stage: &Stage) {
    notes!("dead-copies");
    const DEAD: &str = "rpc.dead-copies.dead";
    for transport in ["native", "lapin"] {
        stage.fresh(DEAD).await;
        drop(stage.pool(NotesServer::new(Desk)).await);
        let connection = Connection::open(&format!("{}?transport={transport}", stage.broker_uri())).await.unwrap();
        let pool = WorkerPool::new(&connection).serve(NotesServer::new(Desk)).start().await.unwrap();
        let raw = stage.raw().await;
        let victim = raw.exclusive_queue().await;
        let named = AMQPValue::FieldArray(vec![AMQPValue::LongString(victim.as_str().into())].into());
        let headers = BTreeMap::from([("CC".into(), named.clone()), ("BCC".into(), named)]);
        let properties = BasicProperties::default().with_headers(FieldTable::from(headers));
        raw.publish("rpc", "dead-copies.note", properties.with_message_id(transport.into()), b"\xC1").await;
        eventually(SOON, "it is dead-lettered", async || pool.stats().dead_lettered == 1).await;
        let letter = raw.consume(DEAD, 1).await.next().await;
        assert_eq!(letter.properties.message_id().as_ref().map(|id| id.as_str()), Some(transport));
        letter.ack(BasicAckOptions::default()).await.unwrap();
        // The broker had confirmed the letter, so a copy of it would be before this one.
        raw.publish("", &victim, BasicProperties::default(), b"the first").await;
        assert_eq!(raw.consume(&victim, 1).await.next().await.data, b"the first", "{transport}");
        pool.shutdown(SOON).await.unwrap();
    }
}

async fn requests_whose_dead_letters_are_refused_are_counted_and_settled(stage: &Stage) {
    notes!("dead-refused");
    const DEAD: &str = "rpc.dead-refused.dead";
    stage.fresh(DEAD).await;
    let server = || NotesServer::new(Desk);
    let pool = async || stage.pool(server()).await.redelivery_policy(RedeliveryPolicy::DeadLetter).concurrency(1);
    pool().await.start().await.unwrap().shutdown(SOON).await.unwrap();
    // A rival holds a request, while a worker starts and the queue for dead letters is replaced by one that takes none.
    let client = NotesClient::new(&stage.connect().await);
    let rival = stage.raw().await;
    let mut requests = rival.consume("rpc.dead-refused", 1).await;
    let abandoned = tokio::spawn(client.once().into_future());
    requests.next().await;
    let pool = pool().await.start().await.unwrap();
    let raw = stage.raw().await;
    raw.delete_queue(DEAD).await;
    raw.declare_full_queue(DEAD).await;
    rival.close().await;
    let error = within(LONG, "the caller is told", abandoned).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "abandoned", "{error}");
    client.note(100).await.unwrap();
    eventually(LONG, "both are counted", async || pool.stats().dead_letters_lost == 2).await;
    assert_eq!(client.once().await.unwrap(), 1, "no place is lost");
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!((stats.dead_lettered, stats.oneway_failed, stats.received), (0, 1, 3));
    assert_eq!(raw.queue("rpc.dead-refused").await.unwrap().ready, 0, "they are settled");
}

/// With the rights that the guide gives a worker; the operator has declared the queue.
async fn a_worker_that_may_declare_nothing_stores_dead_letters(stage: &Stage) {
    notes!("roles-letters");
    const DEAD: &str = "rpc.roles-letters.dead";
    stage.fresh(DEAD).await;
    drop(stage.pool(NotesServer::new(Desk)).await);
    let operator = Connection::open(&stage.uri_as("operator", "")).await.unwrap();
    WorkerPool::new(&operator).serve(NotesServer::new(Desk)).declare().await.unwrap();
    let worker = Connection::open(&stage.uri_as("worker", "")).await.unwrap();
    let pool = WorkerPool::new(&worker).serve(NotesServer::new(Desk)).start().await.unwrap();
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    NotesClient::new(&caller).note(100).await.unwrap();
    eventually(LONG, "it is dead-lettered", async || pool.stats().dead_lettered == 1).await;
    assert_eq!(stage.raw().await.queue(DEAD).await.unwrap().ready, 1);
    pool.shutdown(SOON).await.unwrap();
}

const SOON: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);

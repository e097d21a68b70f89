//! One-way methods that fail: their errors stay in the pool, which logs, counts and dead-letters them.

use std::{collections::BTreeMap, fmt, time::Duration};

use lapin::{BasicProperties, types::ShortString};
use rpc_core::{
    CallError, DedupeOptions, ServiceError,
    layer::{self, Next, Request},
    service,
};
use rpc_tests::{Stage, eventually, on_both_brokers, raw::header};
use serde::{Deserialize, Serialize};

on_both_brokers!(
    an_error_of_a_oneway_method_is_counted_and_dead_lettered,
    a_layer_sees_the_error_of_a_oneway_method,
    an_error_that_may_help_to_try_again_is_not_remembered,
    an_error_of_a_oneway_method_is_no_reply_although_one_is_asked_for,
    a_request_without_reply_to_whose_handler_fails_is_dead_lettered,
    a_client_that_is_the_trait_tells_that_the_broker_has_taken_the_request,
);

/// With codes, and serde besides.
#[derive(Debug, Clone, thiserror::Error, ServiceError, Serialize, Deserialize)]
enum ShipError {
    #[error("no ship leaves for {0}")]
    NoShip(String),
    #[error("the harbour is closed")]
    #[rpc(code = "closed", retry_after = "2s")]
    Closed,
    #[error("{0}")]
    Unsent(String),
}

impl From<CallError> for ShipError {
    fn from(error: CallError) -> Self {
        Self::Unsent(error.to_string())
    }
}

/// A text alone, with its cause in the alternate form.
struct Chain;

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no crane")?;
        if f.alternate() { f.write_str(": it is broken") } else { Ok(()) }
    }
}

impl From<CallError> for Chain {
    fn from(_: CallError) -> Self {
        Self
    }
}

macro_rules! parcels {
    ($name:literal) => {
        #[service(name = $name, client_impls_trait)]
        trait Parcels {
            #[rpc(oneway)]
            async fn ship(&self, to: String) -> Result<(), ShipError>;
            #[rpc(oneway, blocking)]
            async fn lift(&self, n: u32) -> Result<(), Chain>;
            async fn ask(&self, n: u32) -> Result<u32, ShipError>;
        }
        #[derive(Clone)]
        struct Harbour;
        impl Parcels for Harbour {
            async fn ship(&self, to: String) -> Result<(), ShipError> {
                match &*to {
                    "Oslo" => Ok(()),
                    "Kiel" => Err(ShipError::Closed),
                    _ => Err(ShipError::NoShip(to)),
                }
            }
            async fn lift(&self, n: u32) -> Result<(), Chain> {
                if n > 0 { Err(Chain) } else { Ok(()) }
            }
            async fn ask(&self, n: u32) -> Result<u32, ShipError> {
                if n > 0 { Err(ShipError::Closed) } else { Ok(n) }
            }
        }
    };
}

/// The reason and the text of each letter, by its message_id or routing key.
async fn letters(stage: &Stage, queue: &str, count: usize) -> BTreeMap<String, (String, String)> {
    let raw = stage.raw().await;
    let mut dead = raw.consume(queue, 16).await;
    let mut letters = BTreeMap::new();
    for _ in 0..count {
        let letter = dead.next().await;
        let text = |name| header(&letter, name).unwrap_or_default().to_owned();
        let id = letter.properties.message_id().as_ref().map(ShortString::to_string).unwrap();
        letters.insert(id, (text("rpc-dead-reason"), text("rpc-dead-message")));
    }
    letters
}

fn letter(reason: &str, message: &str) -> (String, String) {
    (reason.to_owned(), message.to_owned())
}

async fn an_error_of_a_oneway_method_is_counted_and_dead_lettered(stage: &Stage) {
    parcels!("oneway-errors");
    const DEAD: &str = "rpc.oneway-errors.dead";
    stage.fresh(DEAD).await;
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.start().await.unwrap();
    let client = ParcelsClient::new(&stage.connect().await);
    // The caller is told that the broker has taken the request, and no more.
    for (to, id) in [("Oslo", "sent"), ("Kiel", "closed"), ("Bonn", "none")] {
        client.ship(to.to_owned()).idempotency_key(id).await.unwrap();
    }
    client.lift(0).idempotency_key("lifted").await.unwrap();
    client.lift(1).idempotency_key("broken").await.unwrap();
    eventually(SOON, "those that failed are dead-lettered", async || pool.stats().dead_lettered == 3).await;
    let expected = [
        ("closed", letter("closed", "the harbour is closed")),
        ("none", letter("no_ship", "no ship leaves for Bonn")),
        ("broken", letter("service", "no crane: it is broken")),
    ];
    assert_eq!(letters(stage, DEAD, 3).await, expected.map(|(id, letter)| (id.to_owned(), letter)).into());
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!((stats.received, stats.oneway_failed, stats.answered), (5, 3, 0));
    let of = |name: &str| stats.methods.iter().find(|method| method.method == name).unwrap().clone();
    assert_eq!((of("ship").calls, of("ship").errors), (3, vec![("no_ship", 1), ("closed", 1)]));
    assert_eq!((of("lift").calls, of("lift").errors), (2, vec![("service", 1)]));
}

async fn a_layer_sees_the_error_of_a_oneway_method(stage: &Stage) {
    parcels!("oneway-layered");
    const DEAD: &str = "rpc.oneway-layered.dead";
    stage.fresh(DEAD).await;
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let look = layer::from_fn(move |request: Request, next: Next| {
        let seen = seen.clone();
        async move {
            let response = next.run(request).await?;
            drop(seen.send((response.code().to_owned(), response.is_service_error(), response.retry_after())));
            Ok(response)
        }
    });
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.layer(look).start().await.unwrap();
    let client = ParcelsClient::new(&stage.connect().await);
    client.ship("Kiel".to_owned()).idempotency_key("closed").await.unwrap();
    assert_eq!(sees.recv().await, Some(("closed".to_owned(), true, Some(Duration::from_secs(2)))));
    eventually(SOON, "it is dead-lettered", async || pool.stats().dead_lettered == 1).await;
    let expected = [("closed".to_owned(), letter("closed", "the harbour is closed"))];
    assert_eq!(letters(stage, DEAD, 1).await, expected.into());
}

async fn an_error_that_may_help_to_try_again_is_not_remembered(stage: &Stage) {
    parcels!("oneway-remembered");
    stage.fresh("rpc.oneway-remembered.dead").await;
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = ParcelsClient::new(&stage.connect().await);
    for to in ["Kiel", "Kiel", "Bonn", "Bonn"] {
        client.ship(to.to_owned()).idempotency_key(to).await.unwrap();
    }
    // Each request has a letter: the first one's may have been lost with its worker.
    eventually(SOON, "all are dead-lettered", async || pool.stats().dead_lettered == 4).await;
    assert_eq!(pool.stats().deduplicated, 1, "the final error alone is remembered");
}

/// As callers do who were built when the method had a reply.
async fn an_error_of_a_oneway_method_is_no_reply_although_one_is_asked_for(stage: &Stage) {
    parcels!("oneway-asked");
    const DEAD: &str = "rpc.oneway-asked.dead";
    stage.fresh(DEAD).await;
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let replies = raw.exclusive_queue().await;
    let asking =
        |id: &str| BasicProperties::default().with_reply_to(replies.as_str().into()).with_message_id(id.into());
    let long = "x".repeat(5_000);
    for to in ["Kiel", &long] {
        let [high, low] = u16::try_from(to.len()).unwrap().to_be_bytes();
        // In MessagePack an array of one text.
        let body = [&[0x91, 0xDA, high, low], to.as_bytes()].concat();
        raw.publish("rpc", "oneway-asked.ship", asking(&to[..4]), &body).await;
    }
    eventually(SOON, "both are dead-lettered", async || pool.stats().dead_lettered == 2).await;
    assert_eq!((pool.stats().oneway_failed, pool.stats().answered), (2, 0));
    let letters = letters(stage, DEAD, 2).await;
    assert_eq!(letters["Kiel"], letter("closed", "the harbour is closed"));
    assert_eq!(letters["xxxx"].1.len(), 1_024, "the text has a bound");
    assert_eq!(raw.queue(&replies).await.unwrap().ready, 0);
}

async fn a_request_without_reply_to_whose_handler_fails_is_dead_lettered(stage: &Stage) {
    parcels!("oneway-foreign");
    const DEAD: &str = "rpc.oneway-foreign.dead";
    stage.fresh(DEAD).await;
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.start().await.unwrap();
    let raw = stage.raw().await;
    for n in 0..2 {
        let properties = BasicProperties::default().with_message_id(format!("m{n}").into());
        raw.publish("rpc", "oneway-foreign.ask", properties, &[0x91, n]).await;
    }
    eventually(SOON, "the failed one is dead-lettered", async || pool.stats().dead_lettered == 1).await;
    let expected = [("m1".to_owned(), letter("closed", "the harbour is closed"))];
    assert_eq!(letters(stage, DEAD, 1).await, expected.into());
    assert_eq!(pool.stats().oneway_failed, 1);
}

async fn a_client_that_is_the_trait_tells_that_the_broker_has_taken_the_request(stage: &Stage) {
    parcels!("oneway-trait");
    stage.fresh("rpc.oneway-trait").await;
    stage.fresh("rpc.oneway-trait.dead").await;
    async fn ship(parcels: &impl Parcels) -> Result<(), ShipError> {
        parcels.ship("Bonn".to_owned()).await
    }
    let client = ParcelsClient::new(&stage.connect().await);
    assert!(matches!(ship(&client).await, Err(ShipError::Unsent(_))), "nobody serves it");
    let pool = stage.pool(ParcelsServer::new(Harbour)).await.start().await.unwrap();
    ship(&client).await.unwrap();
    eventually(SOON, "it is dead-lettered", async || pool.stats().dead_lettered == 1).await;
}

const SOON: Duration = Duration::from_secs(10);

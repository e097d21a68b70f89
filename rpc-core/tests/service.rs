//! The generated code in the conditions users put it: no prelude, strange names, a renamed crate.
#![cfg(all(feature = "macros", feature = "broker"))]
#![deny(missing_docs, warnings)]
#![allow(unreachable_pub, reason = "generated items have the visibility of their trait")]

use std::time::Duration;

use rpc_core::{Connection, WorkerPool, broker::Broker, service};

/// A module without a prelude, whose names collide with everything generated code might use.
mod bare_surroundings {
    #![no_implicit_prelude]

    use ::rpc_core::{Context, service};

    /// Shadows what careless generated code would name.
    #[allow(dead_code, missing_docs)]
    pub struct Vec;
    #[allow(dead_code, missing_docs)]
    pub enum Option {}

    /// Names that collide with the handler's own.
    #[service(name = "strange-names", dyn_trait)]
    pub trait StrangeNames {
        /// Arguments named like generated variables.
        async fn collide(&self, request: u32, service: u32, result: u32, method: u32, client: u32) -> u32;
        /// Raw identifiers.
        async fn r#type(&self, r#ref: ::std::string::String) -> ::std::string::String;
        /// Unit in and out.
        async fn nothing(&self);
        /// A method that is not compiled.
        #[cfg(not(all()))]
        async fn absent(&self, missing: NoSuchType);
        /// A default body, and the context.
        async fn with_default(&self, ctx: &Context, n: u8) -> bool {
            ctx.redelivered() || n > 1
        }
        /// A deprecated method.
        #[deprecated = "for a test"]
        async fn old(&self) -> u8;
    }
}

use bare_surroundings::{DynStrangeNames, StrangeNames, StrangeNamesClient, StrangeNamesServer};

struct Strange;

impl StrangeNames for Strange {
    async fn collide(&self, request: u32, service: u32, result: u32, method: u32, client: u32) -> u32 {
        request + 10 * service + 100 * result + 1_000 * method + 10_000 * client
    }
    async fn r#type(&self, r#ref: String) -> String {
        r#ref.to_uppercase()
    }
    async fn nothing(&self) {}
    async fn old(&self) -> u8 {
        7
    }
}

#[tokio::test]
async fn generated_code_works_whatever_surrounds_it() {
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(broker.uri()).await.unwrap();
    let boxed: Box<dyn DynStrangeNames> = Box::new(Strange);
    let pool = WorkerPool::new(&connection).serve(StrangeNamesServer::new(boxed)).start().await.unwrap();
    let client = StrangeNamesClient::new(&connection);
    assert_eq!(client.collide(1, 2, 3, 4, 5).await.unwrap(), 54_321);
    assert_eq!(client.r#type("abc".to_owned()).await.unwrap(), "ABC");
    client.nothing().await.unwrap();
    assert!(client.with_default(2).await.unwrap());
    #[allow(deprecated)]
    let old = client.old().await.unwrap();
    assert_eq!(old, 7);
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
    broker.shutdown().await;
}

/// A service whose client stands in for the implementation.
#[service(client_impls_trait)]
trait Counter {
    async fn add(&self, n: u32) -> Result<u32, CounterError>;
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum CounterError {
    TooMuch,
    Remote(String),
}

impl From<rpc_core::CallError> for CounterError {
    fn from(error: rpc_core::CallError) -> Self {
        Self::Remote(error.code().to_owned())
    }
}

struct Local;

impl Counter for Local {
    async fn add(&self, n: u32) -> Result<u32, CounterError> {
        n.checked_add(1).ok_or(CounterError::TooMuch)
    }
}

async fn add_one(counter: &impl Counter, n: u32) -> Result<u32, CounterError> {
    counter.add(n).await
}

#[tokio::test]
async fn a_client_is_an_implementation_when_its_errors_can_hold_call_errors() {
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(broker.uri()).await.unwrap();
    let client = CounterClient::new(&connection);
    assert_eq!(add_one(&client, 1).await, Err(CounterError::Remote("no_such_service".to_owned())));
    let _pool = WorkerPool::new(&connection).serve(CounterServer::new(Local)).start().await.unwrap();
    assert_eq!(add_one(&client, 1).await, add_one(&Local, 1).await);
    assert_eq!(add_one(&client, u32::MAX).await, Err(CounterError::TooMuch));
}

//! Remote procedure calls over AMQP 0-9-1: declare a trait, call it from another process, and learn how every call
//! ended.
//!
//! ```text
//!   client process                      broker                      worker process
//!  ┌────────────────┐   rpc (direct) ┌──────────────┐  prefetch   ┌───────────────────┐
//!  │ FibonacciClient│──fibonacci.fib─►rpc.fibonacci ─┼────────────►│ FibonacciServer<T>│
//!  │    Call<T, E>  │                │              │             │   impl Fibonacci  │
//!  │    Pending     │◄───────────────┼rpc.reply.<id>│◄────────────┼── reply, then ack │
//!  └────────────────┘   exclusive    └──────────────┘             └───────────────────┘
//! ```
//!
//! # A service
//!
//! [`#[service]`](macro@service) turns a trait into a typed client and a typed server. A [`WorkerPool`] serves it, in
//! this process or in many. The broker is RabbitMQ, or the bundled one, which this program starts. The [`guide`]
//! explains each part in a chapter of its own.
//!
#![cfg_attr(all(feature = "broker", feature = "macros"), doc = "```")]
#![cfg_attr(not(all(feature = "broker", feature = "macros")), doc = "```ignore")]
//! use rpc_core::{Connection, WorkerPool, broker::Broker, service};
//!
//! /// Sums.
//! #[service]
//! trait Adder {
//!     /// `a` and `b` together.
//!     async fn add(&self, a: u64, b: u64) -> u64;
//! }
//!
//! struct Cpu;
//! impl Adder for Cpu {
//!     async fn add(&self, a: u64, b: u64) -> u64 { a + b }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::start().await?;
//! let connection = Connection::open(broker.uri()).await?;
//! let pool = WorkerPool::new(&connection).serve(AdderServer::new(Cpu)).start().await?;
//! let adder = AdderClient::new(&connection);
//! assert_eq!(adder.add(40, 2).await?, 42);
//! # pool.shutdown(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! # Calls
//!
//! A client's method returns a [`Call`]: nothing is sent until it is awaited, and until then it takes options.
//!
#![cfg_attr(feature = "macros", doc = "```no_run")]
#![cfg_attr(not(feature = "macros"), doc = "```ignore")]
//! # use std::time::Duration;
//! # #[rpc_core::service]
//! # trait Adder { async fn add(&self, a: u64, b: u64) -> u64; }
//! # async fn example(adder: AdderClient) -> Result<(), rpc_core::CallError> {
//! let sum = adder.add(40, 2).timeout(Duration::from_millis(200)).header("tenant", "blue").await?;
//! # Ok(()) }
//! ```
//!
//! Every call ends with the value or with a [`CallError`]. The error separates the service's own error
//! ([`Service`](CallError::Service)) from every other failure, says whether the handler may have run
//! ([`maybe_executed`](CallError::maybe_executed)) and whether a repetition can succeed
//! ([`is_retryable`](CallError::is_retryable)).
//!
//! A call's budget is, in this order: [`Call::timeout`], the method's `#[rpc(timeout = "…")]`, [`ClientOptions::timeout`]
//! (10 s). It travels as the request's `expiration`: a worker does not begin a request whose caller has given up, and
//! stops a handler that still runs then. Calls made inside a handler inherit the rest of its budget.
//!
//! Dropping the future cancels the call: a running handler is stopped, a queued request is skipped, except with
//! `#[rpc(no_cancel)]`. [`ClientOptions::max_in_flight`] bounds the calls in flight; further calls wait within their budget,
//! or are refused ([`WhenFull`]).
//!
//! A lost connection is reopened for ever, with backoff. A call in flight meanwhile is sent again when its method is
//! `#[rpc(idempotent)]` or it was never sent; otherwise it ends with [`CallError::Disconnected`].
//!
//! # Workers
//!
//! A pool runs [`concurrency`](WorkerPool::concurrency) handlers at once and holds at most
//! [`prefetch`](WorkerPool::prefetch) requests per queue. By default it acknowledges a request after its reply, on the
//! same channel ([`AckPolicy::AfterReply`]): when a worker dies, the broker redelivers its unanswered requests to another
//! worker, whose handlers see [`Context::redelivered`]. A handler that panics is answered with [`CallError::Internal`], and
//! the pool continues. [`PoolHandle::shutdown`] takes no new requests, requeues those not begun, and finishes and answers
//! the others.
//!
//! Start more pools, in more processes, to share the load: the broker deals requests out in turn to pools that have room.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `framework` | yes | clients and worker pools; other features turn it on where they need it |
//! | `macros` | yes | [`#[service]`](macro@service) |
//! | `lapin` | yes | the transport that uses the crate lapin, [`Transport::Lapin`] |
//! | `json` | | the JSON codec, `#[service(codec = "json")]` |
//! | `tower` | | errors of tower's own [layers](layer) count as what they are: a timeout, overloaded |
//! | `otel` | | OpenTelemetry's contexts travel with calls through [`layer::TraceLayer`] |
//! | `health` | | probes for Kubernetes, and a page for metrics, over HTTP: `health::Health` |
//! | `axum` | | the same pages as a router for a program that has a web server |
//! | `systemd` | | notifications of systemd: `READY`, `STOPPING`, `WATCHDOG` |
//! | `config` | | options from configuration files and environment variables, by serde |
//! | `metrics` | | times of calls and counters of rare events go to the facade `metrics`, by `layer::MetricsLayer` |
//! | `dedupe-redis` | | a store of answers in Redis or Valkey, `dedupe::RedisStore` |
//! | `broker` | | `broker::Broker`, the bundled broker |
//! | `tls` | | `amqps` connections, and TLS for the bundled broker, by rustls |
//! | `cli` | | the program `rpc`, whose `rpc broker` runs the bundled broker alone |
//!
//! How the crate is built is described in `ARCHITECTURE.md` beside its `Cargo.toml`.
#![forbid(unsafe_code)]
// The pages of a part link to the other parts, which a build without them does not have.
#![cfg_attr(
    not(all(feature = "broker", feature = "framework", feature = "macros", feature = "tls", feature = "lapin")),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "framework")]
mod budget;
#[cfg(feature = "framework")]
mod call_error;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "framework")]
mod client;
#[cfg(feature = "framework")]
mod codec;
#[cfg(feature = "config")]
mod config;
#[cfg(feature = "framework")]
mod connection;
#[cfg(feature = "framework")]
mod context;
#[cfg(feature = "framework")]
pub mod dedupe;
#[cfg(feature = "framework")]
mod envelope;
#[cfg(feature = "framework")]
mod error;
#[cfg(feature = "framework")]
mod fake;
#[cfg(feature = "framework")]
mod forward;
#[cfg(feature = "framework")]
pub mod guide;
#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "framework")]
pub mod layer;
#[cfg(any(feature = "framework", feature = "broker"))]
mod lock;
#[cfg(feature = "framework")]
mod meter;
#[cfg(feature = "framework")]
mod method;
#[cfg(feature = "framework")]
mod nesting;
#[cfg(any(feature = "framework", feature = "broker"))]
#[cfg_attr(not(feature = "framework"), allow(dead_code, reason = "the framework's half of it"))]
mod printable;
#[cfg(feature = "broker")]
mod routing;
#[cfg(feature = "framework")]
mod servers;
#[cfg(feature = "framework")]
mod service;
#[cfg(any(feature = "framework", feature = "cli"))]
mod signal;
#[cfg(feature = "framework")]
mod slots;
#[cfg(feature = "framework")]
mod stats;
#[cfg(any(feature = "framework", feature = "broker"))]
#[cfg_attr(not(feature = "framework"), allow(dead_code, reason = "the framework's half of it"))]
mod task;
#[cfg(feature = "framework")]
mod topology;
#[cfg(feature = "framework")]
mod users;
#[cfg(any(feature = "framework", feature = "broker"))]
#[cfg_attr(
    not(all(feature = "framework", feature = "broker")),
    allow(dead_code, unused_imports, reason = "the other one's half of it")
)]
mod wire;
#[cfg(feature = "framework")]
mod worker;

#[cfg(feature = "framework")]
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

#[cfg(all(feature = "broker", any(test, fuzzing)))]
#[doc(hidden)]
#[path = "fuzz.rs"]
pub mod __fuzz;

// The public interface is:
#[cfg(feature = "framework")]
pub use budget::spawn;
#[cfg(feature = "framework")]
pub use call_error::{CallError, ErrorDetails, OtherError, ServiceError, TimeoutStage, UnknownError};
#[cfg(feature = "framework")]
pub use client::{Call, CallFuture, Client, ClientOptions, ClientStats, Pong, WhenFull};
#[cfg(feature = "framework")]
pub use codec::{Codec, CodecError};
#[cfg(feature = "config")]
pub use config::PoolOptions;
#[cfg(all(feature = "framework", feature = "tls"))]
pub use connection::ClientTlsOptions;
#[cfg(feature = "framework")]
pub use connection::{
    Connection, ConnectionOptions, ConnectionState, ConnectionStates, ConnectionStats, Credentials,
    CredentialsProvider, HeaderValue, Transport,
};
#[cfg(feature = "framework")]
pub use context::{Context, TestContext};
#[cfg(feature = "framework")]
pub use error::Error;
#[cfg(feature = "framework")]
pub use fake::FakePool;
#[cfg(feature = "framework")]
pub use layer::{RetryBudget, RetryPolicy};
#[cfg(feature = "macros")]
pub use rpc_macros::ServiceError;
/// Makes the methods of a trait callable from another process.
///
/// ```
/// use rpc_core::{CallError, Context, service};
/// use serde::{Deserialize, Serialize};
///
/// /// The warehouse.
/// #[service]
/// pub trait Stock {
///     /// How many there are. Asking twice does no harm.
///     #[rpc(idempotent, timeout = "500ms")]
///     async fn count(&self, article: String) -> u32;
///
///     /// Takes some out; returns how many are left.
///     async fn take(&self, article: String, wanted: u32) -> Result<u32, StockError>;
///
///     /// Something has arrived. The caller waits for no reply.
///     #[rpc(oneway)]
///     async fn arrived(&self, article: String, pieces: u32);
///
///     /// The yearly report: long work on a thread and in a queue of its own, so that it delays no other method.
///     #[rpc(blocking, queue = "reports", timeout = "10m")]
///     async fn report(&self, year: u16, ctx: &Context) -> Vec<String>;
/// }
///
/// /// The service's own error. It travels as it is.
/// #[derive(Debug, thiserror::Error, Serialize, Deserialize)]
/// pub enum StockError {
///     #[error("only {left} left")]
///     TooFew { left: u32 },
/// }
///
/// async fn order(stock: &StockClient) -> String {
///     match stock.take("nut".to_owned(), 12).await {
///         Ok(left) => format!("taken, {left} left"),
///         Err(CallError::Service { error: StockError::TooFew { left }, .. }) => format!("only {left} left"),
///         Err(error) if error.maybe_executed() => format!("they may be taken or not: {error}"),
///         Err(error) => format!("nothing was taken: {error}"),
///     }
/// }
/// # fn main() {}
/// ```
///
/// # Changing a service
///
/// A new method breaks no caller, nor does a new argument that is an `Option` or has `#[rpc(default)]`. A renamed method
/// still serves its old callers with `alias`. For a change that older servers must not misunderstand raise `version`, and
/// update the servers first. [`guide::evolution`] has the whole table.
///
/// # In detail
#[cfg(feature = "macros")]
pub use rpc_macros::service;
#[cfg(feature = "framework")]
pub use stats::{LatencyStats, MethodStats};
#[cfg(feature = "framework")]
pub use worker::{
    AckPolicy, DeadLetterOptions, DedupeOptions, Dispatch, PoolHandle, PoolMonitor, PoolState, PoolStats, QueueKind,
    RedeliveryPolicy, ShutdownError, ShutdownReport, WorkerPool,
};

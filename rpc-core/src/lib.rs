//! Remote procedure calls over AMQP 0-9-1: declare a trait, call it from another process, and be told the truth
//! about what happened to every call.
//!
//! ```text
//!   client process                      broker                      worker process
//!  ┌────────────────┐   rpc (topic)  ┌──────────────┐  prefetch   ┌───────────────────┐
//!  │ FibonacciClient│──fibonacci.fib─►rpc.fibonacci ─┼────────────►│ FibonacciServer<T>│
//!  │    Call<T, E>  │                │              │             │   impl Fibonacci  │
//!  │    Pending     │◄───────────────┼rpc.reply.<id>│◄────────────┼── reply, then ack │
//!  └────────────────┘   exclusive    └──────────────┘             └───────────────────┘
//! ```

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
mod codec;
mod connection;
mod context;
mod envelope;
mod error;
pub mod routing;
mod service;
mod topology;
#[cfg(feature = "broker")]
mod wire;
mod worker;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

// The public interface is:
pub use client::{Call, CallFuture, Client, ClientOptions, WhenFull};
pub use codec::{Codec, CodecError};
pub use connection::{Connection, ConnectionOptions, State, transport::HeaderValue};
pub use context::Context;
pub use error::{CallError, Error, TimeoutStage};
#[cfg(feature = "macros")]
pub use rpc_macros::service;
pub use topology::EXCHANGE;
pub use worker::{AckPolicy, Dispatch, PoolHandle, PoolStats, QueueKind, ShutdownReport, WorkerPool};

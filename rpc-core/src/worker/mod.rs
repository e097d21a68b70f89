//! Worker pools: queues are declared, consumed with a prefetch bound, and every request is answered before its ack.
//!
//! ```text
//!  WorkerPool ──start──► PoolHandle
//!                          ├─ lane: rpc.fibonacci        channel, consumer, replier
//!                          └─ lane: rpc.fibonacci.slow
//!
//!  delivery ──decide──► execute: answer it, run its handler here, or give it a task ──► reply, then ack
//! ```
//!
//! It knows services only as [`Dispatch`], and nothing of their clients.

mod apart;
mod at_most_once;
mod callers;
mod cancel;
mod caution;
mod consume;
mod dead_callers;
mod dead_letter;
mod decide;
pub(crate) mod dedupe;
mod direct_reply_to;
mod discovery;
mod dispatch;
mod execute;
mod finished;
mod handle;
mod handlers;
mod in_process;
mod job;
mod lane;
mod layers;
mod log;
mod monitor;
mod pace;
mod poison;
mod policy;
mod pool;
mod reply;
mod returns;
mod running;
mod seated;
mod source;
mod stats;
mod tombstones;

pub(crate) use self::in_process::{InProcess, Local};
pub use self::{
    dedupe::DedupeOptions,
    dispatch::{Dispatch, Handler, Request, Response, Sealed, blocking},
    handle::{PoolHandle, ShutdownError, ShutdownReport},
    monitor::{PoolMonitor, PoolState},
    policy::{AckPolicy, DeadLetterOptions, QueueKind, RedeliveryPolicy},
    pool::WorkerPool,
    stats::PoolStats,
};

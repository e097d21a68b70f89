//! Requests that arrive again, at any of several worker processes: executed once.
//!
//! A [`DedupeStore`] holds a claim of each request that runs, and the answer of each that has ended;
//! [`WorkerPool::dedupe_store`](crate::WorkerPool::dedupe_store) uses one. The guide's chapter on
//! [once-only execution](crate::guide::once) has the rules.

#[cfg(feature = "dedupe-redis")]
pub use crate::worker::dedupe::RedisStore;
pub use crate::worker::dedupe::{
    Claim, DedupeStore, Entry, FencingToken, Fingerprint, Key, MemoryStore, StoreError, StoreOptions, WhenAway,
};

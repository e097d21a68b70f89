//! A store that fails when it is told to.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use rpc_core::dedupe::{Claim, DedupeStore, Entry, FencingToken, Fingerprint, Key, MemoryStore, StoreError};

/// A store in memory, each operation of which can be switched off.
#[derive(Debug, Default)]
pub(super) struct Faulty {
    store: MemoryStore,
    /// No claim is answered.
    pub(super) hangs: AtomicBool,
    pub(super) fails_to_claim: AtomicBool,
    pub(super) fails_to_renew: AtomicBool,
    pub(super) fails_to_complete: AtomicBool,
    /// How often `complete` was asked for.
    pub(super) completes: AtomicUsize,
}

fn unless(fails: &AtomicBool) -> Result<(), StoreError> {
    match fails.load(Ordering::SeqCst) {
        true => Err(StoreError::new("switched off")),
        false => Ok(()),
    }
}

#[async_trait]
impl DedupeStore for Faulty {
    async fn claim(&self, key: &Key, arguments: Fingerprint, lease: Duration) -> Result<Claim, StoreError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        unless(&self.fails_to_claim)?;
        self.store.claim(key, arguments, lease).await
    }

    async fn renew(&self, key: &Key, token: FencingToken, lease: Duration) -> Result<bool, StoreError> {
        unless(&self.fails_to_renew)?;
        self.store.renew(key, token, lease).await
    }

    async fn complete(
        &self,
        key: &Key,
        token: FencingToken,
        reply: bytes::Bytes,
        keep: Duration,
    ) -> Result<bool, StoreError> {
        self.completes.fetch_add(1, Ordering::SeqCst);
        unless(&self.fails_to_complete)?;
        self.store.complete(key, token, reply, keep).await
    }

    async fn release(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        self.store.release(key, token).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.read(key).await
    }
}

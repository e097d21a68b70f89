//! A store, each operation of which has a limit.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    key::{Fingerprint, Key},
    store::{Claim, Entry, FencingToken, StoreError},
    store_options::StoreOptions,
};

#[derive(Debug)]
pub(super) struct Limited {
    pub(super) options: StoreOptions,
    /// Whether the last operation failed.
    is_away: AtomicBool,
}

impl Limited {
    pub(super) fn new(options: StoreOptions) -> Self {
        Self { options, is_away: AtomicBool::new(false) }
    }

    pub(super) async fn claim(&self, key: &Key, arguments: Fingerprint) -> Result<Claim, StoreError> {
        self.limited(self.options.limit, self.options.store.claim(key, arguments, self.options.lease)).await
    }

    pub(super) async fn renew(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        // So that there is time for another try.
        let limit = self.options.limit.min(self.options.lease / 3);
        self.limited(limit, self.options.store.renew(key, token, self.options.lease)).await
    }

    pub(super) async fn complete(&self, key: &Key, token: FencingToken, reply: Bytes) -> Result<bool, StoreError> {
        self.limited(self.options.limit, self.options.store.complete(key, token, reply, self.options.keep)).await
    }

    pub(super) async fn release(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        self.limited(self.options.limit, self.options.store.release(key, token)).await
    }

    pub(super) async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.limited(self.options.limit, self.options.store.read(key)).await
    }

    async fn limited<T>(
        &self,
        limit: Duration,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let outcome = match timeout(limit, operation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::new(format!("no answer within {limit:?}"))),
        };
        match &outcome {
            Ok(_) => self.note_back(),
            Err(error) => self.note_away(error),
        }
        outcome
    }

    /// Warns once, however many requests fail meanwhile.
    fn note_away(&self, error: &StoreError) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason = %error.reason(), when_away = ?self.options.when_away, "the store of answers is away");
        }
    }

    fn note_back(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the store of answers is back");
        }
    }
}

//! [`MemoryStore`]: a store in the memory of one process.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    bounded::{Bounded, Known},
    key::{Fingerprint, Key},
    options::DedupeOptions,
    store::{Claim, DedupeStore, Entry, FencingToken, StoreError},
};
use crate::lock::lock;

/// A [`DedupeStore`] in memory: for several pools of one process, and for tests.
///
/// It keeps as many answers as its [`DedupeOptions`] say, and forgets the oldest first. A pool alone needs none:
/// [`WorkerPool::dedupe`](crate::WorkerPool::dedupe) costs less.
#[derive(Debug, Default)]
pub struct MemoryStore {
    limits: DedupeOptions,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    entries: Bounded<Held, Done>,
    /// Of the last claim.
    token: u64,
    /// As many claims are held before those that have run out are looked for.
    claims_max: usize,
}

/// A claim.
#[derive(Debug)]
struct Held {
    token: FencingToken,
    arguments: Fingerprint,
    /// When it runs out.
    until: Instant,
}

/// An answer.
#[derive(Debug)]
struct Done {
    token: FencingToken,
    arguments: Fingerprint,
    reply: Bytes,
    /// When it is forgotten.
    until: Instant,
}

impl MemoryStore {
    /// An empty store with these bounds.
    pub fn new(limits: DedupeOptions) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The memory, without what has run out.
    fn memory(&self, key: &Key) -> MutexGuard<'_, Memory> {
        let (mut memory, now) = (lock(&self.memory), Instant::now());
        while memory.entries.oldest().is_some_and(|done| done.until <= now) {
            memory.entries.forget_oldest();
        }
        let key = key.as_bytes();
        match memory.entries.get(key) {
            Some(Known::Running(held)) if held.until <= now => memory.entries.forget_running(key),
            // Another pool may keep its answers longer: then this one is not the oldest.
            Some(Known::Ended(done, _)) if done.until <= now => memory.entries.forget_ended(key),
            Some(_) | None => {}
        }
        memory
    }
}

impl Memory {
    /// Forgets claims that have run out and whose keys nobody asks for, once in a while.
    fn bound_claims(&mut self, now: Instant) {
        if self.entries.running_len() >= self.claims_max {
            self.entries.retain_running(|held| held.until > now);
            self.claims_max = CLAIMS_MAX.max(2 * self.entries.running_len());
        }
    }

    /// The claim of this token, if it holds the key.
    fn held(&mut self, key: &Key, token: FencingToken) -> Option<&mut Held> {
        self.entries.running(key.as_bytes()).filter(|held| held.token == token)
    }
}

#[async_trait]
impl DedupeStore for MemoryStore {
    async fn claim(&self, key: &Key, arguments: Fingerprint, lease: Duration) -> Result<Claim, StoreError> {
        let mut memory = self.memory(key);
        let now = Instant::now();
        let claim =
            match memory.entries.get(key.as_bytes()) {
                Some(
                    Known::Running(Held { arguments: others, .. }) | Known::Ended(Done { arguments: others, .. }, _),
                ) if *others != arguments => Claim::OtherArguments,
                Some(Known::Running(held)) => Claim::Running { left: held.until.saturating_duration_since(now) },
                Some(Known::Ended(done, _)) => Claim::Completed(done.reply.clone()),
                None => {
                    memory.bound_claims(now);
                    memory.token += 1;
                    let token = FencingToken::new(memory.token);
                    memory.entries.begin(key.shared(), Held { token, arguments, until: after(now, lease) });
                    Claim::Claimed(token)
                }
            };
        Ok(claim)
    }

    async fn renew(&self, key: &Key, token: FencingToken, lease: Duration) -> Result<bool, StoreError> {
        let mut memory = self.memory(key);
        let Some(held) = memory.held(key, token) else { return Ok(false) };
        held.until = after(Instant::now(), lease);
        Ok(true)
    }

    async fn complete(&self, key: &Key, token: FencingToken, reply: Bytes, keep: Duration) -> Result<bool, StoreError> {
        let mut memory = self.memory(key);
        if let Some(Known::Ended(done, _)) = memory.entries.get(key.as_bytes()) {
            return Ok(done.token == token);
        }
        let Some(held) = memory.held(key, token) else { return Ok(false) };
        let (arguments, bytes) = (held.arguments, reply.len());
        let done = Done { token, arguments, reply, until: after(Instant::now(), keep) };
        memory.entries.end(key.shared(), done, bytes, self.limits);
        Ok(true)
    }

    async fn release(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        let mut memory = self.memory(key);
        let is_held = memory.held(key, token).is_some();
        if is_held {
            memory.entries.forget_running(key.as_bytes());
        }
        Ok(is_held)
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(match self.memory(key).entries.get(key.as_bytes()) {
            None => None,
            Some(Known::Running(_)) => Some(Entry::Running),
            Some(Known::Ended(done, _)) => Some(Entry::Completed(done.reply.clone())),
        })
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or_else(|| now + FOR_EVER)
}

/// Claims that are held before those that have run out are looked for.
const CLAIMS_MAX: usize = 1_024;
/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const KEEP: Duration = Duration::from_secs(60);

    fn key(message_id: &str) -> Key {
        Key::new("stock", "take", None, message_id.as_bytes())
    }

    async fn claim(store: &MemoryStore, message_id: &str) -> Claim {
        store.claim(&key(message_id), Fingerprint::of(b""), LEASE).await.unwrap()
    }

    async fn claimed(store: &MemoryStore, message_id: &str) -> FencingToken {
        match claim(store, message_id).await {
            Claim::Claimed(token) => token,
            other => panic!("{message_id}: {other:?}"),
        }
    }

    async fn complete(store: &MemoryStore, message_id: &str, keep: Duration) {
        let token = claimed(store, message_id).await;
        assert!(store.complete(&key(message_id), token, Bytes::from_static(b"reply"), keep).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_runs_out_to_the_millisecond_and_renewing_prolongs_it() {
        let store = MemoryStore::default();
        let token = claimed(&store, "a").await;
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        assert_eq!(claim(&store, "a").await, Claim::Running { left: Duration::from_millis(1) });
        assert!(store.renew(&key("a"), token, LEASE).await.unwrap());
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        assert_eq!(claim(&store, "a").await, Claim::Running { left: Duration::from_millis(1) });
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!store.renew(&key("a"), token, LEASE).await.unwrap(), "it has run out");
        assert!(claimed(&store, "a").await > token);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_their_time_whatever_others_are_kept_for() {
        let store = MemoryStore::default();
        complete(&store, "long", 2 * KEEP).await;
        complete(&store, "short", KEEP).await;
        tokio::time::advance(KEEP).await;
        assert!(matches!(claim(&store, "long").await, Claim::Completed(_)));
        complete(&store, "short", KEEP).await;
        assert_eq!(
            lock(&store.memory).entries.ended_bytes(),
            key("long").as_bytes().len() + key("short").as_bytes().len() + 10
        );
        tokio::time::advance(2 * KEEP).await;
        assert_eq!(store.read(&key("long")).await.unwrap(), None);
        assert_eq!(store.read(&key("short")).await.unwrap(), None);
        assert_eq!(lock(&store.memory).entries.ended_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_claims_that_nobody_asks_for_are_bounded() {
        let store = MemoryStore::new(DedupeOptions::default().entries(2));
        for message_id in ["a", "b", "c"] {
            complete(&store, message_id, KEEP).await;
        }
        assert_eq!(store.read(&key("a")).await.unwrap(), None, "the oldest one");
        assert!(store.read(&key("c")).await.unwrap().is_some());
        for number in 0..3 * CLAIMS_MAX {
            claimed(&store, &format!("claim {number}")).await;
            tokio::time::advance(LEASE / 100).await;
        }
        let held = lock(&store.memory).entries.running_len();
        assert!(held <= CLAIMS_MAX, "{held}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_without_end_is_no_overflow() {
        let store = MemoryStore::default();
        let claim = store.claim(&key("a"), Fingerprint::of(b""), Duration::MAX).await.unwrap();
        let Claim::Claimed(token) = claim else { panic!("{claim:?}") };
        assert!(store.complete(&key("a"), token, Bytes::new(), Duration::MAX).await.unwrap());
    }
}

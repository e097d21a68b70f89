//! The contract of a `DedupeStore`, checked on any of them.

use std::{sync::Arc, time::Duration};

use rpc_core::dedupe::{Claim, DedupeStore, Entry, FencingToken, Fingerprint, Key};
use tokio::time::sleep;

use crate::eventually;

/// A store, and the beginning of the message ids that it is checked with.
struct Checked {
    store: Arc<dyn DedupeStore>,
    scope: String,
}

/// Checks a store. `scope` is to be another one each time: it makes the keys new.
///
/// # Panics
/// When the store does not keep the contract.
pub async fn check_store(store: Arc<dyn DedupeStore>, scope: &str) {
    let checked = Checked { store, scope: scope.to_owned() };
    checked.one_of_many_claims_succeeds().await;
    checked.a_reply_is_kept_and_not_changed().await;
    checked.a_key_belongs_to_its_arguments().await;
    checked.a_released_key_can_be_claimed_and_its_old_token_is_worth_nothing().await;
    checked.a_claim_that_ran_out_cannot_be_completed().await;
    checked.a_renewed_claim_lasts().await;
    checked.a_reply_is_kept_for_its_time().await;
    checked.keys_and_replies_are_bytes().await;
}

impl Checked {
    fn key(&self, name: &str) -> Key {
        Key::new("stock", "take", Some("ada"), format!("{} {name}", self.scope).as_bytes())
    }

    async fn claim(&self, key: &Key, lease: Duration) -> Claim {
        self.store.claim(key, arguments(), lease).await.expect("the store is there")
    }

    async fn claimed(&self, key: &Key, lease: Duration) -> FencingToken {
        match self.claim(key, lease).await {
            Claim::Claimed(token) => token,
            other => panic!("{key} was not claimed: {other:?}"),
        }
    }

    async fn complete(&self, key: &Key, token: FencingToken, reply: &[u8]) -> bool {
        self.store.complete(key, token, reply.to_vec().into(), LONG).await.expect("the store is there")
    }

    async fn read(&self, key: &Key) -> Option<Entry> {
        self.store.read(key).await.expect("the store is there")
    }

    /// The token of the claim that succeeds once the one before has run out.
    async fn claimed_later(&self, key: &Key) -> FencingToken {
        let mut token = None;
        eventually(LONG, "the claim runs out", async || {
            if let Claim::Claimed(claimed) = self.claim(key, LONG).await {
                token = Some(claimed);
            }
            token.is_some()
        })
        .await;
        token.expect("it was claimed")
    }

    async fn one_of_many_claims_succeeds(&self) {
        let key = self.key("many");
        let claims: Vec<_> = (0..16)
            .map(|_| {
                let (store, key) = (Arc::clone(&self.store), key.clone());
                tokio::spawn(async move { store.claim(&key, arguments(), LONG).await.expect("the store is there") })
            })
            .collect();
        let mut claimed = 0;
        for claim in claims {
            match claim.await.expect("a claim does not panic") {
                Claim::Claimed(_) => claimed += 1,
                Claim::Running { left } => assert!(left <= LONG && left > LONG / 2, "{left:?}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(claimed, 1);
        assert_eq!(self.read(&key).await, Some(Entry::Running));
    }

    async fn a_reply_is_kept_and_not_changed(&self) {
        let key = self.key("reply");
        assert_eq!(self.read(&key).await, None);
        let token = self.claimed(&key, LONG).await;
        assert!(self.complete(&key, token, b"first").await);
        assert!(self.complete(&key, token, b"again").await, "the answer to the first one may have been lost");
        assert!(!self.store.renew(&key, token, LONG).await.expect("the store is there"));
        assert!(!self.store.release(&key, token).await.expect("the store is there"));
        assert_eq!(self.claim(&key, LONG).await, Claim::Completed(b"first".to_vec().into()));
        assert_eq!(self.read(&key).await, Some(Entry::Completed(b"first".to_vec().into())));
    }

    async fn a_key_belongs_to_its_arguments(&self) {
        let key = self.key("arguments");
        let other = Fingerprint::of(b"others");
        let token = self.claimed(&key, LONG).await;
        let claim = async || self.store.claim(&key, other, LONG).await.expect("the store is there");
        assert_eq!(claim().await, Claim::OtherArguments);
        assert!(self.complete(&key, token, b"reply").await);
        assert_eq!(claim().await, Claim::OtherArguments);
    }

    async fn a_released_key_can_be_claimed_and_its_old_token_is_worth_nothing(&self) {
        let key = self.key("released");
        let old = self.claimed(&key, LONG).await;
        assert!(self.store.release(&key, old).await.expect("the store is there"));
        assert_eq!(self.read(&key).await, None);
        let new = self.claimed(&key, LONG).await;
        assert!(new > old, "{new:?} after {old:?}");
        assert!(!self.store.release(&key, old).await.expect("the store is there"));
        assert!(!self.store.renew(&key, old, LONG).await.expect("the store is there"));
        assert!(!self.complete(&key, old, b"old").await);
        assert_eq!(self.read(&key).await, Some(Entry::Running));
        assert!(self.complete(&key, new, b"new").await);
        assert!(!self.complete(&key, old, b"old").await);
    }

    async fn a_claim_that_ran_out_cannot_be_completed(&self) {
        let key = self.key("ran out");
        let old = self.claimed(&key, SHORT).await;
        let new = self.claimed_later(&key).await;
        assert!(new > old, "{new:?} after {old:?}");
        assert!(!self.complete(&key, old, b"late").await);
        assert!(self.complete(&key, new, b"in time").await);
        assert_eq!(self.claim(&key, LONG).await, Claim::Completed(b"in time".to_vec().into()));
        let nobody = self.key("nobody");
        let old = self.claimed(&nobody, SHORT).await;
        eventually(LONG, "the claim runs out", async || self.read(&nobody).await.is_none()).await;
        assert!(!self.complete(&nobody, old, b"late").await, "also when nobody else has claimed it");
        assert_eq!(self.read(&nobody).await, None);
    }

    async fn a_renewed_claim_lasts(&self) {
        let key = self.key("renewed");
        let token = self.claimed(&key, RENEWED).await;
        for _ in 0..6 {
            sleep(RENEWED / 4).await;
            assert!(self.store.renew(&key, token, RENEWED).await.expect("the store is there"));
        }
        assert!(matches!(self.claim(&key, LONG).await, Claim::Running { .. }));
        assert!(self.complete(&key, token, b"reply").await);
    }

    async fn a_reply_is_kept_for_its_time(&self) {
        let key = self.key("kept");
        let token = self.claimed(&key, LONG).await;
        let kept = self.store.complete(&key, token, b"reply".to_vec().into(), SHORT).await;
        assert!(kept.expect("the store is there"));
        assert!(self.claimed_later(&key).await > token);
    }

    async fn keys_and_replies_are_bytes(&self) {
        let name = |bytes: &[u8]| [self.scope.as_bytes(), bytes].concat();
        let keys = [
            Key::new("stock", "take", Some("ada"), &name(b"\0\xff\r\n")),
            Key::new("stock", "take", Some("bob"), &name(b"\0\xff\r\n")),
            Key::new("stock", "take", None, &name(b"\0\xff\r\n")),
            Key::new("stock", "give", None, &name(b"\0\xff\r\n")),
            Key::new("shop", "take", None, &name(b"\0\xff\r\n")),
            Key::new("stock", "take", None, &name(b"\0\xff\r")),
        ];
        let replies = [vec![], vec![0], b"\r\n$-1\r\n".to_vec(), vec![0xff; 1 << 20], b"OK".to_vec(), b"7".to_vec()];
        for (key, reply) in keys.iter().zip(&replies) {
            let token = self.claimed(key, LONG).await;
            assert!(self.complete(key, token, reply).await);
        }
        for (key, reply) in keys.iter().zip(&replies) {
            assert!(self.read(key).await == Some(Entry::Completed(reply.clone().into())), "{key}");
        }
    }
}

fn arguments() -> Fingerprint {
    Fingerprint::of(b"arguments")
}

/// Longer than a check takes.
const LONG: Duration = Duration::from_secs(30);
/// Runs out while a check waits for that.
const SHORT: Duration = Duration::from_millis(100);
/// Does not run out between two renewals.
const RENEWED: Duration = Duration::from_secs(2);

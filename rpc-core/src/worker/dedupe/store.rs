//! [`DedupeStore`]: where the claims and answers of several processes are.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::key::{Fingerprint, Key};
use crate::layer::BoxError;

/// A store of claims and answers that several pools share, in several processes: a request that is sent to two of them is executed
/// once.
///
/// ```text
///             claim                 complete
///  (nothing) ──────► claimed, token ────────► completed, reply ──keep──► (nothing)
///      ▲               │ ▲     │
///      │               └─┘     │
///      │              renew    │
///      └── release, or the claim runs out
/// ```
///
/// Each operation is atomic: of two claims of one key at once, one succeeds. A claim has a [`FencingToken`], and the operations of its
/// holder name it: those with the token of an earlier claim, which has run out, change nothing and return false.
///
/// An operation that fails may have been carried out. The pool then repeats [`complete`](Self::complete) with the same token, which
/// must succeed if the first one did. Each operation is dropped after [`StoreOptions::limit`](super::StoreOptions::limit).
///
/// See [`MemoryStore`](super::MemoryStore), and `RedisStore` with the feature `dedupe-redis`.
#[async_trait]
pub trait DedupeStore: Send + Sync + 'static {
    /// Claims a key that is not claimed and has no answer, for the time `lease`, together with the arguments of the request.
    ///
    /// # Errors
    /// A [`StoreError`] when the store is away.
    async fn claim(&self, key: &Key, arguments: Fingerprint, lease: Duration) -> Result<Claim, StoreError>;

    /// Prolongs a claim: it runs out after `lease` from now. False when the token does not hold the key.
    ///
    /// # Errors
    /// A [`StoreError`] when the store is away.
    async fn renew(&self, key: &Key, token: FencingToken, lease: Duration) -> Result<bool, StoreError>;

    /// Ends a claim with the reply, to be kept for the time `keep`. False when the token does not hold the key; true also when the same
    /// token has completed it before.
    ///
    /// # Errors
    /// A [`StoreError`] when the store is away.
    async fn complete(&self, key: &Key, token: FencingToken, reply: Bytes, keep: Duration) -> Result<bool, StoreError>;

    /// Ends a claim without a reply: the next claim of the key succeeds. False when the token does not hold the key.
    ///
    /// # Errors
    /// A [`StoreError`] when the store is away.
    async fn release(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError>;

    /// Reads a key; `None` when it is neither claimed nor completed.
    ///
    /// # Errors
    /// A [`StoreError`] when the store is away.
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError>;
}

/// The number of a claim. Of two claims of one key the later one has the larger number.
///
/// A handler reads that of its request in [`Context::extensions`](crate::Context::extensions). One that changes a database can have it
/// refuse the changes of a handler whose claim has run out: store the number with the change, and take no smaller one.
///
/// ```
/// use rpc_core::{Context, dedupe::FencingToken};
///
/// fn number(ctx: &Context) -> Option<u64> {
///     ctx.extensions().get::<FencingToken>().map(|token| token.get())
/// }
/// # let ctx = Context::for_test().extension(FencingToken::new(7)).build();
/// # assert_eq!(number(&ctx), Some(7));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The token with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The key is claimed now.
    Claimed(FencingToken),
    /// Somebody else has claimed it, for so long from now unless that one prolongs it.
    Running {
        /// The rest of that claim.
        left: Duration,
    },
    /// It was completed with this reply.
    Completed(Bytes),
    /// It was claimed, or completed, with other arguments.
    OtherArguments,
}

/// The state of a key in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// It is claimed.
    Running,
    /// It was completed with this reply.
    Completed(Bytes),
}

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the store of answers is away")]
pub struct StoreError(#[source] BoxError);

impl StoreError {
    /// The error for this reason.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }

    /// The reason, in one line.
    pub(super) fn reason(&self) -> impl fmt::Display {
        &self.0
    }
}

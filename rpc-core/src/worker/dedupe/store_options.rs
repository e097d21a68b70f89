//! [`StoreOptions`]: how a pool uses a store.

use std::{fmt, sync::Arc, time::Duration};

use super::store::DedupeStore;

/// How a pool uses a [`DedupeStore`].
///
/// ```
/// use std::{sync::Arc, time::Duration};
///
/// use rpc_core::dedupe::{MemoryStore, StoreOptions, WhenAway};
///
/// let store = Arc::new(MemoryStore::default());
/// let options = StoreOptions::new(store).keep(Duration::from_secs(86_400)).when_away(WhenAway::GoOn);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    pub(super) store: Arc<dyn DedupeStore>,
    pub(super) lease: Duration,
    pub(super) keep: Duration,
    pub(super) limit: Duration,
    pub(super) reply_max_bytes: usize,
    pub(super) when_away: WhenAway,
}

/// How a pool treats requests while it cannot ask its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WhenAway {
    /// It refuses them as `overloaded`, not executed, and counts them
    /// ([`PoolStats::store_refused`](crate::PoolStats::store_refused)). The default.
    #[default]
    Refuse,
    /// It executes them, and counts them ([`PoolStats::store_bypassed`](crate::PoolStats::store_bypassed)): a request that is sent
    /// twice meanwhile may be executed twice.
    GoOn,
}

impl StoreOptions {
    /// The default use of this store.
    pub fn new(store: Arc<dyn DedupeStore>) -> Self {
        Self {
            store,
            lease: Duration::from_secs(5),
            keep: Duration::from_secs(3_600),
            limit: Duration::from_secs(1),
            reply_max_bytes: 1 << 20,
            when_away: WhenAway::default(),
        }
    }

    /// How long a claim lasts unless it is renewed, which happens each third of that time while the handler runs. The default is 5 s;
    /// less than 30 ms counts as that.
    ///
    /// When a worker dies, the requests that it had claimed are executed again only after this. A worker that does not reach the store,
    /// or stands still, for longer than that loses its claim while its handler runs: another worker may run it beside it, but only one
    /// of the two answers counts.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(LEASE_MIN);
        self
    }

    /// How long the store keeps an answer. The default is 1 h.
    #[must_use]
    pub const fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// How long one operation of the store may take before the store counts as away. The default is 1 s.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The largest encoded answer that is kept. The default is 1 MiB. Of a larger one the store keeps a mark: the first caller gets it, and
    /// a later one of the same request `payload_too_large`, which says that the request may have been executed.
    #[must_use]
    pub const fn reply_max_bytes(mut self, bytes: usize) -> Self {
        self.reply_max_bytes = bytes;
        self
    }

    /// How requests are treated while the store is away. The default is [`WhenAway::Refuse`].
    #[must_use]
    pub const fn when_away(mut self, when_away: WhenAway) -> Self {
        self.when_away = when_away;
        self
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("lease", &self.lease)
            .field("keep", &self.keep)
            .field("limit", &self.limit)
            .field("reply_max_bytes", &self.reply_max_bytes)
            .field("when_away", &self.when_away)
            .finish_non_exhaustive()
    }
}

/// Three renewals of it must be further apart than a timer's resolution.
const LEASE_MIN: Duration = Duration::from_millis(30);

//! [`Layered`]: the layers of a client, and what stands behind them.

use std::{fmt, sync::Arc};

use super::grace::Graces;
use crate::layer::{Core, Layers, RetryPolicy};

pub(super) struct Layered {
    /// None where a policy for retries is all.
    pub(super) layers: Arc<Layers>,
    /// Sends, perhaps under a policy for retries.
    pub(super) core: Arc<dyn Core>,
    /// Of the core.
    pub(super) graces: Graces,
    /// Of one call alone.
    pub(super) retry: Option<Arc<RetryPolicy>>,
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("layers", &self.layers).field("retry", &self.retry).finish_non_exhaustive()
    }
}

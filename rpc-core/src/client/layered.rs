//! [`Layered`]: the layers of a client, and what stands behind them.

use std::{fmt, sync::Arc};

use crate::layer::{Core, Layers};

pub(super) struct Layered {
    pub(super) layers: Layers,
    pub(super) core: Arc<dyn Core>,
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layered").field(&self.layers).finish()
    }
}

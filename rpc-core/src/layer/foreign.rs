//! The errors of layers that others wrote.

use super::response::BoxError;

/// The meaning of such an error.
#[cfg_attr(not(feature = "tower"), expect(dead_code, reason = "the errors of tower's layers are not known"))]
pub(crate) enum Foreign {
    /// A `Timeout` gave up. The wrapped service may have been called.
    Elapsed,
    /// A `LoadShed` found the wrapped service not ready, and did not call it.
    Overloaded,
    Unknown,
}

impl Foreign {
    pub(crate) fn of(error: &BoxError) -> Self {
        #[cfg(feature = "tower")]
        if error.is::<tower::timeout::error::Elapsed>() {
            return Self::Elapsed;
        }
        #[cfg(feature = "tower")]
        if error.is::<tower::load_shed::error::Overloaded>() {
            return Self::Overloaded;
        }
        #[cfg(not(feature = "tower"))]
        let _ = error;
        Self::Unknown
    }
}

//! Which sizes of messages the broker takes, as far as a session knows.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest body that the broker is known to accept, and its limit once a refusal has named it.
///
/// A request that is larger than all before it could end the channel that it shares with others. So it travels on the channel
/// with confirms, where the broker's answer finds the one that was too large; then its size is known.
#[derive(Debug)]
pub(super) struct Sizes {
    accepted_bytes: AtomicUsize,
    limit_bytes: AtomicUsize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { accepted_bytes: AtomicUsize::new(ACCEPTED_BYTES), limit_bytes: AtomicUsize::new(usize::MAX) }
    }
}

impl Sizes {
    /// Whether a body of that size is known to be accepted.
    pub(super) fn is_accepted(&self, body_bytes: usize) -> bool {
        body_bytes <= self.accepted_bytes.load(Ordering::Relaxed)
    }

    /// The limit, if a body of that size is known to be refused.
    pub(super) fn refusing_limit(&self, body_bytes: usize) -> Option<usize> {
        Some(self.limit_bytes.load(Ordering::Relaxed)).filter(|limit_bytes| body_bytes > *limit_bytes)
    }

    /// The broker has accepted a body of that size.
    pub(super) fn accept(&self, body_bytes: usize) {
        if !self.is_accepted(body_bytes) {
            self.accepted_bytes.fetch_max(body_bytes, Ordering::Relaxed);
        }
    }

    /// The broker has named its limit.
    pub(super) fn limit(&self, limit_bytes: usize) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        self.accepted_bytes.fetch_min(limit_bytes, Ordering::Relaxed);
    }
}

/// Taken for accepted: a broker with a lower limit is not to be expected, and its refusal is understood all the same.
const ACCEPTED_BYTES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_known_from_confirms_and_refusals() {
        let sizes = Sizes::default();
        assert!(sizes.is_accepted(ACCEPTED_BYTES) && !sizes.is_accepted(ACCEPTED_BYTES + 1));
        sizes.accept(1_000_000);
        sizes.accept(200_000);
        assert!(sizes.is_accepted(1_000_000) && !sizes.is_accepted(1_000_001));
        assert_eq!(sizes.refusing_limit(1_000_001), None);
        sizes.limit(500_000);
        assert_eq!((sizes.refusing_limit(500_000), sizes.refusing_limit(500_001)), (None, Some(500_000)));
        assert!(sizes.is_accepted(500_000) && !sizes.is_accepted(500_001));
    }
}

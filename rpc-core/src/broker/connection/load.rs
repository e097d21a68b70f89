//! How much work a connection causes.

/// Whether a connection keeps the broker busy, so that it takes turns with others.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Batches that may be small before it counts as idle again.
    batches: u8,
}

impl Load {
    pub(super) const fn is_busy(&self) -> bool {
        self.batches > 0
    }

    /// Counts a batch that moved so many messages.
    pub(super) const fn note(&mut self, work: usize) {
        self.batches = if work >= BUSY_WORK { BATCHES } else { self.batches.saturating_sub(1) };
    }
}

/// More than calls cause that wait for their answers, some tens at a time.
const BUSY_WORK: usize = 128;
const BATCHES: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_busy_until_its_batches_were_small_for_a_while() {
        let mut load = Load::default();
        load.note(BUSY_WORK - 1);
        assert!(!load.is_busy());
        load.note(BUSY_WORK);
        for _ in 0..BATCHES {
            assert!(load.is_busy());
            load.note(1);
        }
        assert!(!load.is_busy());
    }
}

//! How far the routing of a message may go before it pauses.

/// The steps that a search has taken, and the most that it may take before it pauses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    taken: usize,
    left: usize,
}

impl Steps {
    pub(super) const fn new(max: usize) -> Self {
        Self { taken: 0, left: max }
    }

    /// Takes one step. Returns false, without having taken it, if none is left.
    #[inline]
    pub(super) fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left -= usize::from(is_left);
        self.taken += usize::from(is_left);
        is_left
    }

    /// Counts work that cannot pause.
    pub(super) fn note(&mut self, steps: usize) {
        self.taken += steps;
        self.left = self.left.saturating_sub(steps);
    }

    pub(super) const fn taken(&self) -> usize {
        self.taken
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// Whether a search has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    /// The steps are used up. The next call goes on where this one stopped.
    Paused,
}

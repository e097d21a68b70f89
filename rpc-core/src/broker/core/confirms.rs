//! Publisher confirms, merged where one answers for many.

/// Publisher confirms that are due, merged until the batch of frames is handled.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    published: u64,
    /// The first tag not told yet, when there is one, and whether the run is acks.
    run: Option<(u64, bool)>,
}

/// A confirm to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) delivery_tag: u64,
    pub(super) multiple: bool,
    pub(super) is_ack: bool,
}

impl Confirms {
    /// Whether there is something to flush.
    pub(super) const fn is_pending(&self) -> bool {
        self.run.is_some()
    }

    /// Notes one more publish; returns the run it does not continue.
    pub(super) fn add(&mut self, is_ack: bool) -> Option<Confirm> {
        let ended = match self.run {
            Some((_, run_is_ack)) if run_is_ack != is_ack => self.flush(),
            _ => None,
        };
        self.published += 1;
        self.run.get_or_insert((self.published, is_ack));
        ended
    }

    /// The run so far.
    pub(super) fn flush(&mut self) -> Option<Confirm> {
        let (first, is_ack) = self.run.take()?;
        // RabbitMQ's nacks are always `multiple`.
        let multiple = !is_ack || self.published > first;
        Some(Confirm { delivery_tag: self.published, multiple, is_ack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_are_merged_in_runs() {
        let mut confirms = Confirms::default();
        assert_eq!((confirms.add(true), confirms.add(true)), (None, None));
        let acks = Confirm { delivery_tag: 2, multiple: true, is_ack: true };
        assert_eq!(confirms.add(false), Some(acks));
        assert_eq!(confirms.flush(), Some(Confirm { delivery_tag: 3, multiple: true, is_ack: false }));
        assert_eq!(confirms.flush(), None);
    }
}

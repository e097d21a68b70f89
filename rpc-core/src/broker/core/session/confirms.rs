//! Publisher confirms, merged where one may answer for many publishes. Pure.
//!
//! RabbitMQ merges only the confirms of publishes that arrive faster than it confirms. A client that publishes two or
//! three messages in a row receives as many confirms from it, and some clients count them.

/// A channel's publisher confirms, merged until the batch of frames has been handled.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    published: u64,
    /// The first tag that is not confirmed yet, if any, and whether the run from it consists of acks.
    run: Option<(u64, bool)>,
}

/// A confirm to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirm {
    pub(crate) delivery_tag: u64,
    pub(crate) multiple: bool,
    pub(crate) is_ack: bool,
}

impl Confirms {
    /// Whether there are confirms to flush.
    pub(crate) const fn is_pending(&self) -> bool {
        self.run.is_some()
    }

    /// Confirms one more publish. Returns the run before it, if this publish does not continue it.
    pub(crate) fn add(&mut self, is_ack: bool) -> impl Iterator<Item = Confirm> + use<> {
        let is_continued = self.run.is_none_or(|(_, run_is_ack)| run_is_ack == is_ack);
        let ended = (!is_continued).then(|| self.flush());
        self.published += 1;
        self.run.get_or_insert((self.published, is_ack));
        ended.into_iter().flatten()
    }

    /// Ends the run: as single confirms if it is short, otherwise as one `multiple`.
    pub(crate) fn flush(&mut self) -> impl Iterator<Item = Confirm> + use<> {
        let last = self.published;
        let confirm = move |delivery_tag, multiple, is_ack| Confirm { delivery_tag, multiple, is_ack };
        self.run.take().into_iter().flat_map(move |(first, is_ack)| {
            let is_merged = !is_ack || last - first >= SINGLE_MAX;
            let start = if is_merged { last } else { first };
            // RabbitMQ's nacks are always `multiple`.
            (start..=last).map(move |delivery_tag| confirm(delivery_tag, is_merged, is_ack))
        })
    }
}

/// Up to this many acks of one batch are sent as single confirms.
const SINGLE_MAX: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_acks_are_sent_one_by_one_and_many_at_once() {
        let mut confirms = Confirms::default();
        let ack = |delivery_tag, multiple| Confirm { delivery_tag, multiple, is_ack: true };
        for published in 1..=SINGLE_MAX {
            assert_eq!(confirms.add(true).count(), 0, "{published}");
        }
        assert_eq!(confirms.flush().collect::<Vec<_>>(), [ack(1, false), ack(2, false), ack(3, false), ack(4, false)]);
        for published in 5..=9 {
            assert_eq!(confirms.add(true).count(), 0, "{published}");
        }
        assert_eq!(confirms.flush().collect::<Vec<_>>(), [ack(9, true)]);
        assert_eq!(confirms.flush().next(), None);
    }

    #[test]
    fn acks_and_nacks_are_not_merged() {
        let mut confirms = Confirms::default();
        assert_eq!(confirms.add(true).count(), 0);
        let ended: Vec<_> = confirms.add(false).collect();
        assert_eq!(ended, [Confirm { delivery_tag: 1, multiple: false, is_ack: true }]);
        assert_eq!(confirms.add(false).count(), 0);
        let nack = Confirm { delivery_tag: 3, multiple: true, is_ack: false };
        assert_eq!(confirms.flush().collect::<Vec<_>>(), [nack]);
    }
}

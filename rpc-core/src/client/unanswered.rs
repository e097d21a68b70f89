//! [`Unanswered`]: the calls of a session that ended without a reply, so that a late reply can be told from a second one. Pure.

use std::collections::VecDeque;

/// The last such calls, by their correlation_ids.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    ids: VecDeque<u64>,
    /// The highest number of a call that is no longer known.
    forgotten: u64,
}

/// A reply that no call awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unheard {
    /// Its call had ended without a reply.
    Late,
    /// Its call has had a reply.
    Duplicate,
    /// It names no call of the session.
    Foreign,
}

impl Unanswered {
    /// Notes a call that has ended without a reply. `number_of` deciphers an id.
    pub(super) fn note(&mut self, id: u64, number_of: impl Fn(u64) -> u64) {
        if self.ids.len() >= KEPT_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.forgotten = self.forgotten.max(number_of(oldest));
        }
        self.ids.push_back(id);
    }

    /// The meaning of a reply to the call of that id and number, which is not in flight, but was once.
    pub(super) fn take(&mut self, id: u64, number: u64) -> Unheard {
        match self.ids.iter().position(|known| *known == id) {
            // Another reply to it is a second one.
            Some(at) => {
                self.ids.remove(at);
                Unheard::Late
            }
            None if number <= self.forgotten => Unheard::Late,
            None => Unheard::Duplicate,
        }
    }
}

/// 8 KiB of them.
const KEPT_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reply_to_a_call_without_one_is_late_and_others_are_second_ones() {
        let mut unanswered = Unanswered::default();
        unanswered.note(70, |id| id / 10);
        assert_eq!(
            [7, 7, 8].map(|number| unanswered.take(10 * number, number)),
            [Unheard::Late, Unheard::Duplicate, Unheard::Duplicate]
        );
    }

    #[test]
    fn of_more_calls_than_are_kept_the_oldest_count_as_late() {
        let mut unanswered = Unanswered::default();
        let calls = KEPT_MAX as u64 + 5;
        for number in 1..=calls {
            unanswered.note(10 * number, |id| id / 10);
        }
        assert_eq!(unanswered.ids.len(), KEPT_MAX);
        assert!((1..=calls).all(|number| unanswered.take(10 * number, number) == Unheard::Late));
        assert_eq!(unanswered.take(10 * calls, calls), Unheard::Duplicate);
        assert!(unanswered.ids.is_empty());
    }
}

//! Publisher confirms, merged where one answers for many.
//!
//! RabbitMQ merges only what comes faster than it confirms. A client that publishes two or three messages one after the
//! other gets as many confirms from it, and some count them.

use super::{ConnectionId, Now, channel::Mode, session::Sessions};

impl Sessions {
    /// Notes a confirm, when the channel asked for them.
    pub(super) fn confirm(&mut self, id: ConnectionId, number: u16, is_ack: bool, now: Now) {
        let Some(session) = self.get_mut(id) else { return };
        let Some(channel) = session.channels.get_mut(number) else { return };
        if !matches!(channel.mode, Mode::Confirm) {
            return;
        }
        if !channel.confirms.is_pending() {
            session.confirming.push(number);
        }
        for confirm in channel.confirms.add(is_ack) {
            self.send_confirm(id, number, confirm, now);
        }
    }

    /// Sends a channel's confirms that are due.
    pub(super) fn send_confirms(&mut self, id: ConnectionId, number: u16, now: Now) {
        let due = self.channel_mut(id, number).map(|channel| channel.confirms.flush());
        for confirm in due.into_iter().flatten() {
            self.send_confirm(id, number, confirm, now);
        }
    }

    fn send_confirm(&mut self, id: ConnectionId, number: u16, confirm: Confirm, now: Now) {
        if let Some(injected) = self.injected.as_deref_mut()
            && injected.hold(id, number, confirm, now)
        {
            return;
        }
        self.write_confirm(id, number, confirm);
    }

    pub(super) fn write_confirm(&mut self, id: ConnectionId, number: u16, confirm: Confirm) {
        let Confirm { delivery_tag, multiple, is_ack } = confirm;
        if let Some(out) = self.out(id) {
            match is_ack {
                true => out.ack(number, delivery_tag, multiple),
                false => out.nack(number, delivery_tag, multiple),
            }
        }
    }
}

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
    pub(super) fn add(&mut self, is_ack: bool) -> impl Iterator<Item = Confirm> + use<> {
        let is_continued = self.run.is_none_or(|(_, run_is_ack)| run_is_ack == is_ack);
        let ended = (!is_continued).then(|| self.flush());
        self.published += 1;
        self.run.get_or_insert((self.published, is_ack));
        ended.into_iter().flatten()
    }

    /// The run so far: one by one when it is short, else at once.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = Confirm> + use<> {
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

/// How many acks of one batch are sent one by one.
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

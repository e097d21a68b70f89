//! The faults that tests have asked for. Pure.
//!
//! Nothing is allocated before the first one, and until then each hook on a message's path checks one `Option`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::broker::core::{
    interface::{ConnectionId, Now},
    session::confirms::Confirm,
};

/// The faults that tests have asked for.
#[derive(Debug, Default)]
pub(crate) struct Injected {
    pub(crate) are_deliveries_paused: bool,
    /// Deliveries to make twice.
    pub(crate) duplicates: usize,
    /// Mandatory publishes to return.
    pub(crate) returns: usize,
    /// Publishes to nack.
    pub(crate) nacks: usize,
    confirms: ConfirmTiming,
    held: VecDeque<HeldConfirm>,
}

/// When publisher confirms are sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfirmTiming {
    #[default]
    AtOnce,
    After(Duration),
    Never,
}

/// A confirm that is held back. It is dropped when its channel is closed.
#[derive(Debug)]
pub(crate) struct HeldConfirm {
    pub(crate) connection: ConnectionId,
    pub(crate) channel: u16,
    pub(crate) confirm: Confirm,
    due: Option<Instant>,
}

/// The fault of a publish, which takes the place of routing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishFault {
    Return,
    Nack,
}

impl Injected {
    /// The fault of the current publish, if it has one.
    pub(crate) fn publish_fault(&mut self, is_mandatory: bool, is_confirmed: bool) -> Option<PublishFault> {
        if is_mandatory && self.returns > 0 {
            self.returns -= 1;
            return Some(PublishFault::Return);
        }
        if is_confirmed && self.nacks > 0 {
            self.nacks -= 1;
            return Some(PublishFault::Nack);
        }
        None
    }

    /// Holds a confirm back. Returns false if it is to be sent now.
    pub(crate) fn hold(&mut self, connection: ConnectionId, channel: u16, confirm: Confirm, now: Now) -> bool {
        let due = match self.confirms {
            // Sent at once, it would overtake the confirms that are held back.
            ConfirmTiming::AtOnce if self.held.is_empty() => return false,
            ConfirmTiming::AtOnce => Some(now.instant),
            ConfirmTiming::After(delay) => now.instant.checked_add(delay),
            ConfirmTiming::Never => None,
        };
        self.held.push_back(HeldConfirm { connection, channel, confirm, due });
        true
    }

    /// Drops the confirms of a channel that is closed.
    pub(crate) fn forget(&mut self, connection: ConnectionId, channel: u16) {
        self.held.retain(|held| (held.connection, held.channel) != (connection, channel));
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.held.front()?.due
    }

    pub(crate) fn pop_due(&mut self, now: Now) -> Option<HeldConfirm> {
        let is_due = self.held.front()?.due.is_some_and(|due| due <= now.instant);
        if is_due { self.held.pop_front() } else { None }
    }

    /// Whether the current delivery is made twice.
    pub(crate) fn duplicates_delivery(&mut self) -> bool {
        let is_duplicated = self.duplicates > 0;
        self.duplicates = self.duplicates.saturating_sub(1);
        is_duplicated
    }

    /// Sets when confirms are sent from now on.
    pub(crate) fn time_confirms(&mut self, timing: ConfirmTiming, now: Now) {
        self.confirms = timing;
        if timing == ConfirmTiming::AtOnce {
            self.held.iter_mut().for_each(|held| held.due = Some(now.instant));
        }
    }
}

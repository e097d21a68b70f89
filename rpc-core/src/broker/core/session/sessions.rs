//! All connections of the broker.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use amq_protocol::protocol::connection::Tune;

use crate::{
    broker::core::{
        fault::Fault,
        interface::{ConnectionId, Peer, Traffic},
        probes::injected::Injected,
        profile::Facts,
        rules::WORK_MAX,
        session::{Session, channel::Channel},
        vhost::queue::Line,
    },
    wire::OutBuffer,
};

/// Every connection of the broker.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// A client with this many unwritten bytes gets no more deliveries.
    pub(crate) outbox_max_bytes: usize,
    pub(crate) facts: &'static Facts,
    /// Messages moved so far by the current batch. Set beyond the bound to stop the batch early.
    pub(crate) work: usize,
    /// How many are moved before others get the lock.
    pub(crate) work_max: usize,
    /// Connections that have left methods unfinished which no frame of theirs drives, and since when.
    pub(crate) behind: VecDeque<(ConnectionId, Instant)>,
    /// Entries of purged and deleted queues, to be dropped without the lock.
    pub(crate) garbage: Vec<Line>,
    pub(crate) pending_close_oks: VecDeque<PendingCloseOk>,
    /// Answers to logins that have to wait, in the order in which they are due.
    pub(crate) pending_verdicts: VecDeque<PendingVerdict>,
    /// When messages are taken back from the consumers of a channel: at most one time for each.
    pub(crate) dues: BTreeSet<(Instant, ConnectionId, u16)>,
    /// Faults that tests asked for.
    pub(crate) injected: Option<Box<Injected>>,
    slots: Vec<Option<Session>>,
    free: Vec<usize>,
    /// Sessions with new output.
    touched: Vec<ConnectionId>,
}

/// A `connection.close-ok` that is sent after a pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingCloseOk {
    pub(crate) due: Instant,
    pub(crate) connection: ConnectionId,
    pub(crate) nonce: u128,
}

/// The answer to a login that is sent after a pause.
#[derive(Debug)]
pub(crate) struct PendingVerdict {
    pub(crate) due: Instant,
    pub(crate) connection: ConnectionId,
    pub(crate) nonce: u128,
    pub(crate) verdict: Result<Tune, Fault>,
}

impl Sessions {
    pub(crate) fn new(outbox_max_bytes: usize, facts: &'static Facts) -> Self {
        Self {
            outbox_max_bytes,
            facts,
            work: 0,
            work_max: WORK_MAX,
            behind: VecDeque::new(),
            garbage: Vec::new(),
            pending_close_oks: VecDeque::new(),
            pending_verdicts: VecDeque::new(),
            dues: BTreeSet::new(),
            injected: None,
            slots: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, peer: Peer, traffic: Arc<Traffic>, nonce: u128, frame_max: u32) -> ConnectionId {
        let session = Session::new(peer, traffic, nonce, frame_max, self.facts);
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(session);
                ConnectionId(slot)
            }
            None => {
                self.slots.push(Some(session));
                ConnectionId(self.slots.len() - 1)
            }
        }
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if self.slots.get_mut(id.0).and_then(Option::take).is_some() {
            self.free.push(id.0);
            self.touched.retain(|touched| *touched != id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many messages may still be moved before others get the lock.
    pub(crate) const fn work_left(&self) -> usize {
        self.work_max.saturating_sub(self.work)
    }

    /// Whether others have waited long enough for the lock.
    #[inline]
    pub(crate) const fn has_worked_enough(&self) -> bool {
        self.work >= self.work_max
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn all(&self) -> impl Iterator<Item = (ConnectionId, &Session)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, session)| Some((ConnectionId(slot), session.as_ref()?)))
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Session)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, session)| Some((ConnectionId(slot), session.as_mut()?)))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(at, _)| ConnectionId(at))
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Session> {
        self.slots.get(id.0)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.slots.get_mut(id.0)?.as_mut()
    }

    pub(crate) fn channel_mut(&mut self, id: ConnectionId, channel: u16) -> Option<&mut Channel> {
        self.get_mut(id)?.channels.get_mut(channel)
    }

    /// Has the message of a delivery taken back at that time.
    pub(crate) fn set_due(&mut self, (id, number): (ConnectionId, u16), due: Instant, delivery_tag: u64) {
        let timer = self.channel_mut(id, number).and_then(|channel| channel.set_due(due, delivery_tag));
        if timer.is_some() {
            self.set_timer(id, number, timer);
        }
    }

    /// Sets the timer of a channel's deliveries, in place of the one that was set.
    pub(crate) fn set_timer(&mut self, id: ConnectionId, number: u16, timer: Option<Instant>) {
        let Some(channel) = self.channel_mut(id, number) else { return };
        let before = std::mem::replace(&mut channel.timer, timer);
        self.forget_timer(id, number, before);
        self.dues.extend(timer.map(|at| (at, id, number)));
    }

    /// Forgets the timer of a channel that ends.
    pub(crate) fn forget_timer(&mut self, id: ConnectionId, number: u16, timer: Option<Instant>) {
        if let Some(at) = timer {
            self.dues.remove(&(at, id, number));
        }
    }

    /// A session to write to, listed as having new output.
    pub(crate) fn touch(&mut self, id: ConnectionId) -> Option<&mut Session> {
        let session = self.slots.get_mut(id.0)?.as_mut()?;
        if !session.is_touched {
            session.is_touched = true;
            self.touched.push(id);
        }
        Some(session)
    }

    /// Hands new output to `write`, which takes it.
    pub(crate) fn take_output(&mut self, mut write: impl FnMut(ConnectionId, &mut OutBuffer)) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(session) = self.slots.get_mut(id.0).and_then(Option::as_mut) {
                session.is_touched = false;
                write(id, &mut session.out);
            }
        }
    }
}

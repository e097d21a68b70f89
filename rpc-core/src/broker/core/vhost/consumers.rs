//! The consumers of one queue, in the order of their turns.
//!
//! A consumer that has no credit when its turn comes is blocked: it leaves its line until it has. So the front of the first
//! line is the consumer to serve, and no operation depends on how many others there are.
//!
//! ```text
//!  lines[priority]:  front ──served──► end        removed consumers leave their turn behind
//!                      │                ▲
//!                      └─no credit─► blocked ─credit─┘
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    ops::Index,
};

use bytes::Bytes;

use crate::broker::core::interface::ConnectionId;

/// A consumer as its queue sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) connection: ConnectionId,
    pub(crate) channel: u16,
    pub(crate) tag: Bytes,
    /// Its place among the channel's consumers.
    pub(crate) slot: usize,
    pub(crate) priority: i64,
    pub(crate) exclusive: bool,
    /// The next offset to read, in a stream.
    pub(crate) offset: u64,
}

impl Consumer {
    pub(crate) fn place(&self) -> Place {
        (self.connection, self.channel, self.slot)
    }
}

/// Where a consumer is: connection, channel, and slot of the channel.
pub(crate) type Place = (ConnectionId, u16, usize);

/// The consumers for which there may be credit again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regained {
    Nobody,
    Consumer(Place),
    Channel(ConnectionId, u16),
    Connection(ConnectionId),
    Everybody,
}

/// A consumer in [`Consumers`], until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConsumerAt(usize);

#[derive(Debug)]
pub(crate) struct Consumers {
    members: Vec<Option<Member>>,
    free: Vec<usize>,
    places: BTreeMap<Place, ConsumerAt>,
    /// Highest priority first. The turns of consumers that have left remain until they are at the front, or are many.
    lines: BTreeMap<Reverse<i64>, VecDeque<Turn>>,
    turns_left_behind: usize,
    /// Of a stream, the turns of consumers that have read all of it.
    resting: Vec<Turn>,
    blocked: usize,
    exclusive: usize,
    holds: usize,
    next_serial: u64,
    is_single_active: bool,
    /// The only consumer that is served, with `x-single-active-consumer`.
    active: Option<ConsumerAt>,
}

#[derive(Debug)]
struct Member {
    consumer: Consumer,
    /// Used once, unlike its index.
    serial: u64,
    /// Whether it had no credit when its turn came, or rests.
    is_blocked: bool,
    is_resting: bool,
}

/// A place in a line.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: ConsumerAt,
    serial: u64,
}

/// The consumers of a queue that was deleted.
#[derive(Debug)]
pub(crate) struct Leaving(Consumers);

impl Leaving {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Iterator for Leaving {
    type Item = Consumer;

    fn next(&mut self) -> Option<Consumer> {
        let (_, at) = self.0.places.pop_first()?;
        self.0.members.get_mut(at.0)?.take().map(|member| member.consumer)
    }
}

impl Consumers {
    pub(crate) fn new(is_single_active: bool) -> Self {
        Self {
            members: Vec::new(),
            free: Vec::new(),
            places: BTreeMap::new(),
            lines: BTreeMap::new(),
            turns_left_behind: 0,
            resting: Vec::new(),
            blocked: 0,
            exclusive: 0,
            holds: 0,
            next_serial: 0,
            is_single_active,
            active: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn has_exclusive(&self) -> bool {
        self.exclusive > 0
    }

    /// Takes out all consumers, one after the other.
    pub(crate) fn into_leaving(self) -> Leaving {
        Leaving(self)
    }

    /// Serves no consumer until [`resume`](Self::resume) is called as often: older messages are still to be requeued.
    pub(crate) fn hold(&mut self) {
        self.holds += 1;
    }

    pub(crate) fn resume(&mut self) {
        self.holds -= 1;
    }

    /// Whether consumers are not served.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn are_held(&self) -> bool {
        self.holds > 0
    }

    /// All consumers, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.members.iter().flatten().map(|member| &member.consumer)
    }

    pub(crate) fn offset_mut(&mut self, at: ConsumerAt) -> Option<&mut u64> {
        self.members.get_mut(at.0)?.as_mut().map(|member| &mut member.consumer.offset)
    }

    /// Adds a consumer behind its equals.
    pub(crate) fn add(&mut self, consumer: Consumer) {
        let at = ConsumerAt(self.free.pop().unwrap_or(self.members.len()));
        let serial = self.next_serial;
        self.next_serial += 1;
        self.exclusive += usize::from(consumer.exclusive);
        self.places.insert(consumer.place(), at);
        self.lines.entry(Reverse(consumer.priority)).or_default().push_back(Turn { at, serial });
        let member = Some(Member { consumer, serial, is_blocked: false, is_resting: false });
        match self.members.get_mut(at.0) {
            Some(free) => *free = member,
            None => self.members.push(member),
        }
        if self.is_single_active && self.active.is_none() {
            self.active = Some(at);
        }
    }

    /// Removes a consumer. The next one takes over if it was the single active one.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Consumer> {
        let removed = self.take(place)?;
        self.tidy_up();
        Some(removed)
    }

    /// Removes all consumers of a channel. Returns how many.
    pub(crate) fn remove_of(&mut self, connection: ConnectionId, channel: u16) -> usize {
        let places: Vec<_> = self.places_of(Regained::Channel(connection, channel)).collect();
        for place in &places {
            self.take(*place);
        }
        self.tidy_up();
        places.len()
    }

    fn take(&mut self, place: Place) -> Option<Consumer> {
        let at = self.places.remove(&place)?;
        let Member { consumer, is_blocked, .. } = self.members.get_mut(at.0)?.take()?;
        self.free.push(at.0);
        self.exclusive -= usize::from(consumer.exclusive);
        self.blocked -= usize::from(is_blocked);
        self.turns_left_behind += usize::from(!is_blocked);
        if self.active == Some(at) {
            self.active = None;
        }
        Some(consumer)
    }

    /// Lets the next consumer take over, and drops the turns of those that have left if they are most of all.
    fn tidy_up(&mut self) {
        if self.turns_left_behind > TURNS_LEFT_MIN.max(self.len()) {
            for line in self.lines.values_mut() {
                line.retain(|turn| is_valid(&self.members, *turn));
            }
            self.lines.retain(|_, line| !line.is_empty());
            self.turns_left_behind = 0;
        }
        if self.resting.len() > TURNS_LEFT_MIN.max(2 * self.len()) {
            self.resting.retain(|turn| is_valid(&self.members, *turn));
        }
        if self.is_single_active && self.active.is_none() {
            self.active = self.front();
        }
    }

    /// Has the next consumer take over from the single active one, which is sent nothing for a while. It is blocked until
    /// it is unblocked.
    pub(crate) fn pass_over(&mut self, place: Place) {
        let Some(&at) = self.places.get(&place).filter(|_| self.is_single_active) else { return };
        let Some(member) = self.members.get_mut(at.0).and_then(Option::as_mut) else { return };
        if std::mem::replace(&mut member.is_blocked, true) {
            return;
        }
        let serial = member.serial;
        self.blocked += 1;
        for line in self.lines.values_mut() {
            line.retain(|turn| turn.serial != serial);
        }
        if self.active == Some(at) {
            self.active = None;
            self.tidy_up();
        }
    }

    /// Unblocks the consumers that have credit again; each moves behind its equals.
    pub(crate) fn unblock(&mut self, regained: Regained, has_credit: impl Fn(&Consumer) -> bool) {
        if self.blocked == 0 {
            return;
        }
        if let Regained::Consumer(place) = regained {
            return self.unblock_at(place, &has_credit);
        }
        let places: Vec<_> = self.places_of(regained).collect();
        for place in places {
            self.unblock_at(place, &has_credit);
        }
    }

    fn unblock_at(&mut self, place: Place, has_credit: &impl Fn(&Consumer) -> bool) {
        let Some(&at) = self.places.get(&place) else { return };
        let Some(member) = self.members.get_mut(at.0).and_then(Option::as_mut) else { return };
        if member.is_blocked && !member.is_resting && has_credit(&member.consumer) {
            member.is_blocked = false;
            self.blocked -= 1;
            let turn = Turn { at, serial: member.serial };
            self.lines.entry(Reverse(member.consumer.priority)).or_default().push_back(turn);
            self.tidy_up();
        }
    }

    fn places_of(&self, regained: Regained) -> impl Iterator<Item = Place> {
        let least = ConnectionId(0);
        let (from, to) = match regained {
            Regained::Nobody => ((least, 1, 0), (least, 0, 0)),
            Regained::Consumer(place) => (place, place),
            Regained::Channel(connection, channel) => ((connection, channel, 0), (connection, channel, usize::MAX)),
            Regained::Connection(connection) => ((connection, 0, 0), (connection, u16::MAX, usize::MAX)),
            Regained::Everybody => ((least, 0, 0), (ConnectionId(usize::MAX), u16::MAX, usize::MAX)),
        };
        let places = (from <= to).then(|| self.places.range(from..=to));
        places.into_iter().flatten().map(|(place, _)| *place)
    }

    /// The next consumer for which `has_credit` holds: round robin, in the highest priority that has one. Consumers found
    /// without credit are blocked.
    pub(crate) fn next(&mut self, mut has_credit: impl FnMut(&Consumer) -> bool) -> Option<ConsumerAt> {
        if self.holds > 0 {
            return None;
        }
        if let Some(active) = self.active {
            return has_credit(&self[active]).then_some(active);
        }
        if self.is_single_active {
            return None;
        }
        if self.blocked == self.places.len() {
            return None;
        }
        while let Some(at) = self.front() {
            let member = self.members.get_mut(at.0).and_then(Option::as_mut)?;
            if has_credit(&member.consumer) {
                return Some(at);
            }
            member.is_blocked = true;
            self.blocked += 1;
            self.lines.first_entry()?.get_mut().pop_front();
        }
        None
    }

    /// Moves the consumer that [`next`](Self::next) has returned, and that was served, behind its equals.
    pub(crate) fn rotate(&mut self) {
        if self.places.len() == 1 || self.active.is_some() {
            return;
        }
        if let Some(mut line) = self.lines.first_entry()
            && line.get().len() > 1
        {
            line.get_mut().rotate_left(1);
        }
    }

    /// Has the consumer that [`next`](Self::next) has returned rest until [`wake`](Self::wake): it has read the whole stream.
    /// Returns false if there is no other to be served before.
    pub(crate) fn rest(&mut self) -> bool {
        if self.active.is_some() {
            return false;
        }
        let Some(at) = self.front() else { return false };
        let Some(member) = self.members.get_mut(at.0).and_then(Option::as_mut) else { return false };
        (member.is_blocked, member.is_resting) = (true, true);
        self.blocked += 1;
        self.resting.push(Turn { at, serial: member.serial });
        if let Some(mut line) = self.lines.first_entry() {
            line.get_mut().pop_front();
        }
        true
    }

    /// Wakes the consumers that rest: a stream has a new message.
    pub(crate) fn wake(&mut self) {
        let mut resting = std::mem::take(&mut self.resting);
        for turn in resting.drain(..) {
            if let Some(member) = self.members.get_mut(turn.at.0).and_then(Option::as_mut)
                && member.serial == turn.serial
            {
                (member.is_blocked, member.is_resting) = (false, false);
                self.blocked -= 1;
                self.lines.entry(Reverse(member.consumer.priority)).or_default().push_back(turn);
            }
        }
        self.resting = resting;
    }

    /// The consumer at the front of the first line. Turns of consumers that have left are dropped on the way.
    fn front(&mut self) -> Option<ConsumerAt> {
        loop {
            let is_only = self.lines.len() == 1;
            let mut line = self.lines.first_entry()?;
            match line.get().front() {
                Some(&turn) if is_valid(&self.members, turn) => return Some(turn.at),
                Some(_) => {
                    line.get_mut().pop_front();
                    self.turns_left_behind -= 1;
                }
                // The only line keeps its memory, because its consumer may be blocked and unblocked for each message.
                None if is_only => return None,
                None => drop(line.remove()),
            }
        }
    }

    /// Panics unless the counts are right, and each consumer is either blocked or has one turn.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self, queue: &str) {
        let members = || self.members.iter().flatten();
        assert_eq!(members().count(), self.places.len(), "consumers of '{queue}'");
        let blocked = members().filter(|member| member.is_blocked).count();
        assert_eq!(self.blocked, blocked, "consumers of '{queue}' that are blocked");
        assert_eq!(self.exclusive, self.iter().filter(|consumer| consumer.exclusive).count(), "exclusive ones");
        let resting = self.resting.iter().filter(|turn| is_valid(&self.members, **turn)).count();
        assert_eq!(resting, members().filter(|member| member.is_resting).count(), "consumers of '{queue}' that rest");
        let turns = || self.lines.iter().flat_map(|(priority, line)| line.iter().map(move |turn| (priority.0, *turn)));
        let valid: Vec<_> = turns().filter(|(_, turn)| is_valid(&self.members, *turn)).collect();
        assert_eq!(turns().count() - valid.len(), self.turns_left_behind, "turns left behind in '{queue}'");
        assert_eq!(valid.len(), self.places.len() - blocked, "turns of '{queue}'");
        for (priority, turn) in valid {
            assert_eq!(self[turn.at].priority, priority, "the line of a consumer of '{queue}'");
        }
        for (place, at) in &self.places {
            assert_eq!(self[*at].place(), *place, "the place of a consumer of '{queue}'");
        }
        assert_eq!(
            self.active.is_some(),
            self.is_single_active && self.blocked < self.len(),
            "the active consumer of '{queue}'"
        );
    }
}

impl Index<ConsumerAt> for Consumers {
    type Output = Consumer;

    fn index(&self, at: ConsumerAt) -> &Consumer {
        // Its owner got `at` from the table, and has removed no consumer since.
        &self.members[at.0].as_ref().expect("a consumer that was not removed").consumer
    }
}

fn is_valid(members: &[Option<Member>], turn: Turn) -> bool {
    members.get(turn.at.0).and_then(Option::as_ref).is_some_and(|member| member.serial == turn.serial)
}

/// Up to this many turns of consumers that have left are kept.
const TURNS_LEFT_MIN: usize = 64;

#[cfg(test)]
mod tests;

//! [`Board`]: the calls of one service that wait, and what looks have told. Pure: the time is passed in.
//!
//! Two clocks run for each set of queues that a call may be in. `absent_since`: no queue has a consumer. That ends calls which were not
//! sent. `gone_since`: and no pool drains, either, whose handlers would still answer. That ends calls which were sent. Both
//! clocks stop at anything uncertain: a look without an answer, a connection that is blocked or was reopened.

use std::{
    collections::HashMap,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::pace::{INTERVAL_MIN, Pace};
use crate::{connection::amqp::QueueCounts, error::Error, service::ServiceDescriptor, topology};

/// The calls of one service.
#[derive(Debug, Default)]
pub(super) struct Board {
    places: Vec<Place>,
    waiting: HashMap<u64, Waiting>,
    next_id: u64,
    pace: Pace,
    /// The last look without an answer.
    unknown_at: Option<Instant>,
    /// The user may not look: it is not tried again before.
    denied_until: Option<Instant>,
    /// The last look of any kind.
    looked_at: Option<Instant>,
    /// The epoch of the connection in which the clocks run.
    epoch: u64,
}

/// The queues that a request may be in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whereabouts {
    pub(super) service: &'static ServiceDescriptor,
    pub(super) method_queue: Option<&'static str>,
    /// A handler makes the call: its request is in the queue for those, or, where there is none, in that of the method.
    pub(super) is_nested: bool,
}

impl Whereabouts {
    fn is_same(&self, other: &Self) -> bool {
        let is_same_service = std::ptr::eq(self.service, other.service);
        is_same_service && self.method_queue == other.method_queue && self.is_nested == other.is_nested
    }

    fn queues(&self) -> Vec<String> {
        let Self { service, method_queue, is_nested } = *self;
        match service.queue {
            Some(queue) => vec![queue.to_owned()],
            None if is_nested => {
                vec![topology::service_queue(service.name, method_queue), topology::nested_queue(service.name)]
            }
            None => vec![topology::service_queue(service.name, method_queue)],
        }
    }
}

#[derive(Debug)]
struct Place {
    whereabouts: Whereabouts,
    queues: Vec<String>,
    /// The last reply to one of its requests.
    heard_at: Option<Instant>,
    /// When a look saw a consumer.
    present_at: Option<Instant>,
    absent_since: Option<Instant>,
    gone_since: Option<Instant>,
    /// The last look was at its queues: a call may have come while another look was under way.
    is_seen: bool,
    /// None of its queues is there: the broker returns a request at once, and keeps nothing of it.
    is_missing: bool,
    /// Calls have ended, or were not sent, because nobody is there.
    is_reported: bool,
}

/// A call that waits.
#[derive(Debug)]
struct Waiting {
    place: usize,
    grace: Duration,
    /// How long its method usually takes.
    usual: Duration,
    since: Instant,
    stage: Stage,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be sent, perhaps: no look has ended since it came.
    New,
    /// To be sent, perhaps.
    Held,
    /// Sent, as far as the board knows.
    Sent,
    /// To be ended: nobody is there.
    Over,
}

/// How a call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is to be sent.
    Send,
    /// It ends: nobody is there.
    Nobody,
}

/// The outcome of a look.
#[derive(Debug)]
pub(super) enum Look {
    Seen(Seen),
    /// The user may not look.
    Denied(Error),
    /// Nothing: no answer came in time, the connection is blocked or away, or the broker has a trouble of its own.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Seen {
    /// That of the connection.
    pub(super) epoch: u64,
    pub(super) asked_at: Instant,
    /// By queue; `None` for one that is not there.
    pub(super) queues: HashMap<String, Option<QueueCounts>>,
    pub(super) pools: Pools,
}

/// Whether there are pools that serve or drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pools {
    Some,
    None,
    /// It was not asked, or may not be.
    Unknown,
}

/// The consequences of a look.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    pub(super) wakers: Vec<Waker>,
    /// For the log: queues that have been without workers for the grace of a call, and those that have one again.
    pub(super) deserted: Vec<String>,
    pub(super) served: Vec<String>,
    /// For the log: why the user may not look, the first time.
    pub(super) denied: Option<Error>,
}

impl Board {
    /// Takes a call in, and returns its number. It is [`held`](Self::is_held) if a look is to say first whether anybody is there: when the
    /// service was silent for long, and when the last look found nobody.
    pub(super) fn enter(&mut self, whereabouts: Whereabouts, grace: Duration, usual: Duration, now: Instant) -> u64 {
        let at = self.place(whereabouts);
        let place = &self.places[at];
        let known_at = place.heard_at.max(place.present_at).max(self.unknown_at);
        let is_known = known_at.is_some_and(|known_at| now < known_at + SILENCE) && place.absent_since.is_none();
        let stage = if is_known || self.is_denied(now) { Stage::Sent } else { Stage::New };
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id, Waiting { place: at, grace, usual, since: now, stage, waker: None });
        id
    }

    pub(super) fn is_held(&self, id: u64) -> bool {
        self.waiting.get(&id).is_some_and(Waiting::is_held)
    }

    /// How a call that was held goes on, once that is decided.
    pub(super) fn poll_held(&mut self, id: u64, waker: &Waker) -> Poll<Decision> {
        match self.waiting.get_mut(&id) {
            Some(waiting) if waiting.is_held() => waiting.pend(waker),
            Some(Waiting { stage: Stage::Over, .. }) => Poll::Ready(Decision::Nobody),
            Some(_) | None => Poll::Ready(Decision::Send),
        }
    }

    /// Ready when a call that was sent is to be ended.
    pub(super) fn poll_sent(&mut self, id: u64, waker: &Waker) -> Poll<()> {
        match self.waiting.get_mut(&id) {
            Some(Waiting { stage: Stage::Over, .. }) => Poll::Ready(()),
            Some(waiting) => waiting.pend(waker),
            None => Poll::Pending,
        }
    }

    /// Notes that the call waits no longer; `has_reply` when the service has replied.
    pub(super) fn leave(&mut self, id: u64, has_reply: bool, now: Instant) {
        if let Some(waiting) = self.waiting.remove(&id).filter(|_| has_reply) {
            let place = &mut self.places[waiting.place];
            (place.heard_at, place.gone_since) = (Some(now), None);
        }
    }

    /// Sends all calls that are held.
    pub(super) fn release(&mut self, now: Instant) -> Vec<Waker> {
        let held = self.waiting.values_mut().filter(|waiting| waiting.is_held());
        held.filter_map(|waiting| waiting.decide(Decision::Send, now)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn looked_at(&self) -> Option<Instant> {
        self.looked_at
    }

    /// When to look for that call alone; `None` when nobody may look.
    pub(super) fn look_for(&self, id: u64, now: Instant) -> Option<Instant> {
        self.waiting.get(&id).filter(|_| !self.is_denied(now)).and_then(|waiting| self.due(waiting, now))
    }

    /// When to look next; `None` when there is nothing to look for. It looks through all calls that wait, so it is for the task alone.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        if self.is_denied(now) {
            return None;
        }
        self.waiting.values().filter_map(|waiting| self.due(waiting, now)).min()
    }

    /// The queues to look at.
    pub(super) fn queues(&self) -> Vec<String> {
        let mut queues: Vec<_> =
            self.waiting.values().flat_map(|waiting| &self.places[waiting.place].queues).cloned().collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// Draws the conclusions of a look that has ended.
    pub(super) fn note(&mut self, look: Look, now: Instant) -> Consequences {
        let mut consequences = Consequences::default();
        if self.pace.is_forgotten(now) {
            self.stop_clocks();
        }
        self.looked_at = Some(now);
        let seen = match look {
            Look::Seen(seen) => seen,
            Look::Denied(error) => {
                consequences.denied = self.denied_until.is_none().then_some(error);
                self.denied_until = Some(now + DENIED_FOR);
                self.note_nothing(now, &mut consequences);
                return consequences;
            }
            Look::Unknown => {
                self.note_nothing(now, &mut consequences);
                return consequences;
            }
        };
        if seen.epoch != self.epoch {
            self.epoch = seen.epoch;
            self.stop_clocks();
        }
        let mut is_news = false;
        for place in &mut self.places {
            is_news |= place.note(&seen, now);
            if place.is_seen && place.absent_since.is_none() && std::mem::take(&mut place.is_reported) {
                consequences.served.push(place.queues.join(", "));
            }
        }
        self.pace.note(now, is_news);
        for waiting in self.waiting.values_mut() {
            let place = &mut self.places[waiting.place];
            if !place.is_seen {
                continue;
            }
            let Some(decision) = waiting.judge(place, seen.asked_at) else { continue };
            if decision == Decision::Nobody && !std::mem::replace(&mut place.is_reported, true) {
                consequences.deserted.push(place.queues.join(", "));
            }
            consequences.wakers.extend(waiting.decide(decision, now));
        }
        consequences
    }

    /// A look has told nothing: calls that are held are sent.
    fn note_nothing(&mut self, now: Instant, consequences: &mut Consequences) {
        self.pace.note(now, false);
        self.unknown_at = Some(now);
        self.stop_clocks();
        consequences.wakers = self.release(now);
    }

    fn stop_clocks(&mut self) {
        for place in &mut self.places {
            (place.absent_since, place.gone_since) = (None, None);
        }
    }

    fn is_denied(&self, now: Instant) -> bool {
        self.denied_until.is_some_and(|until| now < until)
    }

    /// When a look is due for a call.
    fn due(&self, waiting: &Waiting, now: Instant) -> Option<Instant> {
        let place = &self.places[waiting.place];
        let (earliest, next) = (self.pace.earliest(now), self.pace.next(now));
        // The look that may end it.
        let end = match waiting.stage {
            Stage::Over => return None,
            Stage::New => return Some(earliest),
            Stage::Held => place.absent_since,
            Stage::Sent => place.gone_since,
        };
        let end = end.map(|since| since + waiting.grace).filter(|end| self.looked_at.is_none_or(|at| at < *end));
        // No look just before it, which would put it off.
        let next = end.filter(|end| *end < next + INTERVAL_MIN).unwrap_or(next).max(earliest);
        Some(match (waiting.stage, place.absent_since) {
            // Silence, for longer than usual.
            (Stage::Sent, None) => next.max(waiting.since.max(place.heard_at.unwrap_or(waiting.since)) + waiting.usual),
            _ => next,
        })
    }

    fn place(&mut self, whereabouts: Whereabouts) -> usize {
        if let Some(at) = self.places.iter().position(|place| place.whereabouts.is_same(&whereabouts)) {
            return at;
        }
        self.places.push(Place {
            queues: whereabouts.queues(),
            whereabouts,
            heard_at: None,
            present_at: None,
            absent_since: None,
            gone_since: None,
            is_seen: false,
            is_missing: false,
            is_reported: false,
        });
        self.places.len() - 1
    }
}

impl Place {
    /// Returns whether it has changed.
    fn note(&mut self, seen: &Seen, now: Instant) -> bool {
        let counts: Option<Vec<_>> = self.queues.iter().map(|queue| seen.queues.get(queue).copied()).collect();
        self.is_seen = counts.is_some();
        let Some(counts) = counts else {
            // Nobody waited for it.
            (self.absent_since, self.gone_since) = (None, None);
            return false;
        };
        self.is_missing = counts.iter().all(Option::is_none);
        let was_absent = self.absent_since.is_some();
        let sum = |count: fn(QueueCounts) -> u32| counts.iter().flatten().map(|counts| u64::from(count(*counts))).sum();
        let (consumers, ready): (u64, u64) = (sum(|counts| counts.consumers), sum(|counts| counts.ready));
        if consumers > 0 {
            (self.present_at, self.absent_since, self.gone_since) = (Some(now), None, None);
        } else if ready == 0 && !self.is_missing && seen.pools == Pools::Some {
            // RabbitMQ says the same of a quorum queue whose leader does not answer it.
            (self.absent_since, self.gone_since) = (None, None);
        } else {
            self.absent_since.get_or_insert(now);
            let is_gone = match seen.pools {
                Pools::Some => false,
                Pools::None => true,
                // A request that is not in the queue is with someone who has stopped consuming.
                Pools::Unknown => ready > 0,
            };
            self.gone_since = self.gone_since.or(Some(now)).filter(|_| is_gone);
        }
        was_absent != self.absent_since.is_some()
    }
}

impl Waiting {
    fn is_held(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Held)
    }

    fn pend<T>(&mut self, waker: &Waker) -> Poll<T> {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Decides by the last look, which was begun at that time.
    fn judge(&mut self, place: &Place, asked_at: Instant) -> Option<Decision> {
        let has_lasted = |since: Option<Instant>| since.is_some_and(|since| asked_at >= since + self.grace);
        match self.stage {
            Stage::New | Stage::Held if place.absent_since.is_none() || place.is_missing => Some(Decision::Send),
            Stage::New | Stage::Held => {
                self.stage = Stage::Held;
                has_lasted(place.absent_since).then_some(Decision::Nobody)
            }
            Stage::Sent => has_lasted(place.gone_since).then_some(Decision::Nobody),
            Stage::Over => None,
        }
    }

    fn decide(&mut self, decision: Decision, now: Instant) -> Option<Waker> {
        match decision {
            Decision::Send => (self.stage, self.since) = (Stage::Sent, now),
            Decision::Nobody => self.stage = Stage::Over,
        }
        self.waker.take()
    }
}

/// After a reply, or a look that found workers, calls are sent without a look for this long.
const SILENCE: Duration = Duration::from_secs(1);
/// A user's rights may change.
const DENIED_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

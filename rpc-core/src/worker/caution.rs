//! A lane's memory of refusals: which replies must not travel on its channel, and which requests have cost it one already.
//!
//! ```text
//!  the broker closes the lane's channel ──► all replies apart, until some were confirmed; the size it names ──► limit
//!                                      └──► requests that are redelivered after that: counted, abandoned at the second loss
//! ```
//!
//! It belongs to the lane, over all the consumers it has in its life, and costs a request that is not redelivered one comparison.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    connection::{Delivery, amqp::Refusal},
    error::Error,
    lock::lock,
};

/// The lessons that a lane has drawn from refusals of its broker.
#[derive(Debug)]
pub(super) struct Caution {
    /// Bodies of this size and larger do not travel on the lane's channel.
    apart_from_bytes: AtomicUsize,
    /// Confirmed replies that must follow a refusal before others share the lane's channel again.
    trial: AtomicU32,
    /// The largest message the broker takes, and when it said so.
    limit: Mutex<Option<(usize, Instant)>>,
    /// How often the broker has closed the lane's channel.
    closed: AtomicU32,
    losses: Mutex<Losses>,
}

impl Caution {
    pub(super) fn new() -> Self {
        Self {
            apart_from_bytes: AtomicUsize::new(LARGE_BYTES),
            trial: AtomicU32::new(0),
            limit: Mutex::default(),
            closed: AtomicU32::new(0),
            losses: Mutex::default(),
        }
    }

    /// Whether a reply of this size travels on a channel of its own.
    pub(super) fn is_apart(&self, body_bytes: usize) -> bool {
        body_bytes >= self.apart_from_bytes.load(Ordering::Relaxed)
    }

    /// The largest message the broker takes, if it has said so lately: it may have been restarted with another limit.
    pub(super) fn limit_bytes(&self) -> Option<usize> {
        let limit = *lock(&self.limit);
        limit.filter(|(_, since)| since.elapsed() < LIMIT_AGE_MAX).map(|(bytes, _)| bytes)
    }

    /// Notes that a reply which travelled apart was confirmed.
    pub(super) fn confirmed(&self) {
        if self.trial.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Two at once may count twice, which ends the trial a little earlier.
        if self.trial.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.trial.store(0, Ordering::Relaxed);
            let limit = self.limit_bytes().map_or(LARGE_BYTES, |limit| LARGE_BYTES.min(limit.saturating_add(1)));
            self.apart_from_bytes.store(limit, Ordering::Relaxed);
        }
    }

    /// Takes the limit that the broker names in the refusal of a message that was too large.
    pub(super) fn learn_limit(&self, error: &Error) {
        let Some(limit) = Refusal::of(error).and_then(|refusal| refusal.message_max_bytes()) else { return };
        *lock(&self.limit) = Some((limit, Instant::now()));
        self.apart_from_bytes.fetch_min(limit.saturating_add(1), Ordering::Relaxed);
    }

    /// Notes why the lane has lost its channel. Only a refusal counts: an ended connection says nothing about the requests.
    pub(super) fn note_loss(&self, error: &Error) {
        if !matches!(error, Error::Refused { .. }) {
            return;
        }
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.learn_limit(error);
        self.trial.store(TRIAL_REPLIES, Ordering::Relaxed);
        self.apart_from_bytes.store(0, Ordering::Relaxed);
    }

    /// How often a redelivered request was here when the broker closed the lane's channel.
    pub(super) fn losses(&self, delivery: &Delivery) -> u32 {
        match self.closed.load(Ordering::Relaxed) {
            0 => 0,
            closed => self.memory().count(delivery, closed),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Losses> {
        lock(&self.losses)
    }
}

/// Requests that were redelivered after a refusal, by a hash of their names; bounded in number.
#[derive(Debug, Default)]
struct Losses {
    counts: HashMap<u64, Loss>,
    /// The oldest first.
    ages: VecDeque<u64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Loss {
    losses: u32,
    /// How often the channel had been closed when this was counted.
    closed: u32,
}

impl Losses {
    fn count(&mut self, delivery: &Delivery, closed: u32) -> u32 {
        let hash = self.name(delivery);
        if !self.counts.contains_key(&hash) {
            self.ages.push_back(hash);
            if self.ages.len() > LOSSES_MAX
                && let Some(oldest) = self.ages.pop_front()
            {
                self.counts.remove(&oldest);
            }
        }
        let loss = self.counts.entry(hash).or_default();
        // Once for each refusal, however often the request is delivered in between.
        if loss.closed != closed {
            loss.closed = closed;
            loss.losses += 1;
        }
        loss.losses
    }

    /// The `message_id`, otherwise reply_to and correlation_id; the body of a request that has neither.
    fn name(&self, delivery: &Delivery) -> u64 {
        let key = delivery.routing_key();
        match (delivery.message_id(), delivery.reply_to(), delivery.correlation_id_bytes()) {
            (Some(message_id), ..) => self.hasher.hash_one((key, message_id)),
            (None, Some(reply_to), Some(correlation_id)) => self.hasher.hash_one((key, reply_to, correlation_id)),
            _ => self.hasher.hash_one((key, delivery.body())),
        }
    }
}

/// Larger replies wait for a confirm of their own. As large as a frame by default, and below every sensible limit of a broker.
const LARGE_BYTES: usize = 128 << 10;
/// After so many confirmed replies the lane's channel is shared again.
const TRIAL_REPLIES: u32 = 64;
/// A limit that was learnt is tried again after this.
const LIMIT_AGE_MAX: Duration = Duration::from_secs(60);
/// Requests remembered for each lane: 64 kB.
const LOSSES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NewDelivery;

    fn refused(reply_text: &str) -> Error {
        Error::Refused { operation: "consume".to_owned(), reply_code: 406, reply_text: reply_text.to_owned() }
    }

    fn request(message_id: Option<&str>, correlation_id: &str) -> Delivery {
        let mut delivery = NewDelivery { redelivered: true, reply_to: Some("q".to_owned()), ..NewDelivery::default() };
        delivery.message_id = message_id.map(str::to_owned);
        delivery.correlation_id = Some(correlation_id.to_owned());
        delivery.make().unwrap()
    }

    #[test]
    fn after_a_refusal_every_reply_travels_apart_until_enough_are_confirmed() {
        let caution = Caution::new();
        assert!(!caution.is_apart(10) && caution.is_apart(LARGE_BYTES));
        caution.note_loss(&Error::Disconnected { reason: "reset".to_owned() });
        assert!(!caution.is_apart(10), "a lost connection is no refusal");
        caution.note_loss(&refused("PRECONDITION_FAILED - message size 9000 larger than max size 5000"));
        assert!(caution.is_apart(0) && caution.limit_bytes() == Some(5_000));
        (1..TRIAL_REPLIES).for_each(|_| caution.confirmed());
        assert!(caution.is_apart(0));
        caution.confirmed();
        assert!(!caution.is_apart(5_000) && caution.is_apart(5_001));
    }

    #[test]
    fn a_request_is_counted_once_for_each_refusal_by_its_name() {
        let caution = Caution::new();
        assert_eq!(caution.losses(&request(None, "1")), 0);
        caution.note_loss(&refused("x"));
        for _ in 0..3 {
            assert_eq!(caution.losses(&request(None, "1")), 1);
        }
        caution.note_loss(&refused("x"));
        assert_eq!(caution.losses(&request(None, "1")), 2);
        assert_eq!(caution.losses(&request(None, "2")), 1);
        assert_eq!(caution.losses(&request(Some("m"), "1")), 1, "the message_id is the name");
        for id in 0..2 * LOSSES_MAX {
            caution.losses(&request(None, &format!("n{id}")));
        }
        assert_eq!(caution.memory().counts.len(), LOSSES_MAX);
    }
}

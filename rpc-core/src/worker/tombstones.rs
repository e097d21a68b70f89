//! Calls that were given up, whose requests may still come: a pool's lanes skip them.
//!
//! Bounded in number and age, and so in bytes; the newest stay. Only a hash of a call's two names is kept, under a key of this process: that
//! the hash of another call is the same has a probability of 10^-14 for each request, and cannot be brought about.

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{connection::Delivery, lock::lock};

/// The tombstones of a pool, which its lanes share.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Looked at for every request: mostly there are none.
    len: AtomicUsize,
    kept: Mutex<Kept>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kept {
    hashes: HashSet<u64>,
    /// In order of age.
    by_age: VecDeque<u64>,
    /// How many of them are of each second.
    seconds: VecDeque<(Instant, usize)>,
}

impl Tombstones {
    /// Notes calls of one client that `user_id` has cancelled; the oldest ones are forgotten when there are too many.
    pub(super) fn insert<'a>(
        &self,
        reply_to: &[u8],
        user_id: Option<&str>,
        ids: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) {
        let mut kept = lock(&self.kept);
        kept.forget_old(now);
        for id in ids {
            // For a request that names no user, and for one that names this one.
            kept.insert(self.hash(reply_to, None, id), now);
            if user_id.is_some() {
                kept.insert(self.hash(reply_to, user_id, id), now);
            }
        }
        self.len.store(kept.by_age.len(), Ordering::Relaxed);
    }

    /// Whether the call that wants this request was given up. A tombstone stays until it is old: a request may be delivered, lost with its
    /// worker's channel, and redelivered.
    pub(super) fn is_given_up(&self, request: &Delivery, now: Instant) -> bool {
        if self.len.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let (Some(reply_to), Some(id)) = (request.reply_to(), request.correlation_id_bytes()) else { return false };
        self.has(reply_to, request.user_id(), id, now)
    }

    fn has(&self, reply_to: &[u8], user_id: Option<&str>, id: &[u8], now: Instant) -> bool {
        let mut kept = lock(&self.kept);
        kept.forget_old(now);
        self.len.store(kept.by_age.len(), Ordering::Relaxed);
        kept.hashes.contains(&self.hash(reply_to, user_id, id))
    }

    fn hash(&self, reply_to: &[u8], user_id: Option<&str>, id: &[u8]) -> u64 {
        self.hasher.hash_one((reply_to, user_id, id))
    }
}

impl Kept {
    fn insert(&mut self, hash: u64, now: Instant) {
        if self.hashes.contains(&hash) {
            return;
        }
        if self.by_age.len() >= LEN_MAX {
            self.forget_oldest();
        }
        self.hashes.insert(hash);
        self.by_age.push_back(hash);
        match self.seconds.back_mut() {
            Some((since, count)) if now.saturating_duration_since(*since) < SECOND => *count += 1,
            _ => self.seconds.push_back((now, 1)),
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while self.seconds.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > AGE_MAX) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(hash) = self.by_age.pop_front() {
            self.hashes.remove(&hash);
        }
        if let Some((_, count)) = self.seconds.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.seconds.pop_front();
            }
        }
    }
}

/// 3.4 MB: a set of half of 2^18 places of 9 bytes, which never grows beyond them, and a queue of 2^17 times 8.
const LEN_MAX: usize = 114_688;
/// A request that is queued longer than this after its caller gave up is executed.
const AGE_MAX: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NewDelivery;

    fn note(tombstones: &Tombstones, ids: std::ops::Range<usize>, now: Instant) {
        let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
        tombstones.insert(b"q", None, ids.iter().map(String::as_bytes), now);
    }

    #[test]
    fn tombstones_are_of_one_call_and_grow_old() {
        let (tombstones, now) = (Tombstones::default(), Instant::now());
        note(&tombstones, 1..3, now);
        note(&tombstones, 2..4, now + 2 * SECOND);
        assert!(tombstones.has(b"q", None, b"1", now) && tombstones.has(b"q", None, b"3", now));
        assert!(!tombstones.has(b"another", None, b"2", now) && !tombstones.has(b"q", None, b"4", now));
        let later = now + AGE_MAX + SECOND;
        assert!(!tombstones.has(b"q", None, b"2", later) && tombstones.has(b"q", None, b"3", later));
        assert!(!tombstones.has(b"q", None, b"3", later + 2 * SECOND));
        assert_eq!(tombstones.len.load(Ordering::Relaxed), 0);
        let kept = lock(&tombstones.kept);
        assert!(kept.hashes.is_empty() && kept.seconds.is_empty());
    }

    #[test]
    fn the_newest_of_many_are_kept_in_four_megabytes() {
        let (tombstones, now) = (Tombstones::default(), Instant::now());
        for second in 0..8 {
            let first = second * LEN_MAX / 2;
            note(&tombstones, first..first + LEN_MAX / 2, now + SECOND * u32::try_from(second).unwrap());
        }
        let end = now + 8 * SECOND;
        let has = |id: usize| tombstones.has(b"q", None, id.to_string().as_bytes(), end);
        assert!(has(4 * LEN_MAX - 1) && has(3 * LEN_MAX));
        assert!(!has(3 * LEN_MAX - 1) && !has(0));
        let kept = lock(&tombstones.kept);
        let bytes = kept.hashes.capacity() * 8 / 7 * 9 + kept.by_age.capacity() * 8 + kept.seconds.capacity() * 24;
        assert!(bytes <= 4 << 20, "{bytes}");
    }

    #[test]
    fn a_cancel_of_another_user_counts_for_no_request() {
        let request = |user_id: Option<&str>| {
            let (reply_to, correlation_id) = (Some("q".to_owned()), Some("1".to_owned()));
            let user_id = user_id.map(str::to_owned);
            NewDelivery { reply_to, correlation_id, user_id, ..NewDelivery::default() }.make().unwrap()
        };
        let now = Instant::now();
        for (cancel, asked, counts) in [
            (None, None, true),
            (Some("eve"), None, true),
            (Some("alice"), Some("alice"), true),
            (Some("eve"), Some("alice"), false),
            (None, Some("alice"), false),
        ] {
            let tombstones = Tombstones::default();
            tombstones.insert(b"q", cancel, [&b"1"[..]].into_iter(), now);
            assert_eq!(tombstones.is_given_up(&request(asked), now), counts, "{cancel:?} {asked:?}");
        }
    }
}

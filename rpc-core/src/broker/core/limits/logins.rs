//! Failed logins: whose further answers have to wait. Pure.
//!
//! ```text
//!  failures of an address in a minute            > 5: the answer to its next failure waits
//!  failures of a user from an address            > 5: the next answer to that user from there waits, good or bad
//! ```
//!
//! A user's own failures from elsewhere do not count, so that no stranger can delay a user, and a good login of another
//! user from the same address never waits.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::broker::core::random::leading_bits;

/// The failed logins of the last minute.
#[derive(Debug, Default)]
pub(crate) struct FailedLogins {
    of_origins: Failures,
    of_users: Failures,
}

impl FailedLogins {
    /// How long the answer to a login has to wait; `None` if it does not. A failed one is counted.
    pub(crate) fn pause(&mut self, origin: &str, user: &str, is_good: bool, now: Instant) -> Option<Duration> {
        if is_good && self.of_users.counts.is_empty() {
            return None;
        }
        let of_user = key(&[origin.as_bytes(), b"\0", user.as_bytes()]);
        let is_slow = match is_good {
            true => self.of_users.count(of_user, now) >= FREE_FAILURES,
            false => {
                let of_user = self.of_users.add(of_user, now);
                let of_origin = self.of_origins.add(key(&[origin.as_bytes()]), now);
                of_user.max(of_origin) > FREE_FAILURES
            }
        };
        is_slow.then_some(PAUSE)
    }
}

/// Failures by the hash of their origin, so that long names take no memory.
#[derive(Debug, Default)]
struct Failures {
    counts: HashMap<u128, u32>,
    /// The keys by the time of their first failure.
    begun: VecDeque<(Instant, u128)>,
}

impl Failures {
    /// Adds a failure, and returns how many there are within a minute of the first one.
    fn add(&mut self, key: u128, now: Instant) -> u32 {
        self.forget(now);
        let count = self.counts.entry(key).or_insert_with(|| {
            self.begun.push_back((now, key));
            0
        });
        *count = count.saturating_add(1);
        *count
    }

    fn count(&mut self, key: u128, now: Instant) -> u32 {
        self.forget(now);
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// Forgets what is a minute old, and the oldest beyond the bound.
    fn forget(&mut self, now: Instant) {
        while let Some(&(begun, key)) = self.begun.front()
            && (now.saturating_duration_since(begun) >= MEMORY || self.begun.len() >= KEYS_MAX)
        {
            self.begun.pop_front();
            self.counts.remove(&key);
        }
    }
}

fn key(parts: &[&[u8]]) -> u128 {
    leading_bits(&parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize())
}

/// Failures in a minute before answers wait.
const FREE_FAILURES: u32 = 5;
/// How long such an answer waits.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(60);
/// Addresses, and users at addresses, that are remembered: about a megabyte of each.
const KEYS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_failure_of_a_minute_waits() {
        let (mut logins, now) = (FailedLogins::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(logins.pause("a", "ann", false, now), None);
        }
        assert_eq!(logins.pause("a", "ann", false, now), Some(PAUSE));
        assert_eq!(logins.pause("a", "eve", false, now), Some(PAUSE), "another user of that address");
        assert_eq!(logins.pause("b", "ann", false, now), None, "another address");
        assert_eq!(logins.pause("a", "ann", false, now + MEMORY), None, "a minute later");
    }

    #[test]
    fn a_good_login_waits_only_where_its_own_user_has_failed() {
        let (mut logins, now) = (FailedLogins::default(), Instant::now());
        for _ in 0..9 {
            logins.pause("a", "ann", false, now);
        }
        assert_eq!(logins.pause("a", "ann", true, now), Some(PAUSE), "or the answer would tell at once");
        assert_eq!(logins.pause("a", "eve", true, now), None);
        assert_eq!(logins.pause("b", "ann", true, now), None, "no stranger locks a user out");
        assert_eq!(logins.pause("a", "ann", true, now + MEMORY), None);
    }

    #[test]
    fn a_million_names_take_bounded_memory() {
        let (mut logins, now) = (FailedLogins::default(), Instant::now());
        for number in 0..3 * KEYS_MAX {
            logins.pause(&number.to_string(), "ann", false, now);
        }
        assert_eq!((logins.of_users.counts.len(), logins.of_origins.begun.len()), (KEYS_MAX, KEYS_MAX));
    }
}

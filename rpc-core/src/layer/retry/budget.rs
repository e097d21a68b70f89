//! [`RetryBudget`]: bounds the share of attempts that are not the first ones.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::lock::lock;

/// Bounds the share of further attempts, so that retries do not bury a service that is overloaded already. Clones share it.
///
/// A token bucket: each call adds a part of a token, each second some, and each further attempt takes one. Without a token the call
/// ends with its error. A full bucket holds 100 tokens, and a new one those of ten seconds.
///
/// ```
/// use rpc_core::RetryBudget;
///
/// // For 100 calls 20 further attempts, and 2 a second in any case.
/// let budget = RetryBudget::percent(20).min_per_s(2);
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    percent: u32,
    min_per_s: u32,
    bucket: Arc<Mutex<Bucket>>,
}

struct Bucket {
    /// A hundredth of a token is the least part that a call adds.
    hundredths: u64,
    /// When the tokens of the time before were added.
    refilled_at: Option<Instant>,
}

impl Default for RetryBudget {
    /// 10 % of the calls, and one attempt a second.
    fn default() -> Self {
        Self::new(10, 1)
    }
}

impl RetryBudget {
    /// A budget of so many further attempts for 100 calls, and one a second in any case.
    pub fn percent(percent: u32) -> Self {
        Self::new(percent, 1)
    }

    /// A new budget with the same share, and this many attempts a second in any case. The default is 1.
    #[must_use]
    pub fn min_per_s(self, min_per_s: u32) -> Self {
        Self::new(self.percent, min_per_s)
    }

    fn new(percent: u32, min_per_s: u32) -> Self {
        let hundredths = (u64::from(min_per_s) * 10 * TOKEN).min(HUNDREDTHS_MAX);
        Self { percent, min_per_s, bucket: Arc::new(Mutex::new(Bucket { hundredths, refilled_at: None })) }
    }

    /// Adds the part of a call.
    pub(super) fn deposit(&self, now: Instant) {
        let mut bucket = lock(&self.bucket);
        bucket.refill(now, self.min_per_s);
        bucket.add(self.percent.into());
    }

    /// Takes a token; false when there is none.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let mut bucket = lock(&self.bucket);
        bucket.refill(now, self.min_per_s);
        let left = bucket.hundredths.checked_sub(TOKEN);
        bucket.hundredths = left.unwrap_or(bucket.hundredths);
        left.is_some()
    }
}

impl Bucket {
    /// Adds the tokens of the time that has passed.
    fn refill(&mut self, now: Instant, min_per_s: u32) {
        let Some(refilled_at) = self.refilled_at else {
            self.refilled_at = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(refilled_at);
        let per_s = u128::from(min_per_s) * u128::from(TOKEN);
        let hundredths = passed.as_nanos() * per_s / NANOS_PER_S;
        if hundredths > 0 {
            // Less than the least part stays in the time that has passed.
            let counted = (hundredths * NANOS_PER_S).div_ceil(per_s);
            let counted = Duration::from_nanos(counted.try_into().unwrap_or(u64::MAX)).min(passed);
            self.refilled_at = Some(refilled_at + counted);
            self.add(u64::try_from(hundredths).unwrap_or(HUNDREDTHS_MAX));
        }
    }

    fn add(&mut self, hundredths: u64) {
        self.hundredths = self.hundredths.saturating_add(hundredths).min(HUNDREDTHS_MAX);
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = Duration::from_millis(lock(&self.bucket).hundredths * 10).as_secs_f64();
        f.debug_struct("RetryBudget")
            .field("percent", &self.percent)
            .field("min_per_s", &self.min_per_s)
            .field("tokens", &tokens)
            .finish()
    }
}

const NANOS_PER_S: u128 = 1_000_000_000;
/// In hundredths.
const TOKEN: u64 = 100;
/// The contents of a full bucket.
const HUNDREDTHS_MAX: u64 = 100 * TOKEN;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &RetryBudget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_tenth_of_the_calls_and_one_a_second_may_be_repeated() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        assert_eq!(drain(&budget, now), 10, "those of ten seconds to begin with");
        for _ in 0..500 {
            budget.deposit(now);
        }
        assert_eq!(drain(&budget.clone(), now), 50, "clones share it");
        assert_eq!(drain(&budget, now + Duration::from_millis(999)), 0);
        assert_eq!(drain(&budget, now + Duration::from_millis(1_000)), 1, "no part of the time is lost");
        assert_eq!(drain(&budget, now + Duration::from_secs(8)), 7);
        for ms in (8_000..18_000).step_by(19) {
            budget.bucket.lock().unwrap().refill(now + Duration::from_millis(ms), 1);
        }
        assert_eq!(drain(&budget, now + Duration::from_secs(18)), 10, "however often one looks");
        assert_eq!(drain(&budget, now + Duration::from_secs(10_000)), 100, "a full bucket");
    }

    #[test]
    fn share_and_minimum_can_be_set_and_a_budget_of_nothing_allows_nothing() {
        let now = Instant::now();
        let none = RetryBudget::percent(0).min_per_s(0);
        none.deposit(now);
        assert_eq!(drain(&none, now + Duration::from_secs(3_600)), 0);
        let all = RetryBudget::percent(100).min_per_s(0);
        for _ in 0..30 {
            all.deposit(now);
        }
        assert_eq!(format!("{all:?}"), "RetryBudget { percent: 100, min_per_s: 0, tokens: 30.0 }");
        assert_eq!(drain(&all, now), 30);
        assert_eq!(drain(&RetryBudget::percent(0).min_per_s(50), now), 100);
    }
}

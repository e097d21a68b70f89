//! How late requests arrive, by the clocks of their callers.
//!
//! `expiration` counts from a request's arrival, so a request that was held up on its way (a frozen broker, a frozen worker) has all of
//! its budget left when its caller has given up. The header `rpc-deadline` says when that is by the caller's clock. No two clocks agree, so
//! times of different clocks are never compared: the smallest difference between the arrival and the sending of a caller's requests
//! stands for both clocks' difference, and a request that exceeds it is late by the rest.
//!
//! ```text
//!  arrived - sent = difference of the clocks + time under way       sent = rpc-deadline - expiration
//!  late           = this request's - the smallest one of the same caller in the last minute
//! ```
//!
//! The first request of a caller teaches, and is not late. Pure: time is an argument.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

use tokio::time::Instant;

use crate::{
    connection::{Delivery, amqp::Urgency},
    topology,
};

/// The clocks of the callers of a lane, as far as it knows them. Its memory is bounded: [`CALLERS_MAX`].
pub(super) struct Callers {
    began: Instant,
    /// The caller of the last request, because most requests have the caller of the one before.
    last: Vec<u8>,
    last_reply_to: Vec<u8>,
    last_clock: Clock,
    /// The others, by a hash of their names.
    others: HashMap<u64, Clock>,
    hasher: RandomState,
}

impl Callers {
    pub(super) fn new(began: Instant) -> Self {
        let (last, last_reply_to, last_clock) = (Vec::new(), Vec::new(), Clock::UNKNOWN);
        Self { began, last, last_reply_to, last_clock, others: HashMap::new(), hasher: RandomState::new() }
    }

    /// The budget that is left of a request that has just arrived, in milliseconds.
    pub(super) fn budget_ms(&mut self, request: &Delivery, now: Instant) -> Option<u64> {
        let Urgency { reply_to, budget_ms, deadline_ms } = request.urgency();
        let budget_ms = budget_ms?;
        let (Some(deadline_ms), Some(reply_to)) = (deadline_ms, reply_to) else { return Some(budget_ms) };
        let since = now.saturating_duration_since(self.began);
        let now_ms = since.as_secs().cast_signed() * 1_000 + i64::from(since.subsec_millis());
        let sent_ms = deadline_ms.saturating_sub_unsigned(budget_ms);
        if reply_to != self.last_reply_to {
            self.turn_to(caller(reply_to));
            self.last_reply_to.clear();
            self.last_reply_to.extend_from_slice(reply_to);
        }
        let late_ms = self.last_clock.note(now_ms.saturating_sub(sent_ms), now_ms);
        Some(budget_ms.saturating_sub(late_ms.saturating_sub(MARGIN_MS)))
    }

    fn turn_to(&mut self, caller: &[u8]) {
        if caller == self.last {
            return;
        }
        if self.others.len() >= CALLERS_MAX {
            // Each of them teaches again. Choosing the ones to keep would cost a search for every caller that comes.
            self.others.clear();
        }
        self.others.insert(self.hasher.hash_one(&*self.last), self.last_clock);
        self.last_clock = self.others.remove(&self.hasher.hash_one(caller)).unwrap_or(Clock::UNKNOWN);
        self.last.clear();
        self.last.extend_from_slice(caller);
    }
}

/// The part of a reply queue's name that a client keeps when it reconnects: all but the epoch.
fn caller(reply_to: &[u8]) -> &[u8] {
    match reply_to.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if topology::is_reply_queue(reply_to) => &reply_to[..dot],
        _ => reply_to,
    }
}

/// The clock of a caller, compared with this one.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// The smallest difference since `since_ms`.
    least_ms: i64,
    /// The smallest one of the period before, so that the present period begins with knowledge.
    before_ms: i64,
    since_ms: i64,
}

impl Clock {
    const UNKNOWN: Self = Self { least_ms: i64::MAX, before_ms: i64::MAX, since_ms: 0 };

    /// Notes a difference; returns by how much it exceeds the smallest one.
    fn note(&mut self, difference_ms: i64, now_ms: i64) -> u64 {
        if now_ms - self.since_ms > PERIOD_MS {
            (self.before_ms, self.least_ms, self.since_ms) = (self.least_ms, i64::MAX, now_ms);
        }
        self.least_ms = self.least_ms.min(difference_ms);
        difference_ms.saturating_sub(self.least_ms.min(self.before_ms)).unsigned_abs()
    }
}

/// Clocks drift: a smallest difference counts for one to two periods in which the caller calls. At 500 ppm, the most that NTP corrects, they
/// differ by 30 ms then.
const PERIOD_MS: i64 = 30_000;
/// Lateness that is not believed: drift, and milliseconds that are rounded.
const MARGIN_MS: u64 = 100;
/// About 150 kB a lane.
const CALLERS_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connection::NewDelivery;

    const HOUR_MS: i64 = 3_600_000;

    /// A lane whose clock shows zero at first.
    struct Lane {
        callers: Callers,
        began: Instant,
    }

    impl Lane {
        fn new() -> Self {
            let began = Instant::now();
            Self { callers: Callers::new(began), began }
        }

        /// The budget left of a request of 1 s that `caller` sent at `sent_ms` by its own clock.
        fn budget_ms(&mut self, caller: &str, sent_ms: i64, arrived_ms: u64) -> u64 {
            let headers = vec![("rpc-deadline".to_owned(), (sent_ms + 1_000).into())];
            let reply_to = Some(caller.to_owned());
            let request = NewDelivery { headers, reply_to, expiration_ms: Some(1_000), ..NewDelivery::default() };
            let now = self.began + Duration::from_millis(arrived_ms);
            self.callers.budget_ms(&request.make().unwrap(), now).unwrap()
        }
    }

    #[test]
    fn clocks_an_hour_apart_cost_no_budget() {
        for ahead_ms in [-HOUR_MS, 0, HOUR_MS] {
            let mut lane = Lane::new();
            // For ten minutes, under way for 3 to 12 ms, by clocks that drift by 100 ppm.
            for n in 0..10_000_u32 {
                let arrived_ms = u64::from(n) * 60 + 500;
                let under_way_ms = i64::from(3 + n % 10);
                let sent_ms = arrived_ms.cast_signed() - under_way_ms + ahead_ms - i64::from(n / 166);
                assert_eq!(lane.budget_ms("rpc.reply.a.1", sent_ms, arrived_ms), 1_000, "{n}");
            }
        }
    }

    #[test]
    fn a_request_that_was_held_up_has_the_rest_of_its_budget_in_every_epoch_of_its_caller() {
        let mut lane = Lane::new();
        assert_eq!(lane.budget_ms("rpc.reply.a.1", HOUR_MS, 5), 1_000, "the first one teaches");
        assert_eq!(lane.budget_ms("rpc.reply.a.1", HOUR_MS + 100, 505), 700, "400 ms late, 100 of them not believed");
        assert_eq!(lane.budget_ms("rpc.reply.a.2", HOUR_MS + 200, 61_000), 0);
        assert_eq!(lane.budget_ms("rpc.reply.b.1", 0, 62_000), 1_000, "another caller has another clock");
        assert_eq!(lane.budget_ms("rpc.reply.a.2", HOUR_MS + 300, 62_001), 0, "which is not forgotten meanwhile");
        assert_eq!(lane.budget_ms("rpc.reply.a.2", HOUR_MS + 62_000, 62_006), 1_000);
    }

    #[test]
    fn a_clock_that_was_set_costs_budgets_for_a_minute_of_calls() {
        let mut lane = Lane::new();
        for second in 0..200_i64 {
            let set_back_ms = if second < 50 { 0 } else { 10_000 };
            let left_ms = lane.budget_ms("rpc.reply.a.1", second * 1_000 - set_back_ms, second.unsigned_abs() * 1_000);
            match second {
                0..50 | 116.. => assert_eq!(left_ms, 1_000, "{second}"),
                50..80 => assert_eq!(left_ms, 0, "{second}"),
                // Between the two it depends on where the periods begin.
                _ => {}
            }
        }
    }

    #[test]
    fn strange_deadlines_and_many_callers_are_borne() {
        let mut lane = Lane::new();
        for n in 0..10 * CALLERS_MAX as u64 {
            let strange = [i64::MIN, i64::MAX - 1_000, 0][n as usize % 3];
            lane.budget_ms(&format!("rpc.reply.{n}.1"), strange, n);
            lane.budget_ms("rpc.reply.a.1", strange, n);
        }
        assert!(lane.callers.others.len() <= CALLERS_MAX + 1);
        let request = NewDelivery { expiration_ms: Some(7), ..NewDelivery::default() };
        assert_eq!(lane.callers.budget_ms(&request.make().unwrap(), lane.began), Some(7), "without the header");
    }
}

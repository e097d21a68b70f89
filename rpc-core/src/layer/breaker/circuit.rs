//! [`Circuit`]: the counts of one service, and what follows from them.

use std::time::Duration;

use tokio::time::Instant;

use crate::layer::{
    ended::{code_of, is_from_service},
    response::{BoxError, Response},
};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) minimum_calls: u32,
    pub(super) failure_rate: f64,
    pub(super) window: Duration,
    pub(super) open_for: Duration,
}

impl Rules {
    pub(super) const DEFAULT: Self = Self {
        minimum_calls: 20,
        failure_rate: 0.5,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
    };
}

/// The state of a [`CircuitBreaker`](super::CircuitBreaker), which decides over calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// They go through, and are counted.
    Closed,
    /// They end at once.
    Open,
    /// The pause is over: one of them is tried, and the others end at once.
    HalfOpen,
}

/// The meaning of a call's end for the state of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure,
    Neither,
}

impl Verdict {
    pub(super) fn of(answered: &Result<Response, BoxError>) -> Self {
        match code_of(answered) {
            // Also under a code of its own.
            _ if is_from_service(answered) => Self::Success,
            "timeout" | "disconnected" | "internal" | "overloaded" => Self::Failure,
            _ => Self::Neither,
        }
    }
}

#[derive(Debug)]
pub(super) enum Circuit {
    Closed(Window),
    Open {
        until: Instant,
    },
    /// A call is being tried.
    Trying {
        since: Instant,
    },
}

impl Circuit {
    pub(super) fn new(now: Instant) -> Self {
        Self::Closed(Window::new(now))
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self {
            Self::Closed(_) => BreakerState::Closed,
            Self::Open { until } if *until > now => BreakerState::Open,
            Self::Open { .. } | Self::Trying { .. } => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through, and says whether it is the one that is tried; or says after which time the next one is.
    pub(super) fn admit(&mut self, rules: &Rules, now: Instant) -> Result<bool, Duration> {
        match self {
            Self::Closed(_) => Ok(false),
            Self::Open { until } if *until > now => Err(until.saturating_duration_since(now)),
            // A call that is tried for longer than the pause may never end.
            Self::Trying { since } if now.saturating_duration_since(*since) < rules.open_for => {
                Err(rules.open_for.saturating_sub(now.saturating_duration_since(*since)))
            }
            Self::Open { .. } | Self::Trying { .. } => {
                *self = Self::Trying { since: now };
                Ok(true)
            }
        }
    }

    /// Notes the end of a call that was let through; true when it opens the circuit.
    pub(super) fn note(&mut self, rules: &Rules, verdict: Verdict, is_trial: bool, now: Instant) -> bool {
        match (&mut *self, verdict) {
            (Self::Closed(window), Verdict::Success | Verdict::Failure) => {
                window.note(rules.window, verdict == Verdict::Failure, now);
                if !window.is_failing(rules) {
                    return false;
                }
            }
            (Self::Trying { .. }, Verdict::Success) if is_trial => {
                *self = Self::new(now);
                return false;
            }
            (Self::Trying { .. }, Verdict::Neither) if is_trial => {
                // The next one is tried at once.
                *self = Self::Open { until: now };
                return false;
            }
            (Self::Trying { .. }, Verdict::Failure) if is_trial => {}
            // A call that began before the circuit opened.
            (Self::Open { .. } | Self::Trying { .. }, _) | (Self::Closed(_), Verdict::Neither) => return false,
        }
        *self = Self::Open { until: now.checked_add(rules.open_for).unwrap_or(now) };
        true
    }
}

/// The calls of the last time, in slices of it.
#[derive(Debug)]
pub(super) struct Window {
    slices: [Slice; SLICES],
    /// The youngest.
    current: usize,
    /// When the youngest one began.
    began: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { slices: [Slice::default(); SLICES], current: 0, began: now }
    }

    fn note(&mut self, window: Duration, is_failure: bool, now: Instant) {
        let slice = window / SLICES as u32;
        let passed = now.saturating_duration_since(self.began).as_nanos() / slice.as_nanos().max(1);
        for _ in 0..passed.min(SLICES as u128) {
            self.current = (self.current + 1) % SLICES;
            self.slices[self.current] = Slice::default();
        }
        if passed > 0 {
            self.began = now;
        }
        let slice = &mut self.slices[self.current];
        slice.calls = slice.calls.saturating_add(1);
        slice.failures = slice.failures.saturating_add(u32::from(is_failure));
    }

    fn is_failing(&self, rules: &Rules) -> bool {
        let sum = |of: fn(&Slice) -> u32| self.slices.iter().map(|slice| u64::from(of(slice))).sum::<u64>();
        let (calls, failures) = (sum(|slice| slice.calls), sum(|slice| slice.failures));
        calls >= u64::from(rules.minimum_calls) && failures as f64 >= rules.failure_rate * calls as f64
    }
}

/// Of a window.
const SLICES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_error::{CallError, OtherError, TimeoutStage};

    const RULES: Rules = Rules::DEFAULT;
    const SECOND: Duration = Duration::from_secs(1);

    fn note(circuit: &mut Circuit, verdict: Verdict, now: Instant) -> bool {
        assert_eq!(circuit.admit(&RULES, now), Ok(false));
        circuit.note(&RULES, verdict, false, now)
    }

    #[test]
    fn it_opens_when_half_of_twenty_calls_have_failed_and_not_before() {
        let now = Instant::now();
        let mut circuit = Circuit::new(now);
        for _ in 0..10 {
            assert!(!note(&mut circuit, Verdict::Success, now));
        }
        for _ in 0..9 {
            assert!(!note(&mut circuit, Verdict::Failure, now), "fewer than 20 calls");
        }
        assert!(!note(&mut circuit, Verdict::Neither, now), "it counts as none");
        assert!(note(&mut circuit, Verdict::Failure, now));
        assert_eq!(circuit.admit(&RULES, now + SECOND), Err(4 * SECOND), "until it is half open");
        assert_eq!(circuit.state(now + SECOND), BreakerState::Open);
    }

    #[test]
    fn failures_of_long_ago_do_not_count() {
        let now = Instant::now();
        let mut circuit = Circuit::new(now);
        for _ in 0..19 {
            note(&mut circuit, Verdict::Failure, now);
        }
        assert!(!note(&mut circuit, Verdict::Failure, now + 11 * SECOND));
        // Calls that come all the time leave the window as well.
        let mut circuit = Circuit::new(now);
        for tenths in 0..1_000_u32 {
            let verdict = if tenths % 3 == 0 { Verdict::Failure } else { Verdict::Success };
            assert!(!note(&mut circuit, verdict, now + tenths * SECOND / 10), "a third");
        }
    }

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(now);
        (0..20).for_each(|_| _ = note(&mut circuit, Verdict::Failure, now));
        assert_eq!(circuit.state(now), BreakerState::Open);
        circuit
    }

    #[test]
    fn half_open_one_call_decides() {
        let now = Instant::now();
        let later = now + 5 * SECOND;
        let mut circuit = opened(now);
        assert_eq!(circuit.state(later), BreakerState::HalfOpen);
        assert_eq!(circuit.admit(&RULES, later), Ok(true));
        assert_eq!(circuit.admit(&RULES, later + SECOND), Err(4 * SECOND), "one at a time");
        assert!(!circuit.note(&RULES, Verdict::Success, false, later), "an old call decides nothing");
        assert!(circuit.note(&RULES, Verdict::Failure, true, later + SECOND), "open again");
        assert_eq!(circuit.admit(&RULES, later + 2 * SECOND), Err(4 * SECOND));
        let again = later + 6 * SECOND;
        assert_eq!(circuit.admit(&RULES, again), Ok(true));
        assert!(!circuit.note(&RULES, Verdict::Neither, true, again), "dropped");
        assert_eq!(circuit.admit(&RULES, again), Ok(true), "the next one is tried at once");
        assert!(!circuit.note(&RULES, Verdict::Success, true, again));
        assert_eq!(circuit.state(again), BreakerState::Closed);
        assert!(!note(&mut circuit, Verdict::Failure, again), "it counts from the beginning");
    }

    #[test]
    fn a_call_that_is_tried_for_ever_does_not_keep_it_open() {
        let now = Instant::now();
        let mut circuit = opened(now);
        assert_eq!(circuit.admit(&RULES, now + 5 * SECOND), Ok(true));
        assert_eq!(circuit.admit(&RULES, now + 10 * SECOND), Ok(true));
    }

    #[test]
    fn errors_of_the_service_are_successes_and_those_of_callers_count_as_neither() {
        let failed = |error: CallError| Verdict::of(&Ok(Response::from(crate::layer::Outcome::Failed(error))));
        assert_eq!(failed(CallError::timeout("s", "m", TimeoutStage::Unknown, SECOND)), Verdict::Failure);
        assert_eq!(failed(CallError::disconnected("s", "m", true)), Verdict::Failure);
        assert_eq!(failed(CallError::overloaded("s", "m", "full")), Verdict::Failure);
        assert_eq!(failed(CallError::bad_request("s", "m", "no")), Verdict::Neither);
        assert_eq!(failed(CallError::no_such_service("s", "m", "gone")), Verdict::Neither);
        assert_eq!(Verdict::of(&Ok(Response::service_error("no"))), Verdict::Success);
        assert_eq!(Verdict::of(&Ok(Response::failed(OtherError::new("unauthenticated", "")))), Verdict::Neither);
        assert_eq!(Verdict::of(&Err("a layer".into())), Verdict::Neither);
    }
}

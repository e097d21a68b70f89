//! The attempts of one call.
//!
//! ```text
//!  run ─► attempt ─► race: first request ─(late: a second one)─► ended ─► final? ─► the call's end
//!           ▲ └─ attempt_timeout ─► cut off ─┐                     │
//!           └──────────── pause ◄── budget, deadline, attempts ◄───┘
//! ```

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::{
    budget::RetryBudget,
    latency::Latencies,
    policy::RetryPolicy,
    verdict::{Ended, has_answer, may_repeat, maybe_executed, wait_asked},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::Backoff,
    layer::{
        ended::code_of,
        request::Request,
        response::{BoxError, BoxFuture, Outcome, Response},
        stack::send,
    },
};

/// The state that the calls of a layer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) budget: RetryBudget,
    pub(super) latencies: Latencies,
}

/// A service that can be called several times for one call.
pub(super) trait Inner:
    Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static
{
}

impl<S> Inner for S where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static
{
}

/// A call under its policy.
pub(super) struct Attempts<S> {
    service: S,
    request: Request,
    policy: Arc<RetryPolicy>,
    shared: Arc<Shared>,
    backoff: Backoff,
    /// Further ones.
    left: u32,
    /// Whether it may be sent a second time meanwhile.
    hedges: bool,
    begun_at: Instant,
    /// The end of an attempt that may have been executed. It outweighs that of a later one that was not.
    executed: Option<Ended>,
}

impl<S: Inner> Attempts<S> {
    pub(super) fn new(service: S, request: Request, policy: Arc<RetryPolicy>, shared: Arc<Shared>) -> Self {
        let is_alone = request.call.is_within_retry && !policy.within_retries;
        let left = if is_alone { 0 } else { policy.attempts.saturating_sub(1) };
        let hedges = policy.hedge && !is_alone && request.call.method.hedge && request.is_idempotent();
        let backoff = Backoff::new(policy.backoff_initial, policy.backoff_max);
        Self { service, request, policy, shared, backoff, left, hedges, begun_at: Instant::now(), executed: None }
    }

    /// Sends the call until it has an answer, or an error that is final. `ready` is the service that is ready.
    pub(super) async fn run(mut self, ready: S) -> Ended {
        self.shared.budget.deposit(self.begun_at);
        let mut under_way: BoxFuture = match self.hedges {
            true => Box::pin(race(ready, self.service.clone(), self.request.clone(), Arc::clone(&self.shared))),
            false => Box::pin(send(ready, self.request.clone())),
        };
        loop {
            let (ended, pause) = match self.attempt(under_way).await {
                Ok(ended) if !may_repeat(&ended, &self.request, &self.policy) => return self.finish(ended),
                Ok(ended) => match self.pause_before_next(wait_asked(&ended)) {
                    None => return self.finish(ended),
                    Some(pause) => (ended, pause),
                },
                Err(CutOff { pause }) => (Ok(Outcome::Failed(self.timed_out()).into()), pause),
            };
            self.note(&ended, pause);
            sleep(pause).await;
            if self.request.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                // The timer was late.
                return self.finish(ended);
            }
            if maybe_executed(&ended) {
                self.executed = Some(ended);
            }
            note_attempt(&self.request);
            under_way = Box::pin(send(self.service.clone(), self.request.clone()));
        }
    }

    /// Waits for the end of an attempt, or for its time to be over if another one may follow.
    async fn attempt(&mut self, mut under_way: BoxFuture) -> Result<Ended, CutOff> {
        let Some(limit) = self.policy.attempt_timeout.filter(|_| self.left > 0 && self.request.is_idempotent()) else {
            return Ok(under_way.await);
        };
        if let Ok(ended) = timeout(limit, &mut under_way).await {
            return Ok(ended);
        }
        match self.pause_before_next(None) {
            Some(pause) => Err(CutOff { pause }),
            None => Ok(under_way.await),
        }
    }

    /// Draws the pause before another attempt; `None` when there must be none.
    fn pause_before_next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.left == 0 {
            return None;
        }
        let now = Instant::now();
        let is_in_time = |pause: &Duration| match self.request.deadline() {
            Some(deadline) => now.checked_add(pause.saturating_add(TIMER_STEP)).is_some_and(|then| then <= deadline),
            None => true,
        };
        // The spread keeps those that were told the same time from coming back all at once.
        let spread = self.backoff.pause();
        let asked = asked.unwrap_or_default();
        let pause = asked.checked_add(spread).filter(is_in_time).or_else(|| {
            let is_asked = !asked.is_zero();
            Some(asked).filter(|asked| is_asked && is_in_time(asked))
        })?;
        if !self.shared.budget.withdraw(now) {
            tracing::debug!("the budget of retries is spent");
            return None;
        }
        self.left -= 1;
        Some(pause)
    }

    fn finish(self, ended: Ended) -> Ended {
        match self.executed {
            Some(executed) if !maybe_executed(&ended) => executed,
            _ => ended,
        }
    }

    fn timed_out(&self) -> CallError {
        let after = self.begun_at.elapsed();
        CallError::timeout(self.request.service(), self.request.method(), TimeoutStage::Unknown, after)
    }

    fn note(&self, ended: &Ended, pause: Duration) {
        let code = code_of(ended);
        tracing::debug!(
            service = self.request.service(),
            method = self.request.method(),
            message_id = self.request.message_id(),
            attempt = self.request.attempt(),
            code,
            ?pause,
            "trying again"
        );
    }
}

/// A timer of tokio's ends up to this much later.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// An attempt whose time was over, and the pause before the next one.
struct CutOff {
    pause: Duration,
}

/// For spans that have the field.
fn note_attempt(request: &Request) {
    tracing::Span::current().record("attempt", request.attempt());
}

/// The first attempt, and a second request if its answer is late.
async fn race<S: Inner>(ready: S, service: S, request: Request, shared: Arc<Shared>) -> Ended {
    let Shared { budget, latencies } = &*shared;
    let routing_key = request.call.method.routing_key;
    let late_after = latencies.begin(routing_key);
    let mut first = Racer::new(Box::pin(send(ready, request.clone())));
    let ended = match late_after {
        Some(late_after) => timeout(late_after, &mut first.response).await.ok(),
        None => Some((&mut first.response).await),
    };
    let ended = match ended {
        Some(ended) => ended,
        None if latencies.take(routing_key) && budget.withdraw(Instant::now()) => {
            tracing::debug!(
                service = request.service(),
                method = request.method(),
                ?late_after,
                "sending a second request"
            );
            note_attempt(&request);
            let second = Racer::new(Box::pin(send(service, request)));
            return first_answer([first, second], |took| latencies.note(routing_key, took)).await;
        }
        None => (&mut first.response).await,
    };
    if has_answer(&ended) {
        latencies.note(routing_key, first.begun_at.elapsed());
    }
    ended
}

/// A request under way.
struct Racer {
    response: BoxFuture,
    begun_at: Instant,
}

impl Racer {
    fn new(response: BoxFuture) -> Self {
        Self { response, begun_at: Instant::now() }
    }
}

/// The answer that comes first; without one, the last failure. The other request is dropped, which cancels it.
async fn first_answer(racers: [Racer; 2], note: impl Fn(Duration)) -> Ended {
    let mut racers = racers.map(Some);
    let mut failed: Option<Ended> = None;
    poll_fn(|cx| {
        for at in 0..racers.len() {
            let Some(racer) = &mut racers[at] else { continue };
            let Poll::Ready(ended) = racer.response.as_mut().poll(cx) else { continue };
            if has_answer(&ended) {
                // The slower one takes at least this long.
                racers.iter().flatten().for_each(|racer| note(racer.begun_at.elapsed()));
                return Poll::Ready(ended);
            }
            racers[at] = None;
            match failed.take() {
                None => failed = Some(ended),
                Some(earlier) if maybe_executed(&earlier) && !maybe_executed(&ended) => return Poll::Ready(earlier),
                Some(_) => return Poll::Ready(ended),
            }
        }
        Poll::Pending
    })
    .await
}

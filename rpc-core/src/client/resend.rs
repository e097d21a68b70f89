//! Sends a call that could not be sent at once, and sends a call again where that is safe.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    WhenFull,
    in_flight::{NotSent, Outcome, Waiter},
    request::{FOREVER, Failure, Limits, Obstacle, Reply, Request},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::Backoff,
};

/// A request that has left its call's future, and comes to an end elsewhere.
pub(super) type Detour = Pin<Box<dyn Future<Output = Result<Reply, Failed>> + Send>>;

/// The error of a call, and its `message_id` for the log.
pub(super) struct Failed {
    pub(super) error: CallError,
    pub(super) message_id: Option<String>,
}

impl Obstacle {
    /// The future that continues the call, or the error that ends it.
    pub(super) fn over(self, request: &mut Request) -> Result<Detour, CallError> {
        let failure = match self {
            Self::OneWay | Self::NotYet if request.client.inner.in_process.is_some() => {
                let mut request = request.take();
                return Ok(Box::pin(async move {
                    let outcome = request.send_in_process().await;
                    request.ended(outcome)
                }));
            }
            Self::Failed(Failure::Final(error)) if request.awaits_service(&error, 0) => Some(Failure::Final(error)),
            Self::Final(error) | Self::Failed(Failure::Final(error)) => return Err(error),
            Self::OneWay => {
                let mut request = request.take();
                return Ok(Box::pin(async move {
                    let outcome = request.send_oneway().await;
                    request.ended(outcome)
                }));
            }
            Self::NotYet => None,
            Self::Failed(failure) => Some(failure),
        };
        let mut request = request.take();
        Ok(Box::pin(async move {
            let outcome = request.send(failure).await;
            request.ended(outcome)
        }))
    }
}

impl Request {
    fn ended(&mut self, outcome: Result<Reply, CallError>) -> Result<Reply, Failed> {
        outcome.map_err(|error| Failed { error, message_id: self.message_id().map(str::to_owned) })
    }

    /// Sends until a reply arrives, the deadline passes, or a request that may have been executed must not be sent
    /// again. `failure` is that of a first attempt.
    async fn send(&mut self, failure: Option<Failure>) -> Result<Reply, CallError> {
        let limits = self.limits();
        let mut sent = 0;
        // None before the first resend: the next session is one of a connection that lives.
        let mut backoff: Option<Backoff> = None;
        // The error at the deadline, if nothing was executed.
        let mut reason = None;
        let mut nacks = 0;
        let mut outcome = match failure {
            Some(failure) => Err(failure),
            None => self.attempt(limits, 1).await,
        };
        loop {
            let maybe_executed = match outcome {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(error)) if self.awaits_service(&error, sent) => {
                    reason = Some(error);
                    false
                }
                // No attempt of this size was executed.
                Err(Failure::Final(error @ CallError::PayloadTooLarge { .. })) => return Err(error),
                // An earlier attempt may have been executed, so report that, not that this attempt was rejected.
                Err(Failure::Final(error)) if sent > 0 && !error.maybe_executed() => {
                    return Err(self.disconnected(true));
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost { maybe_executed }) => maybe_executed,
                Err(Failure::NoRoom) => false,
                Err(Failure::Refused) => {
                    nacks += 1;
                    if nacks > 1 && self.service.max_length.is_some() {
                        return Err(if sent > 0 { self.disconnected(true) } else { self.not_taken() });
                    }
                    reason = Some(self.not_taken());
                    false
                }
            };
            sent += u32::from(maybe_executed);
            let is_resendable = self.method.idempotent || !maybe_executed;
            if !is_resendable || self.client.is_shut_down() {
                return Err(self.disconnected(maybe_executed));
            }
            let pause = backoff.as_mut().map_or(Duration::ZERO, Backoff::pause);
            backoff.get_or_insert_with(|| Backoff::new(RESEND_DELAY_INITIAL, RESEND_DELAY_MAX));
            if Instant::now() >= limits.deadline || timeout_at(limits.deadline, wait(pause)).await.is_err() {
                return Err(match sent {
                    0 => reason.unwrap_or_else(|| self.timed_out(TimeoutStage::Connecting)),
                    _ => self.disconnected(true),
                });
            }
            let message_id = self.message_id();
            tracing::debug!(service = self.service.name, method = self.method.name, message_id, sent, "sending again");
            self.note_resent();
            outcome = self.attempt(limits, sent + 1).await;
        }
    }

    /// Sends once and waits for the end of that attempt.
    async fn attempt(&self, limits: Limits, number: u32) -> Result<Reply, Failure> {
        let timed_out = |stage| Failure::Final(self.timed_out(stage));
        if timeout_at(limits.deadline, self.client.unblocked()).await.is_err() {
            return Err(timed_out(if number > 1 { TimeoutStage::Unknown } else { TimeoutStage::Blocked }));
        }
        let line = match timeout_at(limits.deadline, self.client.line(self.exchange())).await {
            Ok(line) => line.map_err(|error| self.not_connected(error))?,
            // An earlier attempt may have been executed, so report that, not that this one is still connecting.
            Err(_) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
            Err(_) => return Err(timed_out(TimeoutStage::Connecting)),
        };
        let in_flight = &line.session.in_flight;
        if let Some(limit_bytes) = in_flight.sizes.refusing_limit(self.body().len()) {
            return Err(Failure::Final(self.too_large(limit_bytes)));
        }
        let needs_confirm = self.needs_confirm(&line);
        let mut waiter = loop {
            match line.begin(limits.deadline, self.tag(&line, needs_confirm)) {
                Ok(waiter) => break waiter,
                Err(NotSent::Full) if self.client.options().when_full == WhenFull::Refuse => {
                    let message = format!("{} calls are in flight", self.client.options().max_in_flight);
                    let error = CallError::overloaded(self.service.name, self.method.name, message);
                    return Err(Failure::Final(error));
                }
                Err(NotSent::Full) => {
                    if timeout_at(limits.deadline, in_flight.freed()).await.is_err() {
                        return Err(timed_out(TimeoutStage::InFlightLimit));
                    }
                }
                Err(reason) => return Err(self.not_sent(reason)),
            }
        };
        let remaining = match limits.budget < FOREVER {
            true => limits.deadline.saturating_duration_since(Instant::now()),
            false => limits.budget,
        };
        if !needs_confirm {
            loop {
                match self.publish(&line, &mut waiter, remaining, number) {
                    Err(Failure::NoRoom) if timeout_at(limits.deadline, line.room()).await.is_ok() => {}
                    Err(Failure::NoRoom) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
                    Err(Failure::NoRoom) => return Err(timed_out(TimeoutStage::Blocked)),
                    published => break published?,
                }
            }
        } else {
            // Every wait comes before the publish.
            let published = async {
                line.room().await;
                self.publish_confirmed(&line, &mut waiter, remaining, number).await
            };
            match timeout_at(limits.deadline, published).await {
                Ok(published) => published?,
                Err(_) if number > 1 => return Err(timed_out(TimeoutStage::Unknown)),
                Err(_) => return Err(timed_out(TimeoutStage::Blocked)),
            }
        }
        let reply = self.conclude(outcome(waiter, limits).await)?;
        // Its confirm may come later.
        if needs_confirm {
            line.note_reached(self.method);
        }
        Ok(reply)
    }
}

/// Waits for the end of the call, with a timer of its own: the session's may be one of a runtime that stands still.
async fn outcome(waiter: Waiter, limits: Limits) -> Outcome {
    // An expired waiter cancels its call when it is dropped.
    timeout_at(limits.deadline, waiter.outcome()).await.unwrap_or(Outcome::Expired)
}

/// Sleeps, unless there is nothing to wait for: a timer costs at least a millisecond.
pub(super) async fn wait(pause: Duration) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
}

/// Pauses before a call is sent for the third time and later: a request that ends its channel each time (RabbitMQ closes the
/// channel of a message that is too large) must not be sent in a tight loop.
pub(super) const RESEND_DELAY_INITIAL: Duration = Duration::from_millis(10);
pub(super) const RESEND_DELAY_MAX: Duration = Duration::from_secs(1);

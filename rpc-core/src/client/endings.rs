//! The errors that a request ends with.

use std::{fmt, time::Duration};

use super::{
    in_flight::NotSent,
    opening::Exchange,
    request::{Failure, Request},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::amqp::Refusal,
    error::Error,
    meter::Event,
};

impl Request {
    /// The error of a request that the broker goes on refusing.
    pub(super) fn not_taken(&self) -> CallError {
        let reason = "the broker refuses the request (basic.nack): the queue is full, or without a leader";
        CallError::overloaded(self.service.name, self.method.name, reason)
    }

    /// That of the whole call, also in an attempt that began later.
    pub(super) fn budget(&self) -> Duration {
        match &self.attempt_of {
            Some(attempt) => attempt.call.budget,
            None => self.limits.map_or(Duration::ZERO, |limits| limits.budget),
        }
    }

    pub(super) fn timed_out(&self, stage: TimeoutStage) -> CallError {
        CallError::timeout(self.service.name, self.method.name, stage, self.budget())
    }

    pub(super) fn disconnected(&self, maybe_executed: bool) -> CallError {
        CallError::disconnected(self.service.name, self.method.name, maybe_executed)
    }

    pub(super) fn bad_request(&self, reason: &dyn fmt::Display) -> CallError {
        CallError::bad_request(self.service.name, self.method.name, reason.to_string())
    }

    /// The error of a request that the broker returned.
    pub(super) fn returned(&self, reply_text: &str) -> CallError {
        self.note_event(Event::Returned);
        self.no_such_service(reply_text)
    }

    fn no_such_service(&self, reply_text: &str) -> CallError {
        let message = format!("no queue is bound with routing key '{}' ({reply_text})", self.method.routing_key);
        CallError::no_such_service(self.service.name, self.method.name, message)
    }

    /// Whether the call goes on although no queue takes its request: the service was there, so its workers are about to declare
    /// its queue again, as after a restart of a broker in memory.
    pub(super) fn awaits_service(&self, error: &CallError, sent: u32) -> bool {
        let is_missing = matches!(error, CallError::NoSuchService { .. });
        is_missing && self.method.idempotent && (sent > 0 || self.client.inner.seen.has(self.service))
    }

    pub(super) fn not_connected(&self, error: Error) -> Failure {
        match error {
            Error::Disconnected { .. } => Failure::Lost { maybe_executed: false },
            Error::Closed { .. } if self.client.is_shut_down() => {
                Failure::Final(CallError::shutdown(self.service.name, self.method.name, false))
            }
            Error::Closed { .. } => Failure::Final(self.disconnected(false)),
            error if error.is_overload() => {
                Failure::Final(CallError::overloaded(self.service.name, self.method.name, error.to_string()))
            }
            error => Failure::Final(self.topology(error)),
        }
    }

    pub(super) fn topology(&self, error: Error) -> CallError {
        CallError::topology(self.service.name, self.method.name, error)
    }

    /// The error of a request that the user may not publish.
    pub(super) fn denied(&self, refusal: &Refusal) -> CallError {
        let exchange = match self.exchange() {
            // A nested request that may not go there goes to `rpc`.
            Exchange::Nested => Exchange::Requests,
            exchange => exchange,
        };
        self.topology(refusal.error(format!("publish to exchange '{}'", exchange.name())))
    }

    /// The error of a request that is larger than the broker takes.
    pub(super) fn too_large(&self, limit_bytes: usize) -> CallError {
        CallError::payload_too_large(self.service.name, self.method.name, self.body().len(), limit_bytes)
    }

    pub(super) fn not_sent(&self, reason: NotSent) -> Failure {
        match reason {
            NotSent::Refused(error @ (Error::NameTooLong { .. } | Error::PropertiesTooLarge { .. })) => {
                Failure::Final(self.bad_request(&error))
            }
            NotSent::Refused(error) => self.not_connected(error),
            NotSent::NoRoom => Failure::NoRoom,
            NotSent::Ended | NotSent::Full => Failure::Lost { maybe_executed: false },
        }
    }

    /// The error of a call that is not sent again.
    pub(super) fn last_failure(&self, failure: Failure) -> CallError {
        match failure {
            Failure::Final(error) => error,
            Failure::Lost { maybe_executed } => self.disconnected(maybe_executed),
            Failure::NoRoom => self.timed_out(TimeoutStage::Blocked),
            Failure::Refused => self.not_taken(),
        }
    }
}

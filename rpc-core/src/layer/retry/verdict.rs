//! Whether the end of an attempt is the end of its call.

use std::time::Duration;

use super::policy::RetryPolicy;
use crate::{
    call_error::CallError,
    envelope::Code,
    layer::{
        foreign::Foreign,
        request::Request,
        response::{BoxError, Outcome, Response},
    },
};

/// How an attempt ended.
pub(super) type Ended = Result<Response, BoxError>;

/// Whether another attempt may end otherwise, and does no harm.
pub(super) fn may_repeat(ended: &Ended, request: &Request, policy: &RetryPolicy) -> bool {
    let is_harmless = request.is_idempotent() || !request.call.progress.maybe_executed();
    is_harmless && may_succeed_later(ended, request.is_idempotent() && policy.attempt_timeout.is_some())
}

fn may_succeed_later(ended: &Ended, timeouts: bool) -> bool {
    match ended {
        Ok(response) => match &response.outcome {
            Outcome::Ok(..) | Outcome::Nothing => false,
            Outcome::Service(_, _, details) => details.as_ref().is_some_and(|details| details.retryable),
            Outcome::Failed(error) => is_passing(error, timeouts),
            Outcome::Coded(code, _) => *code == Code::Overloaded || (timeouts && *code == Code::Timeout),
            Outcome::Other(error) => error.retryable,
        },
        Err(error) => match error.downcast_ref::<CallError>() {
            Some(error) => is_passing(error, timeouts),
            None => match Foreign::of(error) {
                Foreign::Overloaded => true,
                Foreign::Elapsed => timeouts,
                Foreign::Unknown => false,
            },
        },
    }
}

/// A lost connection is not among them: the client itself sends again after it.
fn is_passing(error: &CallError, timeouts: bool) -> bool {
    match error {
        CallError::Overloaded { .. } | CallError::NoSuchService { .. } => true,
        CallError::Timeout { .. } => timeouts,
        CallError::Other { error, .. } => error.retryable,
        _ => false,
    }
}

/// Whether a worker has given the call's result, or an error of the service's that is final.
pub(super) fn has_answer(ended: &Ended) -> bool {
    ended.as_ref().is_ok_and(|response| response.is_ok() || (response.is_service_error() && !response.is_retryable()))
}

/// How long the other side asks to wait.
pub(super) fn wait_asked(ended: &Ended) -> Option<Duration> {
    match ended {
        Ok(response) => response.retry_after(),
        Err(error) => error.downcast_ref::<CallError>()?.retry_after(),
    }
}

/// Whether this attempt may have been executed, by its end alone.
pub(super) fn maybe_executed(ended: &Ended) -> bool {
    match ended {
        Ok(response) => response.maybe_executed(),
        Err(error) => match error.downcast_ref::<CallError>() {
            Some(error) => error.maybe_executed(),
            None => !matches!(Foreign::of(error), Foreign::Overloaded),
        },
    }
}

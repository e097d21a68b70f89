//! The code that a call has ended with, for the layers that report it.

use tokio::time::Instant;

use super::{
    foreign::Foreign,
    names,
    request::LogicalCall,
    response::{BoxError, Response},
};
use crate::{call_error::CallError, envelope::Code, stats::CANCELLED};

/// That of an answer: the one reading of it that all layers have.
pub(super) fn code_of(answered: &Result<Response, BoxError>) -> &str {
    match answered {
        Ok(response) => response.code(),
        Err(error) => match (error.downcast_ref::<CallError>(), Foreign::of(error)) {
            (Some(error), _) => error.code(),
            (None, Foreign::Elapsed) => Code::Timeout.name(),
            (None, Foreign::Overloaded) => Code::Overloaded.name(),
            (None, Foreign::Unknown) => LAYER,
        },
    }
}

/// Whether an answer is a result, or the service's own error.
pub(super) fn is_from_service(answered: &Result<Response, BoxError>) -> bool {
    answered.as_ref().is_ok_and(|response| response.is_ok() || response.is_service_error())
}

/// That of a call which is dropped without an answer: cancelled, stopped at the deadline, or unwound.
pub(super) fn code_of_dropped(call: &LogicalCall) -> &'static str {
    let is_late = call.deadline.is_some_and(|deadline| deadline <= Instant::now());
    match std::thread::panicking() {
        // As the pool answers.
        true if call.served.is_some() => Code::Internal.name(),
        true => names::OTHER,
        false if is_late => Code::Timeout.name(),
        false => CANCELLED,
    }
}

/// The code of a response that is no error.
pub(super) const OK: &str = "ok";
/// The code of a foreign layer's error.
pub(super) const LAYER: &str = "layer";

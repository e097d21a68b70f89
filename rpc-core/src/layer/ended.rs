//! The code that a call has ended with, for the layers that report it.

use tokio::time::Instant;

use super::{
    foreign::Foreign,
    names,
    request::LogicalCall,
    response::{BoxError, Response},
};
use crate::{envelope::Code, stats::CANCELLED};

/// That of an answer.
pub(super) fn code_of(answered: &Result<Response, BoxError>) -> &str {
    match answered {
        Ok(response) => response.code(),
        Err(error) => match Foreign::of(error) {
            Foreign::Elapsed => Code::Timeout.name(),
            Foreign::Overloaded => Code::Overloaded.name(),
            Foreign::Unknown => LAYER,
        },
    }
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

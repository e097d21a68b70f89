//! Constructors of [`CallError`]: for the client, for tests, and for stand-ins of a client.

use std::time::Duration;

use super::{
    CallError,
    details::{ErrorDetails, UnknownError},
    other::OtherError,
    service_error::ServiceError,
    stage::TimeoutStage,
};
use crate::error::Error;

/// A constructor for each variant, named after its code.
impl<E> CallError<E> {
    /// A [`Service`](Self::Service) error: the handler returned `error`.
    pub const fn service(service: &'static str, method: &'static str, error: E) -> Self {
        Self::Service { service, method, error, details: None }
    }

    /// A [`Service`](Self::Service) error with the code and the advice that `error` states of itself, as it arrives from a worker.
    pub fn described(service: &'static str, method: &'static str, error: E) -> Self
    where
        E: ServiceError,
    {
        let details = Some(Box::new(ErrorDetails::of(&error)));
        Self::Service { service, method, error, details }
    }

    /// An [`UnknownError`](Self::UnknownError): the handler returned one that the caller does not know.
    pub fn unknown_error(service: &'static str, method: &'static str, error: UnknownError) -> Self {
        Self::UnknownError { service, method, error: Box::new(error) }
    }

    /// A [`NoSuchService`](Self::NoSuchService) error of a call that was not executed.
    pub fn no_such_service(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::unserved(service, method, message, false)
    }

    /// A [`NoSuchService`](Self::NoSuchService) error of a call that no worker was there for; `maybe_executed` is false when the request
    /// was certainly not sent.
    pub fn unserved(
        service: &'static str,
        method: &'static str,
        message: impl Into<Box<str>>,
        maybe_executed: bool,
    ) -> Self {
        Self::NoSuchService { service, method, message: message.into(), maybe_executed }
    }

    /// A [`NoSuchMethod`](Self::NoSuchMethod) error.
    pub fn no_such_method(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::NoSuchMethod { service, method, message: message.into() }
    }

    /// A [`BadRequest`](Self::BadRequest) error.
    pub fn bad_request(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::BadRequest { service, method, message: message.into() }
    }

    /// A [`BadVersion`](Self::BadVersion) error.
    pub fn bad_version(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::BadVersion { service, method, message: message.into() }
    }

    /// An [`Overloaded`](Self::Overloaded) error.
    pub fn overloaded(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::Overloaded { service, method, message: message.into() }
    }

    /// A [`Timeout`](Self::Timeout) error: a call with the budget `after` had got as far as `stage`.
    pub const fn timeout(service: &'static str, method: &'static str, stage: TimeoutStage, after: Duration) -> Self {
        Self::Timeout { service, method, stage, after }
    }

    /// A [`Disconnected`](Self::Disconnected) error; `maybe_executed` is false when the request was certainly not sent.
    pub const fn disconnected(service: &'static str, method: &'static str, maybe_executed: bool) -> Self {
        Self::Disconnected { service, method, maybe_executed }
    }

    /// An [`Internal`](Self::Internal) error.
    pub fn internal(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::Internal { service, method, message: message.into() }
    }

    /// An [`Abandoned`](Self::Abandoned) error.
    pub fn abandoned(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::Abandoned { service, method, message: message.into() }
    }

    /// A [`BadReply`](Self::BadReply) error.
    pub fn bad_reply(service: &'static str, method: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::BadReply { service, method, message: message.into() }
    }

    /// A [`PayloadTooLarge`](Self::PayloadTooLarge) error of arguments, which were not sent.
    pub const fn payload_too_large(
        service: &'static str,
        method: &'static str,
        body_bytes: usize,
        limit_bytes: usize,
    ) -> Self {
        Self::PayloadTooLarge { service, method, body_bytes, limit_bytes, maybe_executed: false }
    }

    /// A [`PayloadTooLarge`](Self::PayloadTooLarge) error of a result, whose handler has run.
    pub const fn result_too_large(
        service: &'static str,
        method: &'static str,
        body_bytes: usize,
        limit_bytes: usize,
    ) -> Self {
        Self::PayloadTooLarge { service, method, body_bytes, limit_bytes, maybe_executed: true }
    }

    /// A [`Shutdown`](Self::Shutdown) error; `maybe_executed` is false when the request was certainly not sent.
    pub const fn shutdown(service: &'static str, method: &'static str, maybe_executed: bool) -> Self {
        Self::Shutdown { service, method, maybe_executed }
    }

    /// A [`Topology`](Self::Topology) error.
    pub fn topology(service: &'static str, method: &'static str, source: Error) -> Self {
        Self::Topology { service, method, source: Box::new(source) }
    }

    /// A [`Layer`](Self::Layer) error; `maybe_executed` is false when the request was certainly not executed.
    pub fn layer(
        service: &'static str,
        method: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
        maybe_executed: bool,
    ) -> Self {
        Self::Layer { service, method, source: source.into().into(), maybe_executed }
    }

    /// An [`Other`](Self::Other) error: a code that is none of the above.
    pub fn other(service: &'static str, method: &'static str, error: OtherError) -> Self {
        Self::Other { service, method, error: Box::new(error) }
    }
}

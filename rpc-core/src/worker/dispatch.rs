//! From a request to a handler, and from its result to a response.
//!
//! The generated `FibonacciServer` implements [`Dispatch`]; nothing here knows a user's type.

use std::{borrow::Cow, fmt, future::Future, pin::Pin};

use serde::Serialize;
use tokio::runtime::Handle;

use super::seated::Seated;
use crate::{
    budget,
    call_error::{ErrorDetails, OtherError},
    codec::{Codec, CodecError},
    connection::{Delivery, amqp::Properties},
    context::Context,
    envelope::{self, Code, Manner},
    layer::Headers,
    method::{Described, FallibleMethod, FallibleOneway, Method, Outcome},
    printable::printable,
    service::ServiceDescriptor,
};

/// A service that can be served by a [`WorkerPool`](crate::WorkerPool).
///
/// Sealed: `#[service]` generates the implementation, for `FibonacciServer<T>` where the trait is called `Fibonacci`. Its
/// methods are not covered by semantic versioning.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served: it is not a server that `#[service]` generated",
    label = "wrap it in the generated server, as in `FibonacciServer::new(…)`",
    note = "for a trait `Fibonacci`, `#[service]` generates `FibonacciServer<T>`, which serves a `T: Fibonacci`"
)]
pub trait Dispatch: Sealed + Send + Sync + 'static {
    /// Its name and methods.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// Starts the handler of `request.method()`.
    fn dispatch(&self, request: Request) -> Handler;
}

/// Implemented by generated servers alone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served: it is not a server that `#[service]` generated",
    label = "wrap it in the generated server, as in `FibonacciServer::new(…)`"
)]
pub trait Sealed {}

/// A running handler.
pub type Handler = Pin<Box<dyn Future<Output = Response> + Send + 'static>>;

/// A request whose method exists.
#[derive(Debug)]
pub struct Request {
    context: Context,
    found: Found,
}

impl Request {
    pub(super) fn new(context: Context, found: Found) -> Self {
        Self { context, found }
    }

    /// Its context, and its method and codec.
    pub(super) fn into_parts(self) -> (Context, Found) {
        (self.context, self.found)
    }

    /// Whether its caller, or a caller further out, has sent the call before.
    pub(super) fn is_retry(&self) -> bool {
        self.found.is_retry
    }

    /// The same with a value for the handler.
    pub(super) fn with_extension<T: Send + Sync + 'static>(self, value: T) -> Self {
        Self { context: self.context.with_extension(value), ..self }
    }

    /// The method's index in the descriptor.
    pub fn method(&self) -> usize {
        self.found.method
    }

    /// Whether it may have headers besides `rpc-deadline`.
    pub(super) fn has_headers(&self) -> bool {
        self.found.has_headers
    }

    /// The arguments.
    ///
    /// # Errors
    /// The answer to give when they cannot be read.
    pub fn arguments<M: Method>(&self) -> Result<M::Arguments, Response> {
        let Found { codec, max_depth, .. } = self.found;
        codec
            .decode_within(self.context.body(), max_depth)
            .map_err(|error| Response::failed(Code::BadRequest, format!("arguments: {error}")))
    }

    /// The context of the call, for the handler.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Answers with a result.
    pub fn reply<M: Method>(self, value: &M::Ok) -> Response {
        self.encoded(value.as_wire(), Answer::Ok)
    }

    /// Answers with a result or the service's error.
    pub fn reply_result<M: FallibleMethod>(self, result: &Result<M::Ok, M::Error>) -> Response {
        self.reply_sides::<M>(result.as_ref())
    }

    /// As [`reply_result`](Self::reply_result), for a type that is seen as a `Result` by its [`Sides`](crate::method::Sides).
    pub fn reply_sides<M: FallibleMethod>(self, result: Result<&M::Ok, &M::Error>) -> Response {
        match result {
            Ok(value) => self.encoded(value.as_wire(), Answer::Ok),
            Err(error) => self.service_error::<M>(error),
        }
    }

    fn service_error<M: FallibleMethod>(&self, error: &M::Error) -> Response {
        let Some(describe) = M::ERROR.describe else { return self.encoded(error.as_wire(), Answer::ServiceError) };
        match self.found.codec.encode(error.as_wire()) {
            Ok(body) => Answer::DetailedError(Box::new((self.found.codec, body, describe(error)))).into(),
            Err(error) => encode_failed(&error),
        }
    }

    /// Ends a one-way request.
    pub fn done(self) -> Response {
        Response::NONE
    }

    /// Ends a one-way request, or says why it failed.
    pub fn done_or_failed<M: FallibleOneway, T>(self, result: Result<&T, &M::Error>) -> Response {
        let Err(error) = result else { return self.done() };
        let details = match M::ERROR.describe {
            Some(describe) => describe(error),
            None => ErrorDetails::new(Code::Service.name(), error.text()),
        };
        let message = envelope::beginning(&details.message, LETTER_TEXT_MAX_BYTES).to_owned();
        Answer::DetailedError(Box::new((self.found.codec, Vec::new(), ErrorDetails { message, ..details }))).into()
    }

    /// Answers that there is no such method.
    pub fn unknown_method(self) -> Handler {
        let response = no_such_method(self.context.delivery());
        Box::pin(std::future::ready(response))
    }

    fn encoded<T: Serialize>(&self, value: &T, answer: fn(Codec, Vec<u8>) -> Answer) -> Response {
        let codec = self.found.codec;
        match codec.encode(value) {
            Ok(body) => Response(Some(answer(codec, body))),
            Err(error) => encode_failed(&error),
        }
    }
}

fn encode_failed(error: &CodecError) -> Response {
    Response::failed(Code::Internal, format!("the result could not be written: {error}"))
}

/// How a request is answered, if at all.
#[derive(Clone)]
pub struct Response(Option<Answer>);

/// The answer to the caller.
#[derive(Clone)]
pub(super) enum Answer {
    /// The result.
    Ok(Codec, Vec<u8>),
    /// The service's error.
    ServiceError(Codec, Vec<u8>),
    /// The same, and what it says of itself. Behind a pointer, so that an answer is no larger.
    DetailedError(Box<(Codec, Vec<u8>, ErrorDetails)>),
    /// An error of ours: a code and words for a person.
    Failed(Code, String),
    /// An error of a layer.
    Other(Box<OtherError>),
    /// The broker does not take a result of this size.
    TooLarge { body_bytes: usize, limit_bytes: Option<usize> },
    /// Another answer, with further headers.
    WithHeaders(Box<Self>, Headers),
}

impl Response {
    /// No answer: the request was one-way.
    pub(super) const NONE: Self = Self(None);

    pub(super) fn failed(code: Code, message: impl Into<String>) -> Self {
        Self(Some(Answer::Failed(code, message.into())))
    }

    /// The error's name, for logs.
    pub(super) fn error_code(&self) -> Option<&str> {
        self.0.as_ref().and_then(Answer::error_code)
    }

    /// Whether it is the service's own error.
    pub(super) fn is_service_error(&self) -> bool {
        let answer = match &self.0 {
            Some(Answer::WithHeaders(answer, _)) => Some(&**answer),
            answer => answer.as_ref(),
        };
        matches!(answer, Some(Answer::ServiceError(..) | Answer::DetailedError(_)))
    }

    /// Whether the handler came to its end, and would not give another answer. An error that says that it may help to try again is
    /// not final.
    pub(super) fn is_final(&self) -> bool {
        match &self.0 {
            None | Some(Answer::Ok(..) | Answer::ServiceError(..)) => true,
            Some(Answer::DetailedError(error)) => !error.2.retryable,
            Some(_) => false,
        }
    }

    /// The code and the words of an error of ours, or of a layer.
    pub(super) fn failure(&self) -> Option<(&str, &str)> {
        self.0.as_ref().and_then(Answer::failure)
    }

    /// How large the answer is, encoded.
    pub(super) fn body_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Answer::body_bytes)
    }

    /// A result of so many bytes.
    #[cfg(test)]
    pub(super) fn ok_of(body_bytes: usize) -> Self {
        Self(Some(Answer::Ok(Codec::default(), vec![0; body_bytes])))
    }

    pub(super) fn answer(&self) -> Option<&Answer> {
        self.0.as_ref()
    }

    pub(super) fn into_answer(self) -> Option<Answer> {
        self.0
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        Self(Some(answer))
    }
}

impl Answer {
    /// The size of the body, encoded.
    pub(super) fn body_bytes(&self) -> usize {
        match self {
            Self::Ok(_, body) | Self::ServiceError(_, body) => body.len(),
            Self::DetailedError(error) => error.1.len(),
            Self::WithHeaders(answer, _) => answer.body_bytes(),
            Self::Failed(..) | Self::Other(_) | Self::TooLarge { .. } => 0,
        }
    }

    /// The error's name; `None` of a result.
    fn error_code(&self) -> Option<&str> {
        match self {
            Self::Ok(..) => None,
            Self::ServiceError(..) => Some(Code::Service.name()),
            Self::DetailedError(error) => Some(&error.2.code),
            Self::Failed(code, _) => Some(code.name()),
            Self::Other(error) => Some(&error.code),
            Self::TooLarge { .. } => Some(Code::PayloadTooLarge.name()),
            Self::WithHeaders(answer, _) => answer.error_code(),
        }
    }

    /// The code and the words of an error of ours, or of a layer.
    pub(super) fn failure(&self) -> Option<(&str, &str)> {
        match self {
            Self::Failed(code, message) => Some((code.name(), message)),
            Self::Other(error) => Some((&error.code, &error.message)),
            Self::WithHeaders(answer, _) => answer.failure(),
            Self::Ok(..) | Self::ServiceError(..) | Self::DetailedError(_) | Self::TooLarge { .. } => None,
        }
    }

    /// The code and the words of an error of a request that has no reply.
    pub(super) fn failure_without_reply(&self) -> Option<(&str, &str)> {
        match self {
            Self::DetailedError(error) => Some((&error.2.code, &error.2.message)),
            Self::ServiceError(..) => Some((Code::Service.name(), "")),
            Self::WithHeaders(answer, _) => answer.failure_without_reply(),
            Self::Ok(..) | Self::Failed(..) | Self::Other(_) | Self::TooLarge { .. } => self.failure(),
        }
    }

    /// The properties and body of the reply to `request`.
    pub(super) fn message<'a>(&'a self, request: &'a Delivery, reply_to: &[u8]) -> (Properties<'a>, &'a [u8]) {
        let correlation_id = request.correlation_id_bytes();
        let manner = Manner::towards(request.content_type(), reply_to);
        match self {
            Self::Ok(codec, body) => (envelope::ok_properties(manner, *codec, correlation_id), body),
            Self::ServiceError(codec, body) => {
                (envelope::service_error_properties(manner, *codec, correlation_id, None), body)
            }
            Self::DetailedError(error) => {
                let (codec, body, details) = &**error;
                (envelope::service_error_properties(manner, *codec, correlation_id, Some(details)), body)
            }
            Self::Failed(code, message) => (envelope::error_properties(correlation_id, *code, message), &[]),
            Self::Other(error) => (envelope::other_error_properties(correlation_id, error), &[]),
            Self::WithHeaders(answer, headers) => {
                let (mut properties, body) = answer.message(request, reply_to);
                properties.headers.extend(headers.iter().cloned());
                (properties, body)
            }
            Self::TooLarge { body_bytes, limit_bytes } => {
                let message = "the broker does not take a result of this size";
                let code = Code::PayloadTooLarge;
                let mut properties = envelope::error_properties(correlation_id, code, message);
                let sizes =
                    [(envelope::BODY_BYTES_HEADER, Some(*body_bytes)), (envelope::LIMIT_BYTES_HEADER, *limit_bytes)];
                for (name, bytes) in sizes {
                    let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
                    properties.headers.extend(bytes.map(|bytes| (Cow::Borrowed(name), bytes.into())));
                }
                (properties, &[])
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.error_code().unwrap_or("ok");
        f.debug_struct("Answer").field("code", &code).field("body_bytes", &self.body_bytes()).finish()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Response").field(&self.error_code().unwrap_or("ok")).finish()
    }
}

/// Of an error's text in a dead letter, whose properties must fit one frame.
pub(super) const LETTER_TEXT_MAX_BYTES: usize = 1_024;

/// Runs a handler on a thread where it may block or compute for long, at most [tokio's
/// `max_blocking_threads`](tokio::runtime::Builder::max_blocking_threads) at once.
///
/// A thread cannot be stopped: at the caller's deadline the caller gets `timeout`, and the computation goes on, its result
/// ignored.
pub fn blocking<F>(handler: F) -> Handler
where
    F: Future<Output = Response> + Send + 'static,
{
    Box::pin(async move {
        let runtime = Handle::current();
        // The thread waits for nested calls by itself, so it leaves the handler's slot and comes back to it by itself.
        let seated = Seated::new(Box::pin(budget::traced(handler)), budget::on_thread());
        let run = move || runtime.block_on(seated);
        match tokio::task::spawn_blocking(run).await {
            Ok(response) => response,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Response::failed(Code::Internal, "the worker's runtime is shutting down"),
            },
        }
    })
}

/// A request's method, and how its arguments are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The index in the descriptor.
    pub(super) method: usize,
    pub(super) codec: Codec,
    /// The levels that the arguments may nest.
    pub(super) max_depth: u32,
    /// Whether the request may have headers besides `rpc-deadline`.
    pub(super) has_headers: bool,
    /// Whether the caller, or a caller further out, has sent the call before.
    pub(super) is_retry: bool,
}

/// Finds the method that a delivery asks for; an error is the answer when there is none, or its version or codec is not known.
#[inline]
pub(super) fn find(descriptor: &ServiceDescriptor, delivery: &Delivery) -> Result<Found, Response> {
    let has_headers = delivery.has_more_headers();
    let mut is_retry = false;
    if has_headers {
        check_versions(descriptor, delivery)?;
        is_retry = envelope::is_retry(|name| delivery.header(name));
    }
    let codec = match delivery.content_type() {
        None => descriptor.codec,
        Some(content_type) => Codec::from_content_type(content_type).ok_or_else(|| {
            Response::failed(Code::BadRequest, format!("content_type '{}' is not understood", printable(content_type)))
        })?,
    };
    // The bare profile has one method, whatever the routing key says.
    let method = match descriptor.queue {
        Some(_) => Some(0).filter(|_| !descriptor.methods.is_empty()),
        None => descriptor.method_of(delivery.routing_key()),
    };
    let max_depth = descriptor.max_depth;
    method
        .map(|method| Found { method, codec, max_depth, has_headers, is_retry })
        .ok_or_else(|| no_such_method(delivery))
}

fn check_versions(descriptor: &ServiceDescriptor, delivery: &Delivery) -> Result<(), Response> {
    let version = |name| envelope::version(delivery.header(name));
    match version(envelope::WIRE_VERSION_HEADER) {
        Some(1) => {}
        wire => return Err(bad_version(wire, "the wire contract", 1)),
    }
    match version(envelope::SERVICE_VERSION_HEADER) {
        Some(version) if version <= descriptor.version.into() => Ok(()),
        newer => Err(bad_version(newer, descriptor.name, descriptor.version)),
    }
}

#[cold]
fn bad_version(asked: Option<u64>, of: &str, served: u32) -> Response {
    let asked =
        asked.map_or_else(|| "a version that is no whole number".to_owned(), |asked| format!("version {asked}"));
    Response::failed(Code::BadVersion, format!("{asked} of {of}, this worker serves {served}"))
}

fn no_such_method(delivery: &Delivery) -> Response {
    let routing_key = printable(delivery.routing_key());
    Response::failed(Code::NoSuchMethod, format!("'{routing_key}' names no method of this service"))
}

//! [`Response`]: how a call ended, as a layer sees it.

use std::{borrow::Cow, error::Error, fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;

use super::{
    headers,
    received::{Body, LazyHeaders},
};
use crate::{
    call_error::{CallError, ErrorDetails, OtherError},
    codec::Codec,
    connection::amqp::HeaderValue,
    envelope::Code,
};

/// The error of a layer, whatever its type.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The future of a service whose type is erased.
pub type BoxFuture = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

/// How a call ended, on its way back through the layers.
///
/// Every end of a call is a response: a result, the service's own error, and whatever kept the call from one. A layer that answers
/// itself, without calling the service that it wraps, makes one with [`ok`](Self::ok) or [`refuse`](Self::refuse).
#[derive(Clone)]
#[non_exhaustive]
pub struct Response {
    pub(crate) outcome: Outcome,
    pub(crate) headers: LazyHeaders,
}

#[derive(Clone)]
pub(crate) enum Outcome {
    /// The result; its codec is the service's if there is none.
    Ok(Option<Codec>, Body),
    /// The service's own error, and what it says of itself.
    Service(Option<Codec>, Body, Option<Box<ErrorDetails>>),
    /// A one-way request was taken: by the broker in a client, by the handler in a pool.
    Nothing,
    /// In a client: any other error.
    Failed(CallError),
    /// In a pool: an error of the framework.
    Coded(Code, String),
    /// An error with a code of a layer.
    Other(Box<OtherError>),
}

impl Response {
    /// A result, encoded by the service's codec.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Outcome::Ok(None, Body::Shared(body.into())).into()
    }

    /// The service's own error, encoded by the service's codec.
    pub fn service_error(body: impl Into<Bytes>) -> Self {
        Outcome::Service(None, Body::Shared(body.into()), None).into()
    }

    /// The same, with the code and the advice that errors with [`ServiceError`](crate::ServiceError) have.
    pub fn detailed_error(body: impl Into<Bytes>, details: ErrorDetails) -> Self {
        Outcome::Service(None, Body::Shared(body.into()), Some(Box::new(details))).into()
    }

    /// An error with a code of the layer's own, for example `unauthenticated`, `permission_denied` or `rate_limited`, and words for
    /// people. The caller reads the code with [`CallError::code`], whatever the method returns.
    ///
    /// The caller learns that the call was not executed, unless the wrapped service was called before. For more of
    /// [`OtherError`]'s fields use [`failed`](Self::failed).
    pub fn refuse(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::failed(OtherError::new(code, message).maybe_executed(false))
    }

    /// An error of a layer. Its [`maybe_executed`](OtherError::maybe_executed) does not count where the wrapped service was not
    /// called: then nothing was executed.
    pub fn failed(error: OtherError) -> Self {
        Outcome::Other(Box::new(error)).into()
    }

    /// `ok`, or the [code](CallError::code) of the error. The service's own error may have a code of its own: see
    /// [`is_service_error`](Self::is_service_error).
    pub fn code(&self) -> &str {
        match &self.outcome {
            Outcome::Ok(..) | Outcome::Nothing => "ok",
            Outcome::Service(_, _, details) => {
                details.as_ref().map_or_else(|| Code::Service.name(), |details| &details.code)
            }
            Outcome::Failed(error) => error.code(),
            Outcome::Coded(code, _) => code.name(),
            Outcome::Other(error) => &error.code,
        }
    }

    /// Whether it is a result, or a one-way request that was taken.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(..) | Outcome::Nothing)
    }

    /// Whether the handler may have run, by this response alone: an earlier attempt of the same call may have been executed, too.
    pub fn maybe_executed(&self) -> bool {
        match &self.outcome {
            Outcome::Ok(..) | Outcome::Nothing | Outcome::Service(..) => true,
            Outcome::Failed(error) => error.maybe_executed(),
            Outcome::Coded(code, _) => code.maybe_executed(),
            Outcome::Other(error) => error.maybe_executed,
        }
    }

    /// Whether the same call may succeed later; see [`CallError::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        match &self.outcome {
            Outcome::Ok(..) | Outcome::Nothing => false,
            Outcome::Service(_, _, details) => details.as_ref().is_some_and(|details| details.retryable),
            Outcome::Failed(error) => error.is_retryable(),
            Outcome::Coded(code, _) => code.is_retryable(),
            Outcome::Other(error) => error.retryable,
        }
    }

    /// How long the service, or a layer, asks callers to wait before they try again; see [`CallError::retry_after`].
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.outcome {
            Outcome::Ok(..) | Outcome::Nothing | Outcome::Coded(..) => None,
            Outcome::Service(_, _, details) => details.as_ref()?.retry_after,
            Outcome::Failed(error) => error.retry_after(),
            Outcome::Other(error) => error.retry_after,
        }
    }

    /// Whether it is the service's own error: the handler ran and returned it.
    pub fn is_service_error(&self) -> bool {
        matches!(self.outcome, Outcome::Service(..))
    }

    /// The encoded result, or the encoded error of the service; `None` when there is neither.
    pub fn body(&self) -> Option<&Bytes> {
        match &self.outcome {
            Outcome::Ok(_, body) | Outcome::Service(_, body, _) => Some(body.get()),
            Outcome::Nothing | Outcome::Failed(_) | Outcome::Coded(..) | Outcome::Other(_) => None,
        }
    }

    /// The words for people that an error carries, if it carries any.
    pub fn message(&self) -> Option<Cow<'_, str>> {
        match &self.outcome {
            Outcome::Ok(..) | Outcome::Nothing => None,
            Outcome::Service(_, _, details) => {
                let message = details.as_ref().map(|details| &*details.message);
                message.filter(|message| !message.is_empty()).map(Cow::Borrowed)
            }
            Outcome::Failed(error) => Some(Cow::Owned(error.to_string())),
            Outcome::Coded(_, message) => Some(Cow::Borrowed(message)),
            Outcome::Other(error) => Some(Cow::Borrowed(&error.message)),
        }
    }

    /// In a client, the error that the core ended the call with.
    pub fn error(&self) -> Option<&CallError> {
        match &self.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The value of a header of the reply; `None` when it is absent, or of a type that [`HeaderValue`] does not have.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        headers::get(self.headers.get(), name)
    }

    /// All headers of the reply. A client's own `rpc-` headers are among them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        headers::iter(self.headers.get())
    }

    /// Sets a header, in place of one of the same name. In a pool it travels with the reply, unless its name is one of the
    /// framework's (`rpc-…`).
    pub fn set_header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) {
        self.headers.change(|headers| headers::set(headers, name.into(), value.into()));
    }
}

impl From<Outcome> for Response {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, headers: LazyHeaders::NONE }
    }
}

/// A reply's data may be secret.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body_bytes = self.body().map(Bytes::len);
        f.debug_struct("Response").field("code", &self.code()).field("body_bytes", &body_bytes).finish_non_exhaustive()
    }
}

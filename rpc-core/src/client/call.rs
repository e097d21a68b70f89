//! [`Call`]: options of one call, and [`CallFuture`], which sends it and waits.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    Client,
    request::{LayeredReply, Reply, Request},
    sending::{Sending, codec_of},
};
use crate::{
    call_error::{CallError, ErrorDetails, UnknownError, is_code_of_framework},
    codec::{Codec, CodecError},
    connection::amqp::HeaderValue,
    envelope,
    layer::RetryPolicy,
    method::{FallibleMethod, Method, Outcome},
    service::ServiceDescriptor,
};

/// A call that is not sent yet: set its options, then `.await` it.
///
/// Each method takes the call and returns it with that option set.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(call: rpc_core::Call<u64>) -> Result<(), rpc_core::CallError> {
/// let answer = call.timeout(Duration::from_millis(200)).priority(5).await?;
/// # Ok(()) }
/// ```
///
/// A call of a one-way method resolves when the broker has confirmed the request.
///
/// # Errors
/// A [`CallError`] for every call without a value: the service's own error, or the reason why there is none. Every call
/// ends within its [`timeout`](Self::timeout).
///
/// # Cancel safety
/// Dropping a `Call` sends nothing. Dropping its future before it resolves cancels the call, as its deadline does: the
/// client notifies the service's workers, which skip the queued request, or stop its handler at the next `.await`. A
/// method with `#[rpc(no_cancel)]` is not stopped, nor is a `#[rpc(blocking)]` one that has begun. The notification may
/// be lost or arrive too late, so a request that was sent may have been executed. A later reply is dropped.
#[must_use = "a call is sent when it is awaited"]
pub struct Call<T, E = Infallible> {
    request: Request,
    decode_error: DecodeError<E>,
    // `fn() -> T`: a call holds no `T`, so it is `Send` whatever `T` is.
    result: std::marker::PhantomData<fn() -> T>,
}

impl Client {
    /// A call of a method that cannot fail. For generated code.
    #[doc(hidden)]
    pub fn __call<M: Method>(
        &self,
        service: &'static ServiceDescriptor,
        method: usize,
        arguments: &M::Arguments,
    ) -> Call<M::Ok> {
        Call::new(self.clone(), service, method, service.codec.encode(arguments), no_service_error)
    }

    /// A call of a method that returns `Result<T, E>`. For generated code.
    #[doc(hidden)]
    pub fn __call_fallible<M: FallibleMethod>(
        &self,
        service: &'static ServiceDescriptor,
        method: usize,
        arguments: &M::Arguments,
    ) -> Call<M::Ok, M::Error> {
        Call::new(self.clone(), service, method, service.codec.encode(arguments), service_error::<M>)
    }
}

/// How the body of a service error is decoded.
pub(super) type DecodeError<E> = fn(&EncodedError<'_>) -> Result<E, Undecoded>;

/// A service error as it arrives.
pub(super) struct EncodedError<'a> {
    codec: Codec,
    body: &'a [u8],
    max_depth: u32,
    /// Its own code, if it has one.
    code: Option<&'a str>,
}

/// Why a service error could not be decoded.
pub(super) enum Undecoded {
    /// The caller's type of it has none with that code.
    Unknown,
    Malformed(CodecError),
}

/// For methods whose handler cannot fail.
pub(super) fn no_service_error(error: &EncodedError<'_>) -> Result<Infallible, Undecoded> {
    Err(match error.code {
        Some(_) => Undecoded::Unknown,
        None => Undecoded::Malformed(Codec::unexpected_service_error()),
    })
}

/// For methods that return a `Result`.
pub(super) fn service_error<M: FallibleMethod>(error: &EncodedError<'_>) -> Result<M::Error, Undecoded> {
    let decoded = error.codec.decode_within(error.body, error.max_depth).map(M::Error::from_wire);
    decoded.map_err(|malformed| match error.code {
        // Types of callers that are no `ServiceError` have no codes.
        Some(code) if !M::ERROR.codes.contains(&code) => Undecoded::Unknown,
        _ => Undecoded::Malformed(malformed),
    })
}

impl<T, E> Call<T, E> {
    pub(super) fn new(
        client: Client,
        service: &'static ServiceDescriptor,
        method: usize,
        body: Result<Vec<u8>, CodecError>,
        decode_error: DecodeError<E>,
    ) -> Self {
        let request = Request::new(client, service, method, body);
        Self { request, decode_error, result: std::marker::PhantomData }
    }

    /// The budget of the whole call, including the wait for a connection. The default is the method's
    /// `#[rpc(timeout = "…")]`, otherwise [`ClientOptions::timeout`](crate::ClientOptions) (10 s).
    ///
    /// Inside a handler the budget is cut to the rest of the handler's own, so that no call outlives its caller.
    pub const fn timeout(mut self, budget: Duration) -> Self {
        self.request.timeout = Some(budget);
        self
    }

    /// Sends the call again under this policy, in place of the one that its method or its client has.
    ///
    /// All calls of a client share its budget of retries ([`ClientOptions::retry_budget`](crate::ClientOptions::retry_budget)).
    ///
    /// ```no_run
    /// # async fn example(call: rpc_core::Call<u64>) -> Result<(), rpc_core::CallError> {
    /// use rpc_core::RetryPolicy;
    ///
    /// let answer = call.retry(RetryPolicy::default().attempts(5)).await?;
    /// # Ok(()) }
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.request.client = self.request.client.retrying_call(policy);
        self
    }

    /// Waits for ever, unless the call is made inside a handler that has a deadline. A call whose method is not
    /// idempotent still ends when the connection is lost.
    pub const fn without_timeout(self) -> Self {
        self.timeout(Duration::MAX)
    }

    /// The AMQP priority, 0 to 255. The default is the method's `#[rpc(priority = n)]`, otherwise none, which counts as
    /// 0. It takes effect when the pool declares its queues with
    /// [`max_priority`](crate::WorkerPool::max_priority).
    pub const fn priority(mut self, priority: u8) -> Self {
        self.request.headers.priority = Some(priority);
        self
    }

    /// Adds a header, which the handler reads with [`Context::header`](crate::Context::header). The default is none.
    ///
    /// Names that start with `rpc-` belong to the framework, and RabbitMQ 4 drops headers whose names start with `x-`. A
    /// name longer than 255 bytes, or more headers than one frame holds, ends the call with
    /// [`BadRequest`](CallError::BadRequest).
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) -> Self {
        self.request.headers.headers.push((name.into(), value.into()));
        self
    }

    /// Sends `key` as the `message_id`, by which the handler ([`Context::message_id`](crate::Context::message_id)) and a pool that
    /// [remembers answers](crate::guide::once) recognise the same logical call. The same key with other arguments is refused there. The
    /// default is a unique one for idempotent and one-way methods, none for others.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.message_id = Some(key.into());
        self
    }
}

/// Neither arguments nor values of headers, which may be secret.
impl<T, E> fmt::Debug for Call<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.request.headers.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Call")
            .field("routing_key", &self.request.routing_key())
            .field("timeout", &self.request.timeout)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

impl<T, E> IntoFuture for Call<T, E>
where
    T: DeserializeOwned + 'static,
    E: 'static,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = CallFuture<T, E>;

    fn into_future(self) -> CallFuture<T, E> {
        let Self { request, decode_error, .. } = self;
        CallFuture { sending: Sending::new(request), decode: Codec::decode_within, decode_error }
    }
}

/// A call under way: it resolves with the method's value or a [`CallError`]. Nothing is sent before the first poll.
///
/// # Cancel safety
/// Dropping it cancels the call, see [`Call`].
#[must_use = "a call is sent when it is awaited"]
pub struct CallFuture<T, E = Infallible> {
    sending: Sending,
    decode: fn(Codec, &[u8], u32) -> Result<T, CodecError>,
    decode_error: DecodeError<E>,
}

impl<T, E> Future for CallFuture<T, E> {
    type Output = Result<T, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.sending.poll(cx).map(|outcome| {
            let result = this.finish(outcome);
            this.sending.note_end(&result);
            result
        })
    }
}

impl<T, E> CallFuture<T, E> {
    fn finish(&self, outcome: Result<Reply, CallError>) -> Result<T, CallError<E>> {
        let request = &self.sending.request;
        let (codec, max_depth) = (request.codec(), request.max_depth());
        let error = match outcome {
            Ok(Reply::Nothing) => match (self.decode)(codec, codec.nothing(), max_depth) {
                Ok(value) => return Ok(value),
                Err(error) => self.bad_reply(&error),
            },
            Ok(Reply::Result(delivery)) => match codec_of(&delivery, codec) {
                Ok(codec) => match (self.decode)(codec, delivery.body(), max_depth) {
                    Ok(value) => return Ok(value),
                    Err(error) => self.bad_reply(&error),
                },
                Err(unknown) => self.bad_reply(&unknown),
            },
            Ok(Reply::ServiceError(delivery)) => match codec_of(&delivery, codec) {
                Ok(codec) => {
                    let details = envelope::error_details(|name| delivery.header(name));
                    match self.service_error(codec, delivery.body(), details) {
                        Ok(error) => return Err(error),
                        Err(error) => error,
                    }
                }
                Err(unknown) => self.bad_reply(&unknown),
            },
            Ok(Reply::Layered(LayeredReply { error: None, codec, body })) => {
                match (self.decode)(codec, &body, max_depth) {
                    Ok(value) => return Ok(value),
                    Err(error) => self.bad_reply(&error),
                }
            }
            Ok(Reply::Layered(LayeredReply { error: Some(details), codec, body })) => {
                match self.service_error(codec, &body, details) {
                    Ok(error) => return Err(error),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let message_id = request.message_id();
        let (service, method) = (request.service_name(), request.method_name());
        tracing::debug!(service, method, message_id, code = error.code(), %error, "call failed");
        Err(error.map_service(|never| match never {}))
    }

    /// The service's own error, or, as an error, why it cannot be decoded.
    fn service_error(
        &self,
        codec: Codec,
        body: &[u8],
        details: Option<Box<ErrorDetails>>,
    ) -> Result<CallError<E>, CallError> {
        let request = &self.sending.request;
        let (service, method) = (request.service_name(), request.method_name());
        let code = details.as_ref().map(|details| &*details.code).filter(|code| !is_code_of_framework(code));
        match (self.decode_error)(&EncodedError { codec, body, max_depth: request.max_depth(), code }) {
            Ok(error) => Ok(CallError::Service { service, method, error, details }),
            Err(Undecoded::Malformed(error)) => Err(self.bad_reply(&error)),
            Err(Undecoded::Unknown) => {
                let details = details.map_or_else(|| ErrorDetails::new("service", ""), |details| *details);
                Err(CallError::unknown_error(service, method, UnknownError::new(details, Bytes::copy_from_slice(body))))
            }
        }
    }

    fn bad_reply(&self, reason: &dyn fmt::Display) -> CallError {
        let request = &self.sending.request;
        CallError::bad_reply(request.service_name(), request.method_name(), reason.to_string())
    }
}

impl<T, E> fmt::Debug for CallFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

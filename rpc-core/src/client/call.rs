//! One call: built, then awaited.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{
    Client,
    in_flight::Waiter,
    request::{Obstacle, Reply, Request},
};
use crate::{
    codec::{Codec, CodecError},
    connection::amqp::HeaderValue,
    error::CallError,
    method::{FallibleMethod, Method, Outcome},
    service::ServiceDescriptor,
};

/// A call that is not sent yet: set its options, then `.await` it.
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
/// # Cancel safety
/// Dropping the future before it resolves cancels the call: the service's workers are told, a handler that runs is
/// stopped at its next `.await` (unless its method is `#[rpc(no_cancel)]`, or on a thread already), a request that is
/// queued is skipped. That message may be lost or come too late, so what was sent may have been executed; a reply that
/// comes later is dropped. So it is with a call whose deadline has passed.
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
        Call::new(self.clone(), service, method, service.codec.encode(arguments), service_error)
    }
}

/// How a service error is read.
pub(super) type DecodeError<E> = fn(Codec, &[u8]) -> Result<E, CodecError>;

/// For methods whose handler cannot fail.
pub(super) fn no_service_error(_: Codec, _: &[u8]) -> Result<Infallible, CodecError> {
    Err(Codec::unexpected_service_error())
}

/// For methods that return a `Result`.
pub(super) fn service_error<E: Outcome>(codec: Codec, body: &[u8]) -> Result<E, CodecError> {
    codec.decode(body).map(E::from_wire)
}

impl<T, E> Call<T, E> {
    pub(super) fn new(
        client: Client,
        service: &'static ServiceDescriptor,
        method: usize,
        body: Result<Vec<u8>, CodecError>,
        decode_error: DecodeError<E>,
    ) -> Self {
        let request = Request::new(client, service, &service.methods[method], body);
        Self { request, decode_error, result: std::marker::PhantomData }
    }

    /// The budget of the whole call, waiting for a connection included.
    ///
    /// Inside a handler it is cut to what the caller of that handler still waits.
    ///
    /// The default is the method's (`#[rpc(timeout = "…")]`), else [`ClientOptions::timeout`](crate::ClientOptions).
    pub const fn timeout(mut self, budget: Duration) -> Self {
        self.request.timeout = Some(budget);
        self
    }

    /// Waits for ever. The call still ends when the connection is lost.
    pub const fn without_timeout(self) -> Self {
        self.timeout(Duration::MAX)
    }

    /// The AMQP priority; it matters when the service queue was declared with `x-max-priority`.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.request.headers.priority = Some(priority);
        self
    }

    /// Adds a header, which the handler reads through its `&Context`.
    ///
    /// Names that start with `rpc-` are the framework's, and RabbitMQ 4 drops those that start with `x-`.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) -> Self {
        self.request.headers.headers.push((name.into(), value.into()));
        self
    }

    /// Sends this `message_id`, by which the handler recognises the same logical call.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.headers.message_id = Some(key.into());
        self
    }
}

impl<T, E> fmt::Debug for Call<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("routing_key", &self.request.routing_key())
            .field("timeout", &self.request.timeout)
            .field("headers", &self.request.headers)
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
        CallFuture { request, stage: Stage::Unsent, decode: Codec::decode, decode_error }
    }
}

/// A call under way; resolves with its result.
#[must_use = "a call is sent when it is awaited"]
pub struct CallFuture<T, E = Infallible> {
    request: Request,
    stage: Stage,
    decode: fn(Codec, &[u8]) -> Result<T, CodecError>,
    decode_error: DecodeError<E>,
}

/// By hand, and not an `async fn` in a box: this is the path of every call.
enum Stage {
    Unsent,
    /// Sent once: nearly every call ends here.
    Waiting(Waiter),
    /// Whatever takes longer: opening a session, waiting for a place, sending again, a confirm.
    Detour(Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send>>),
}

impl<T, E> Future for CallFuture<T, E> {
    type Output = Result<T, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = loop {
            let obstacle = match &mut this.stage {
                Stage::Unsent => match this.request.begin() {
                    Ok(waiter) => {
                        this.stage = Stage::Waiting(waiter);
                        continue;
                    }
                    Err(obstacle) => obstacle,
                },
                Stage::Waiting(waiter) => match waiter.poll_outcome(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => match this.request.conclude(outcome) {
                        Ok(reply) => break Ok(reply),
                        Err(failure) => Obstacle::Failed(failure),
                    },
                },
                Stage::Detour(detour) => match detour.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => break outcome,
                },
            };
            match obstacle.over(&mut this.request) {
                Ok(detour) => this.stage = Stage::Detour(detour),
                Err(error) => break Err(error),
            }
        };
        Poll::Ready(this.finish(outcome))
    }
}

impl<T, E> CallFuture<T, E> {
    fn finish(&self, outcome: Result<Reply, CallError>) -> Result<T, CallError<E>> {
        let codec = self.request.codec();
        let error = match outcome {
            Ok(Reply::Nothing) => match (self.decode)(codec, codec.nothing()) {
                Ok(value) => return Ok(value),
                Err(error) => CallError::BadReply { message: error.to_string() },
            },
            Ok(Reply::Result(delivery)) => match codec_of(delivery.content_type(), codec) {
                Ok(codec) => match (self.decode)(codec, delivery.body()) {
                    Ok(value) => return Ok(value),
                    Err(error) => CallError::BadReply { message: error.to_string() },
                },
                Err(error) => error,
            },
            Ok(Reply::ServiceError(delivery)) => match codec_of(delivery.content_type(), codec) {
                Ok(codec) => match (self.decode_error)(codec, delivery.body()) {
                    Ok(error) => return Err(CallError::Service(error)),
                    Err(error) => CallError::BadReply { message: error.to_string() },
                },
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Here alone, for all the places that leave it empty.
        let error = error.in_method(self.request.routing_key());
        tracing::debug!(code = error.code(), %error, "call failed");
        Err(error.map_service(|never| match never {}))
    }
}

fn codec_of(content_type: Option<&str>, default: Codec) -> Result<Codec, CallError> {
    let Some(content_type) = content_type else { return Ok(default) };
    Codec::from_content_type(content_type)
        .ok_or_else(|| CallError::BadReply { message: format!("unknown content_type '{content_type}'") })
}

impl<T, E> fmt::Debug for CallFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

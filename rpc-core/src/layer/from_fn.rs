//! [`from_fn`]: a layer from an async function.

use std::{
    fmt,
    future::Future,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    request::Request,
    response::{BoxError, Response},
    stack::{Next, take_ready},
};

/// Makes a layer of an async function that takes each request, and the service to pass it to.
///
/// ```
/// use rpc_core::layer::{self, Next, Request, Response};
///
/// /// Refuses calls without a token.
/// async fn with_token(request: Request, next: Next) -> Result<Response, layer::BoxError> {
///     if request.header("token").and_then(|token| token.as_str()) != Some("secret") {
///         return Ok(Response::refuse("unauthenticated", "the header 'token' is missing or wrong"));
///     }
///     next.run(request).await
/// }
///
/// # fn example(connection: &rpc_core::Connection) -> rpc_core::WorkerPool {
/// rpc_core::WorkerPool::new(connection).layer(layer::from_fn(with_token))
/// # }
/// ```
pub fn from_fn<F, R>(function: F) -> FromFn<F>
where
    F: Fn(Request, Next) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response, BoxError>> + Send + 'static,
{
    FromFn { function }
}

/// The layer that [`from_fn`] makes.
#[derive(Clone)]
pub struct FromFn<F> {
    function: F,
}

/// The service of [`FromFn`].
#[derive(Clone)]
pub struct FromFnService<F> {
    function: F,
    next: Next,
}

impl<F: Clone> Layer<Next> for FromFn<F> {
    type Service = FromFnService<F>;

    fn layer(&self, next: Next) -> FromFnService<F> {
        FromFnService { function: self.function.clone(), next }
    }
}

impl<F, R> Service<Request> for FromFnService<F>
where
    F: Fn(Request, Next) -> R,
    R: Future<Output = Result<Response, BoxError>>,
{
    type Response = Response;
    type Error = BoxError;
    type Future = R;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> R {
        (self.function)(request, take_ready(&mut self.next))
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for FromFnService<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFnService").finish_non_exhaustive()
    }
}

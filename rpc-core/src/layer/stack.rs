//! [`Next`]: the service that a layer wraps, and the stack that a client or a pool makes of its layers.

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
};
use crate::lock::lock;

/// A tower [`Layer`] whose service passes on [`Request`]s: implemented for every layer that fits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer of calls",
    label = "its service must be a `Clone` `tower_service::Service<rpc_core::layer::Request>` with `rpc_core::layer::Response`",
    note = "a layer whose service is not `Clone`, as `RateLimit`, goes under a `tower::buffer::BufferLayer`"
)]
pub trait RpcLayer: Send + Sync + 'static + sealed::Sealed {
    #[doc(hidden)]
    fn wrap(&self, next: Next) -> Next;
}

mod sealed {
    pub trait Sealed {}
}

impl<L> sealed::Sealed for L
where
    L: Layer<Next> + Send + Sync + 'static,
    L::Service: RpcService,
{
}

impl<L> RpcLayer for L
where
    L: Layer<Next> + Send + Sync + 'static,
    L::Service: RpcService,
{
    fn wrap(&self, next: Next) -> Next {
        Next(Kind::Layered(Box::new(self.layer(next))))
    }
}

/// The service of a layer: implemented for every one that fits.
pub trait RpcService: Send + 'static {
    #[doc(hidden)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    #[doc(hidden)]
    fn call(&mut self, request: Request) -> BoxFuture;
    #[doc(hidden)]
    fn clone_box(&self) -> Box<dyn RpcService>;
}

impl<S> RpcService for S
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::poll_ready(self, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        Box::pin(Answering { future: Service::call(self, request) })
    }

    fn clone_box(&self) -> Box<dyn RpcService> {
        Box::new(self.clone())
    }
}

/// The service that a layer wraps: the next layer, or, behind the last one, the client's sending or the pool's handlers.
///
/// In a client its response has arrived when the future resolves: the core has sent the call, and again where that is safe. Its own
/// error is one of a foreign layer; everything that the core knows is a [`Response`]. Dropping the future cancels the call.
pub struct Next(Kind);

impl Next {
    /// The client's sending, or the pool's handlers.
    pub(crate) const fn core() -> Self {
        Self(Kind::Core)
    }

    /// Waits until the service is ready, and calls it. Dropping the future cancels the call.
    ///
    /// # Errors
    /// That of a foreign layer further in.
    pub fn run(self, request: Request) -> impl Future<Output = Result<Response, BoxError>> + Send + 'static {
        Run::new(self, request)
    }
}

// Futures by hand: an `async` block would hold, and move, its arguments twice.

/// A request in a service, which has to be ready first.
pub(crate) struct Run {
    next: Next,
    /// Until the service is ready.
    request: Option<Request>,
    answering: Option<BoxFuture>,
}

impl Run {
    fn new(next: Next, request: Request) -> Self {
        Self { next, request: Some(request), answering: None }
    }
}

impl Future for Run {
    type Output = Result<Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { next, request, answering } = self.get_mut();
        if request.is_some() {
            task::ready!(Service::poll_ready(next, cx))?;
        }
        if let Some(request) = request.take() {
            *answering = Some(Service::call(next, request));
        }
        match answering {
            Some(answering) => answering.as_mut().poll(cx),
            None => Poll::Ready(Err("the service of a layer was polled after it had failed".into())),
        }
    }
}

pin_project! {
    /// The future of a layer's service, whose error is boxed.
    struct Answering<F> {
        #[pin]
        future: F,
    }
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_err(Into::into)
    }
}

/// Takes the service that is ready, for a request, and leaves another one.
pub(super) fn take_ready<S: Clone>(service: &mut S) -> S {
    let another = service.clone();
    std::mem::replace(service, another)
}

/// Waits until a service is ready, and calls it.
pub(super) async fn send<S>(mut service: S, request: Request) -> Result<Response, BoxError>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
    service.call(request).await.map_err(Into::into)
}

enum Kind {
    /// Each request brings it along.
    Core,
    Layered(Box<dyn RpcService>),
}

impl Service<Request> for Next {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Kind::Core => Poll::Ready(Ok(())),
            Kind::Layered(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        match &mut self.0 {
            Kind::Core => {
                let core = Arc::clone(&request.core);
                core.run(request)
            }
            Kind::Layered(service) => service.call(request),
        }
    }
}

impl Clone for Next {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Kind::Core => Kind::Core,
            Kind::Layered(service) => Kind::Layered(service.clone_box()),
        })
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Core => "Next(core)",
            Kind::Layered(_) => "Next(layer)",
        })
    }
}

/// The layers of a client or a pool, the outermost first, and the stack that they make.
pub(crate) struct Layers {
    layers: Vec<Arc<dyn RpcLayer>>,
    /// Cloned for each request. Locked, because a service need not be `Sync`.
    stack: Mutex<Next>,
}

impl Layers {
    /// These layers, and another one inside of them.
    pub(crate) fn with(outer: Option<&Self>, layer: impl RpcLayer) -> Self {
        let mut layers = outer.map(|outer| outer.layers.clone()).unwrap_or_default();
        layers.push(Arc::new(layer));
        let stack = layers.iter().rev().fold(Next::core(), |next, layer| layer.wrap(next));
        Self { layers, stack: Mutex::new(stack) }
    }

    /// Passes a request through all of them.
    pub(crate) fn pass(&self, request: Request) -> Run {
        Run::new(self.stack(), request)
    }

    /// The same, whose future has no box of its own where the outermost layer is ready.
    pub(crate) fn begin_to_pass(&self, request: Request, cx: &mut Context<'_>) -> BoxFuture {
        let mut stack = self.stack();
        match Service::poll_ready(&mut stack, cx) {
            Poll::Ready(Ok(())) => Service::call(&mut stack, request),
            Poll::Ready(Err(error)) => Box::pin(ready(Err(error))),
            Poll::Pending => Box::pin(Run::new(stack, request)),
        }
    }

    /// For one request alone: a service may hold a place under a limit from the time when it is ready, and gives it back when it is
    /// dropped.
    fn stack(&self) -> Next {
        lock(&self.stack).clone()
    }
}

/// None: requests go to the core.
impl Default for Layers {
    fn default() -> Self {
        Self { layers: Vec::new(), stack: Mutex::new(Next::core()) }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("len", &self.layers.len()).finish()
    }
}

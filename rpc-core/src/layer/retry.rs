//! [`RetryLayer`]: sends calls again under a [`RetryPolicy`].

mod attempts;
mod budget;
mod latency;
mod policies;
mod policy;
mod verdict;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use self::{
    attempts::{Attempts, Shared},
    policies::Policies,
};
pub use self::{budget::RetryBudget, policy::RetryPolicy};
pub(crate) use self::{latency::Latencies, policies::OfCall};
use super::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
    stack::{Next, take_ready},
};

/// Sends calls again under a [`RetryPolicy`].
///
/// [`ClientOptions::retry`](crate::ClientOptions::retry) puts one inside of all other layers of a client, where most belong: layers
/// around it see each call once. Add it as a layer where the ones further in are to see each attempt:
///
/// ```
/// use rpc_core::{Client, RetryPolicy, layer::RetryLayer};
///
/// # fn example(client: &Client) -> Client {
/// let retry = RetryLayer::new(RetryPolicy::default()).method("stock.take", RetryPolicy::none());
/// client.layer(retry)
/// # }
/// ```
///
/// Of several layers of this kind around a call, the outermost one that has a policy for it applies it alone: attempts do not multiply.
/// Clones share the [budget](RetryBudget) and the times that calls take.
#[derive(Debug, Clone, Default)]
pub struct RetryLayer {
    policies: Arc<Policies>,
    shared: Arc<Shared>,
}

impl RetryLayer {
    /// A layer with this policy for all calls, and the default [budget](RetryBudget).
    pub fn new(policy: RetryPolicy) -> Self {
        Self::default().all(policy)
    }

    /// The same with this policy for all calls that have no other one.
    pub(crate) fn all(mut self, policy: RetryPolicy) -> Self {
        Arc::make_mut(&mut self.policies).default = Some(Arc::new(policy));
        self
    }

    /// Whether it has a policy for any call.
    pub(crate) fn has_policies(&self) -> bool {
        self.policies.has_any()
    }

    /// Passes a request to its core, with no layer in between.
    pub(crate) fn run(&self, request: Request) -> BoxFuture {
        match self.policies.find(&request) {
            None => Next::core().call(request),
            Some(policy) => {
                let attempts = Attempts::new(Next::core(), request, policy, Arc::clone(&self.shared));
                Box::pin(attempts.run(Next::core()))
            }
        }
    }

    /// Another policy for the method of that name, `service.method`.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>, policy: RetryPolicy) -> Self {
        Arc::make_mut(&mut self.policies).set(method.into(), policy);
        self
    }

    /// Another budget; other layers may have the same one.
    #[must_use]
    pub fn budget(self, budget: RetryBudget) -> Self {
        Self { shared: Arc::new(Shared { budget, ..Shared::default() }), ..self }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService { layer: self.clone(), inner }
    }
}

/// The service of [`RetryLayer`].
#[derive(Clone)]
pub struct RetryService<S> {
    layer: RetryLayer,
    inner: S,
}

impl<S> Service<Request> for RetryService<S>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request) -> BoxFuture {
        match self.layer.policies.claim(&mut request) {
            None => {
                let response = self.inner.call(request);
                Box::pin(async move { response.await.map_err(Into::into) })
            }
            Some(policy) => {
                // For the first attempt.
                let ready = take_ready(&mut self.inner);
                let attempts = Attempts::new(self.inner.clone(), request, policy, Arc::clone(&self.layer.shared));
                Box::pin(attempts.run(ready))
            }
        }
    }
}

impl<S> fmt::Debug for RetryService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("layer", &self.layer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

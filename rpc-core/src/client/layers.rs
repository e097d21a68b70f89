//! The layers of a client, and the core behind them; `passing.rs` leads a call through.
//!
//! ```text
//!  Request::enter_layers ──► outermost layer ─ … ─► innermost layer ─(► Retrying ─)─► Sender::run ──► Attempt ──► Sending
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Client,
    attempt::AttemptOf,
    grace::{Graces, Watching},
    layered::Layered,
    request::{FOREVER, LayeredReply, Limits, Reply, Request},
    sending::{Sending, codec_of},
};
use crate::{
    call_error::CallError,
    connection::{Address, Delivery},
    envelope::{self, CallHeaders},
    layer::{
        self, Body, BoxError, BoxFuture, Core, Layers, LazyHeaders, Outcome, Response, RetryLayer, RetryPolicy,
        RpcLayer,
    },
    meter::{Event, Of},
};

impl Client {
    /// A client that shares everything with this one, and whose calls also pass through `layer`.
    ///
    /// The layers of a client stand in the order in which they are added, the first one outermost. Adding one makes the services of
    /// all of them anew: a limit that the earlier client is to share belongs into the layer, as in
    /// `tower::limit::GlobalConcurrencyLimitLayer`. See the guide's chapter on [layers](crate::guide::layers).
    pub fn layer(&self, layer: impl RpcLayer) -> Self {
        let before = self.layered.as_deref();
        let layers = Arc::new(Layers::with(before.map(|layered| &*layered.layers), layer));
        let graces = self.graces();
        let core = before.map_or_else(|| self.core(&graces), |layered| Arc::clone(&layered.core));
        Self { inner: Arc::clone(&self.inner), layered: Some(Arc::new(Layered { layers, core, graces, retry: None })) }
    }

    /// A client that shares everything with this one, and whose calls end when no worker has been there for `grace`, whatever the
    /// [options](crate::ClientOptions::grace) say.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(client: &rpc_core::Client) -> rpc_core::Client {
    /// // StockClient::from_client(client.with_grace(…))
    /// client.with_grace(Duration::from_secs(2))
    /// # }
    /// ```
    #[must_use]
    pub fn with_grace(&self, grace: Duration) -> Self {
        self.clone().with_core(Graces::default().all(grace), self.inner.retry.has_policies())
    }

    /// The same client with these graces, and with calls that are sent again if the options have policies for that.
    pub(super) fn with_core(self, graces: Graces, is_retrying: bool) -> Self {
        let core = if is_retrying { self.retrying_core(&graces) } else { self.core(&graces) };
        let layers = self.layers();
        Self { layered: Some(Arc::new(Layered { layers, core, graces, retry: None })), ..self }
    }

    /// The same client for a call that is sent again under this policy, whatever those of the options are.
    pub(super) fn retrying_call(&self, policy: RetryPolicy) -> Self {
        let graces = self.graces();
        let core = self.retrying_core(&graces);
        let layered = Layered { layers: self.layers(), core, graces, retry: Some(Arc::new(policy)) };
        Self { inner: Arc::clone(&self.inner), layered: Some(Arc::new(layered)) }
    }

    fn layers(&self) -> Arc<Layers> {
        self.layered.as_ref().map(|layered| Arc::clone(&layered.layers)).unwrap_or_default()
    }

    /// A client whose options have some is layered.
    fn graces(&self) -> Graces {
        self.layered.as_ref().map(|layered| layered.graces.clone()).unwrap_or_default()
    }

    fn core(&self, graces: &Graces) -> Arc<dyn Core> {
        let sender = Arc::new(Sender { client: Self { inner: Arc::clone(&self.inner), layered: None } });
        match graces.is_empty() {
            true => sender,
            false => Arc::new(Watching::new(Arc::clone(&self.inner.desks), graces.clone(), sender)),
        }
    }

    /// Behind all layers, so that they see each call once.
    fn retrying_core(&self, graces: &Graces) -> Arc<dyn Core> {
        Arc::new(Retrying { retry: self.inner.retry.clone(), sender: self.core(graces) })
    }
}

/// The service behind the innermost layer of a client that sends calls again.
struct Retrying {
    retry: RetryLayer,
    sender: Arc<dyn Core>,
}

impl Core for Retrying {
    fn run(&self, request: layer::Request) -> BoxFuture {
        self.retry.run(layer::Request { core: Arc::clone(&self.sender), ..request })
    }
}

/// The service behind the innermost layer: sends.
struct Sender {
    /// Without layers.
    client: Client,
}

impl Core for Sender {
    fn run(&self, request: layer::Request) -> BoxFuture {
        let layer::Request { call, mut headers, body, carried, .. } = request;
        if let Some(carried) = carried {
            headers.change(|headers| carried.inherited.fit(headers, self.client.inner.connection.frame_max_bytes()));
        }
        let body = body.into_vec();
        let budget = call.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let deadline = call.deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        let headers = CallHeaders { priority: call.priority, headers: headers.into_inner() };
        let attempt = AttemptOf::new(call);
        if !attempt.is_first() {
            let of = Of::Method(attempt.call.service.name, attempt.call.method.name);
            self.client.inner.counters.note(Event::Retried, of);
        }
        let limits = Limits { budget, deadline };
        let sending = Sending::new(Request::new_attempt(&self.client, attempt.clone(), limits, headers, body));
        Box::pin(Attempt { sending, attempt, is_awaited: false })
    }

    fn server(&self) -> Option<Arc<Address>> {
        self.client.inner.connection.address()
    }
}

/// An attempt under way. It ends at the call's deadline.
struct Attempt {
    sending: Sending,
    attempt: AttemptOf,
    /// By the task of the call, which therefore needs no timer.
    is_awaited: bool,
}

impl Future for Attempt {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_awaited {
            self.is_awaited = self.attempt.call.progress.begin_awaiting();
        }
        self.sending.poll(cx).map(|outcome| {
            let response = self.sending.request.response(outcome);
            if !response.maybe_executed() {
                self.attempt.note_not_executed();
            }
            Ok(response)
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_awaited {
            self.attempt.call.progress.end_awaiting();
        }
    }
}

impl Request {
    /// The end of an attempt, for the layers.
    #[inline]
    fn response(&self, outcome: Result<Reply, CallError>) -> Response {
        let data = |delivery: &Delivery| {
            let codec = codec_of(delivery, self.codec())?;
            Ok::<_, String>((Some(codec), Body::received(delivery.clone())))
        };
        let (outcome, reply) = match outcome {
            Ok(Reply::Nothing) => (Ok(Outcome::Nothing), None),
            Ok(Reply::Result(delivery)) => {
                (data(&delivery).map(|(codec, body)| Outcome::Ok(codec, body)), Some(delivery))
            }
            Ok(Reply::ServiceError(delivery)) => {
                let details = envelope::error_details(|name| delivery.header(name));
                (data(&delivery).map(|(codec, body)| Outcome::Service(codec, body, details)), Some(delivery))
            }
            Ok(Reply::Layered(LayeredReply { error: None, codec, body })) => {
                (Ok(Outcome::Ok(Some(codec), Body::Shared(body))), None)
            }
            Ok(Reply::Layered(LayeredReply { error: Some(details), codec, body })) => {
                (Ok(Outcome::Service(Some(codec), Body::Shared(body), details)), None)
            }
            Err(CallError::Other { error, .. }) => (Ok(Outcome::Other(error)), None),
            Err(error) => (Ok(Outcome::Failed(error)), None),
        };
        let (service, method) = (self.service_name(), self.method_name());
        let outcome = outcome.unwrap_or_else(|unknown| Outcome::Failed(CallError::bad_reply(service, method, unknown)));
        let headers = reply.map_or(LazyHeaders::NONE, LazyHeaders::received);
        Response { outcome, headers }
    }
}

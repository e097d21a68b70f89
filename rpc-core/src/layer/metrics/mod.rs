//! [`MetricsLayer`]: times and counts every call, and every request of a pool, by the facade `metrics`.

mod keys;
mod metering;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use self::{keys::Known, metering::Metering};
use super::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
    stack::Next,
};
use crate::meter;

/// A layer that measures: how long each call of a client takes, or each request of a pool, and how many are under way.
///
/// It records into the `metrics` facade, so into the recorder that the program has installed, in which any exporter may stand. Names,
/// attributes and buckets are those of OpenTelemetry. Labels come from descriptors alone. The guide's chapter on
/// [metrics](crate::guide::metrics) lists all metrics, also those which need no layer.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `rpc.client.call.duration`, `rpc.server.call.duration` | histogram, s | `rpc.system.name`, `rpc.method`, `rpc.response.status_code`, `error.type`; in a client `server.address`, `server.port` |
/// | of one-way methods `messaging.client.operation.duration`, `messaging.process.duration` | histogram, s | `messaging.…`, `error.type`; in a client `server.address`, `server.port` |
/// | `rpc_amqp.client.active_calls`, `rpc_amqp.server.active_calls` | gauge | `rpc.method` |
/// | `rpc_amqp.server.queue_wait` | histogram, s | `rpc.method` |
///
/// A call is measured to its end, also when it is dropped; its code is then that of
/// [`TraceLayer`](super::TraceLayer). One layer, and its clones, may serve any number of clients and pools.
///
/// ```
/// use rpc_core::{Client, Connection, WorkerPool, layer::MetricsLayer};
///
/// // After the recorder is installed: the layer describes its metrics to it.
/// fn measured(connection: &Connection) -> (Client, WorkerPool) {
///     let metrics = MetricsLayer::new();
///     let client = Client::new(connection).layer(metrics.clone());
///     let pool = WorkerPool::new(connection).layer(metrics);
///     (client, pool)
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer is added with `layer`"]
pub struct MetricsLayer {
    known: Arc<Known>,
}

impl MetricsLayer {
    /// The bounds that OpenTelemetry recommends for the classes of times, in seconds. An exporter has to be told them.
    pub const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// A layer; describes all metrics of this crate to the recorder that is installed.
    pub fn new() -> Self {
        meter::describe();
        Self { known: Arc::default() }
    }
}

impl Default for MetricsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer<Next> for MetricsLayer {
    type Service = MetricsService;

    fn layer(&self, next: Next) -> MetricsService {
        MetricsService { next, known: Arc::clone(&self.known) }
    }
}

/// The service of [`MetricsLayer`].
#[derive(Debug, Clone)]
pub struct MetricsService {
    next: Next,
    known: Arc<Known>,
}

impl Service<Request> for MetricsService {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        let keys = self.known.of(&request.call, request.core.server());
        let mut metering = Metering::begin(keys, Arc::clone(&request.call));
        let response = self.next.call(request);
        Box::pin(async move {
            let answered = response.await;
            metering.end(&answered);
            answered
        })
    }
}

//! [`FakePool`]: services for unit tests, in the same process as the client that calls them.
//!
//! Only here do client and worker meet outside of a broker.

use std::{fmt, sync::Arc};

use crate::{
    client::{Client, ClientOptions},
    layer::{Layers, RpcLayer},
    worker::{Dispatch, InProcess, Local},
};

/// Services and layers in the same process as their client, without a broker: for unit tests.
///
/// Code under test gets a client that differs in nothing from a real one. Its calls are encoded and decoded, pass through the
/// layers of client and pool, and end with the same errors; options of a call and of the client hold; the handler finds headers,
/// deadline and cancellation in its [`Context`](crate::Context), and a panic of it is
/// [`CallError::Internal`](crate::CallError::Internal). The guide's chapter on [testing](crate::guide::testing) has examples.
///
/// A handler runs in the task of its caller. A `#[rpc(oneway)]` call resolves once its handler has ended or waits for something; it then
/// goes on in a task of its own, as a `#[rpc(no_cancel)]` one does whose caller gives up, until the last clone of the client is
/// dropped. Options about a broker have no effect, such as [`max_in_flight`](ClientOptions::max_in_flight) and priorities; all
/// handlers run at once.
#[derive(Default)]
#[must_use = "a fake pool serves its client alone"]
pub struct FakePool {
    services: Vec<Local>,
    /// Of all services, the outermost first.
    layers: Option<Arc<Layers>>,
}

impl FakePool {
    /// A pool without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service. Of two of the same name the one that is added last is called.
    pub fn serve(mut self, service: impl Dispatch) -> Self {
        self.services.push(Local { service: Arc::new(service), layers: None });
        self
    }

    /// Adds a service whose requests also pass through `layer`, inside of the [pool's layers](Self::layer).
    pub fn serve_with(mut self, service: impl Dispatch, layer: impl RpcLayer) -> Self {
        let layers = Some(Arc::new(Layers::with(None, layer)));
        self.services.push(Local { service: Arc::new(service), layers });
        self
    }

    /// Passes the requests of all services through `layer`, as [`WorkerPool::layer`](crate::WorkerPool::layer) does; the first one
    /// that is added is the outermost.
    pub fn layer(mut self, layer: impl RpcLayer) -> Self {
        self.layers = Some(Arc::new(Layers::with(self.layers.as_deref(), layer)));
        self
    }

    /// The client of these services, with the default options. A call of another service is
    /// [`CallError::NoSuchService`](crate::CallError::NoSuchService).
    pub fn client(self) -> Client {
        self.client_with(ClientOptions::default())
    }

    /// The client with other options.
    pub fn client_with(self, options: ClientOptions) -> Client {
        Client::of_servers(Arc::new(InProcess::new(self.services, self.layers.as_ref())), options)
    }
}

impl Client {
    /// A client whose calls go to `service` in this process, without a broker: for unit tests. The same as a [`FakePool`] of one
    /// service. A generated client has a function of this name, too.
    pub fn fake(service: impl Dispatch) -> Self {
        FakePool::new().serve(service).client()
    }
}

impl fmt::Debug for FakePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|local| local.service.descriptor().name).collect();
        f.debug_struct("FakePool").field("services", &services).finish_non_exhaustive()
    }
}

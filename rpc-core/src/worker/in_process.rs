//! Services in the process of their callers, without a broker: [`InProcess`].
//!
//! Layers, handlers, their deadlines and panics are those of a pool. There is nothing of a broker: no queues, no redelivery, no dead
//! letters, no cancels as messages.
//!
//! ```text
//!  request ──► find its service and method ──► layers ──► handler ──► reply as a message
//!                                                            └─ dropped: cancelled, or, if it must go on, moved to `Rest`
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll, ready},
};

use tokio::{runtime::Handle, task::AbortHandle, time::Instant};
use tracing::{Instrument, Span};

use super::{
    dispatch::{self, Answer, Dispatch, Request, Response},
    execute::{handler_span, seat},
    layers::{Layered, Parts},
    running::{self, Running},
    stats::Counters,
};
use crate::{
    connection::Delivery,
    context::Context,
    envelope::{self, Code},
    forward::Forwarding,
    layer::Layers,
    lock::lock,
    nesting::{Room, Slot},
    printable::printable,
    servers::{Servers, Serving},
    service::{MethodDescriptor, ServiceDescriptor},
    slots::Slots,
};

/// A service, and the layers of it alone.
pub(crate) struct Local {
    pub(crate) service: Arc<dyn Dispatch>,
    pub(crate) layers: Option<Arc<Layers>>,
}

/// Services behind their layers. Dropping it stops the handlers that go on without a caller.
pub(crate) struct InProcess {
    services: Vec<Arc<dyn Dispatch>>,
    counters: Arc<Counters>,
    /// Of requests from outside, and of those that handlers make.
    rooms: [Arc<Room>; 2],
    rest: Arc<Rest>,
}

/// The handlers whose callers wait no longer. They are stopped with their servers.
#[derive(Default)]
struct Rest(Mutex<Vec<AbortHandle>>);

impl Drop for Rest {
    fn drop(&mut self) {
        lock(&self.0).iter().for_each(AbortHandle::abort);
    }
}

impl InProcess {
    /// `layers` are the outer ones, of all services.
    pub(crate) fn new(services: Vec<Local>, layers: Option<&Arc<Layers>>) -> Self {
        let forwarding = Arc::new(Forwarding::new(Forwarding::default_names()));
        let counters = Arc::new(Counters::without_broker(forwarding));
        let wrap = |Local { service, layers: own }| {
            let (of_pool, counters) = (layers.map(Arc::clone), Arc::clone(&counters));
            Layered::wrap(Parts { service, of_pool, of_service: own, dedupe: None, counters })
        };
        let services = services.into_iter().map(wrap).collect();
        // All handlers run at once.
        let slots = Arc::new(Slots::new(usize::MAX));
        let rooms = [Room::new(Arc::clone(&slots), None), Room::new(slots, Some(usize::MAX))];
        Self { services, counters, rooms, rest: Arc::default() }
    }

    /// The service that a broker would route a request to; of two, the one that was added last.
    fn service_of(&self, routing_key: &str) -> Option<&Arc<dyn Dispatch>> {
        self.services.iter().rev().find(|service| {
            let ServiceDescriptor { name, queue, .. } = service.descriptor();
            match queue {
                Some(queue) => routing_key == *queue,
                None => routing_key.split_once('.').is_some_and(|(service, _)| service == *name),
            }
        })
    }

    fn begin(&self, service: &Arc<dyn Dispatch>, request: &Delivery, deadline: Option<Instant>) -> State {
        let descriptor = service.descriptor();
        let found = match dispatch::find(descriptor, request) {
            Ok(found) => found,
            Err(response) => return State::Answered(response),
        };
        let now = Instant::now();
        let context = Context::until(request.clone(), now, deadline);
        if context.is_expired(now) {
            return State::Unanswered;
        }
        let is_nested = found.has_headers && request.header(envelope::DEPTH_HEADER).is_some();
        let room = &self.rooms[usize::from(is_nested)];
        let span = handler_span(descriptor, &context, found.method);
        let request = Request::new(context, found);
        let seat = Slot::take(room).map(|slot| seat(room, &self.counters, slot, &request)).unwrap_or_default();
        match span.in_scope(|| running::start(&**service, request, seat)) {
            Ok(running) => State::Running(running, span),
            Err(response) => State::Answered(response),
        }
    }
}

impl Servers for InProcess {
    fn serve(&self, request: Delivery, deadline: Option<Instant>) -> Option<Serving> {
        let service = self.service_of(request.routing_key())?;
        let method = service.descriptor().method_for(request.routing_key());
        let state = self.begin(service, &request, deadline);
        let (rest, runtime) = (Arc::clone(&self.rest), Handle::current());
        Some(Box::pin(Served { service: service.descriptor(), method, request, state, rest, runtime }))
    }

    fn version(&self, service: &str) -> Option<u32> {
        let descriptors = self.services.iter().map(|service| service.descriptor());
        descriptors.rev().find(|known| known.name == service).map(|known| known.version)
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|service| service.descriptor().name).collect();
        f.debug_struct("InProcess").field("services", &services).finish_non_exhaustive()
    }
}

/// A request that is served.
struct Served {
    service: &'static ServiceDescriptor,
    method: Option<&'static MethodDescriptor>,
    request: Delivery,
    state: State,
    rest: Arc<Rest>,
    runtime: Handle,
}

enum State {
    Running(Running, Span),
    /// Without a handler.
    Answered(Response),
    /// It had expired. There is never an answer.
    Unanswered,
    Ended,
}

impl Future for Served {
    type Output = Option<Delivery>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Running(running, span) = &mut this.state {
            let response = ready!(span.in_scope(|| Pin::new(running).poll(cx)));
            this.state = State::Answered(response);
        }
        match std::mem::replace(&mut this.state, State::Ended) {
            State::Answered(response) => {
                log_failure(this.service, &this.request, &response);
                Poll::Ready(reply(&this.request, response))
            }
            State::Running(..) | State::Unanswered | State::Ended => Poll::Pending,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let State::Running(running, span) = std::mem::replace(&mut self.state, State::Ended) else { return };
        // As in a pool: nobody waits for a one-way request, and a method may forbid that its callers stop it.
        if self.method.is_some_and(|method| method.oneway || method.no_cancel) {
            let (service, request) = (self.service, self.request.clone());
            let ending = async move { log_failure(service, &request, &running.await) };
            return self.rest.go_on(ending.instrument(span), &self.runtime);
        }
        self.request.cancel();
        span.in_scope(|| drop(running));
    }
}

impl Rest {
    fn go_on(&self, handler: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        // Outside of the lock: a runtime that has ended drops the handler at once, and with it calls that go on in the same way.
        let task = runtime.spawn(handler).abort_handle();
        let mut tasks = lock(&self.0);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

/// Names a request that failed in the log, as a pool does.
fn log_failure(service: &ServiceDescriptor, request: &Delivery, response: &Response) {
    if request.reply_to().is_none()
        && let Some((code, message)) = response.answer().and_then(Answer::failure_without_reply)
    {
        let (service, routing_key) = (service.name, request.routing_key());
        let (code, message) = (printable(code), printable(message));
        return tracing::warn!(service, routing_key, %code, %message, "a one-way request failed");
    }
    let Some((code, message)) = response.failure() else { return };
    let (service, routing_key) = (service.name, request.routing_key());
    let message = printable(message);
    match code == Code::Internal.name() {
        true => tracing::error!(service, routing_key, code, %message, "a request failed"),
        false => tracing::debug!(service, routing_key, code = %printable(code), %message, "answered with an error"),
    }
}

/// The answer as a message; `None` when there is none, or nobody to read it.
fn reply(request: &Delivery, response: Response) -> Option<Delivery> {
    let (answer, reply_to) = (response.into_answer()?, request.reply_to()?);
    let (properties, body) = answer.message(request, reply_to);
    match Delivery::of_message(reply_to, &properties, body) {
        Ok(reply) => Some(reply),
        Err(error) => {
            let message = format!("the reply cannot be sent: {error}");
            let properties = envelope::error_properties(request.correlation_id_bytes(), Code::Internal, &message);
            Delivery::of_message(reply_to, &properties, b"").ok()
        }
    }
}

//! [`Watching`]: a core that ends attempts when nobody serves them.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    board::Decision,
    desk::{Desks, Seat},
    terms::Graces,
};
use crate::{
    budget,
    call_error::CallError,
    connection::Address,
    layer::{BoxError, BoxFuture, Core, LogicalCall, Outcome, Request, Response},
    meter::{Event, Of},
};

/// In front of the sending of a client.
pub(in crate::client) struct Watching {
    desks: Arc<Desks>,
    graces: Graces,
    sender: Arc<dyn Core>,
}

impl Watching {
    pub(in crate::client) fn new(desks: Arc<Desks>, graces: Graces, sender: Arc<dyn Core>) -> Self {
        Self { desks, graces, sender }
    }

    /// The grace of a call; `None` when it may wait for no worker, or would end earlier anyway.
    fn grace_of(&self, request: &Request) -> Option<Duration> {
        let grace = self.graces.of(request.call.service.name).filter(|_| !request.is_oneway())?;
        request.remaining().is_none_or(|remaining| grace < remaining).then_some(grace)
    }
}

impl Core for Watching {
    fn run(&self, request: Request) -> BoxFuture {
        let watched = self.grace_of(&request).and_then(|grace| {
            let seat = self.desks.enter(&request.call, grace, budget::is_within_handler())?;
            Some((seat, grace))
        });
        match watched {
            None => self.sender.run(request),
            Some((seat, grace)) => {
                let (desks, sender) = (Arc::clone(&self.desks), Arc::clone(&self.sender));
                Box::pin(Watched { desks, seat, grace }.run(sender, request))
            }
        }
    }

    fn server(&self) -> Option<Arc<Address>> {
        self.sender.server()
    }
}

/// An attempt under watch.
struct Watched {
    desks: Arc<Desks>,
    seat: Seat,
    grace: Duration,
}

impl Watched {
    async fn run(self, sender: Arc<dyn Core>, request: Request) -> Result<Response, BoxError> {
        let call = Arc::clone(&request.call);
        if self.seat.is_held() {
            // A handler leaves its slot meanwhile, as it does while it waits for a reply.
            let nested = match budget::nested_call() {
                Some(Err(reason)) => {
                    let error = CallError::overloaded(call.service.name, call.method.name, reason);
                    return Ok(Outcome::Failed(error).into());
                }
                nested => nested,
            };
            let decision = self.seat.decided().await;
            drop(nested);
            if decision == Decision::Nobody {
                return Ok(self.unserved(&call));
            }
        }
        let begun_at = Instant::now();
        let mut sending = sender.run(request);
        let ended = poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => self.seat.poll_sent(cx).map(|()| None),
        });
        let Some(response) = ended.await else {
            // Cancels what was sent: a worker may have come a moment ago.
            drop(sending);
            return Ok(self.unserved(&call));
        };
        if response.as_ref().is_ok_and(|response| response.is_ok() || response.is_service_error()) {
            self.seat.note_reply();
            self.desks.note_time(&call, begun_at.elapsed());
        }
        response
    }

    fn unserved(&self, call: &LogicalCall) -> Response {
        let (service, method) = (call.service.name, call.method.name);
        self.desks.counters.note(Event::Unserved, Of::Method(service, method));
        let message = format!("no worker has been there for {:?}", self.grace);
        Outcome::Failed(CallError::unserved(service, method, message, call.progress.maybe_executed())).into()
    }
}

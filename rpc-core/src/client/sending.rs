//! [`Sending`]: sends a request and waits for its reply, whatever its type.

use std::task::{self, Poll};

use tokio::runtime::Handle;

use super::{
    in_flight::Waiter,
    kept::outside,
    passing::Passing,
    request::{Obstacle, Reply, Request},
    resend::{Detour, Failed},
};
use crate::{call_error::CallError, codec::Codec, connection::Delivery};

/// A request on its way, until its reply has come. Nothing is sent before the first poll; dropping it cancels the call.
pub(super) struct Sending {
    pub(super) request: Request,
    stage: Stage,
    /// Whether it is counted as a call that has not ended.
    is_running: bool,
}

/// Written by hand, because an `async fn` would box the future of every call.
enum Stage {
    Unsent,
    /// Sent once. Nearly every call ends here.
    Waiting(Waiter),
    /// Passes through the layers of its client.
    Layers(Passing),
    /// Opens a session, waits for a free place, sends again, or awaits a confirm.
    Detour(Detour),
}

impl Sending {
    pub(super) fn new(request: Request) -> Self {
        Self { request, stage: Stage::Unsent, is_running: false }
    }

    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Reply, CallError>> {
        let outcome = loop {
            let obstacle = match &mut self.stage {
                Stage::Unsent => {
                    self.note_begin();
                    let begun = match self.request.client.layered.take() {
                        Some(layered) => self.request.enter_layers(&layered, cx).map(Stage::Layers),
                        None => self.request.begin().map(Stage::Waiting),
                    };
                    match begun {
                        Ok(stage) => {
                            self.stage = stage;
                            continue;
                        }
                        Err(obstacle) => obstacle,
                    }
                }
                Stage::Waiting(waiter) => match waiter.poll_outcome(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => match self.request.conclude(outcome) {
                        Ok(reply) => break Ok(reply),
                        Err(failure) => Obstacle::Failed(failure),
                    },
                },
                // They have timers.
                Stage::Layers(_) | Stage::Detour(_) if Handle::try_current().is_err() => {
                    break Err(self.request.topology(outside()));
                }
                Stage::Layers(passing) => match passing.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(answered) => break self.request.leave_layers(answered, &passing.call),
                },
                Stage::Detour(detour) => match detour.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(reply)) => break Ok(reply),
                    Poll::Ready(Err(Failed { error, message_id })) => {
                        self.request.message_id = message_id;
                        break Err(error);
                    }
                },
            };
            match obstacle.over(&mut self.request) {
                Ok(detour) => self.stage = Stage::Detour(detour),
                Err(error) => break Err(error),
            }
        };
        self.request.end();
        Poll::Ready(outcome)
    }
}

/// An attempt is not counted: the logical call is.
impl Sending {
    fn note_begin(&mut self) {
        if self.request.attempt_of.is_none() {
            self.is_running = true;
            self.request.note_begin();
        }
    }

    /// Counts the end of the call.
    pub(super) fn note_end<T, E>(&mut self, result: &Result<T, CallError<E>>) {
        self.is_running = false;
        match result {
            Ok(_) => self.request.note_end(None),
            Err(error) => self.request.note_failure(error),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.is_running {
            self.request.note_dropped();
        }
    }
}

/// The codec of a reply's body; an error says that its content_type is unknown.
pub(super) fn codec_of(reply: &Delivery, default: Codec) -> Result<Codec, String> {
    let Some(content_type) = reply.content_type() else { return Ok(default) };
    Codec::from_content_type(content_type).ok_or_else(|| format!("its content_type '{content_type}' is unknown"))
}

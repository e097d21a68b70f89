//! A handler that runs: guarded against its panics, stopped at its caller's deadline.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{self, Poll},
};

use tokio::time::{Sleep, sleep_until};

use super::{
    dispatch::{Dispatch, Handler, Request, Response},
    seated::Seated,
};
use crate::{
    budget::{self, Serving},
    envelope::Code,
    nesting::Seat,
    printable::printable,
};

/// Starts a handler in a slot; an error is the answer when that panics.
pub(super) fn start(service: &dyn Dispatch, request: Request, seat: Seat) -> Result<Running, Response> {
    start_with(|request| service.dispatch(request), request, seat)
}

/// The same for one that `dispatch` makes.
pub(super) fn start_with(
    dispatch: impl FnOnce(Request) -> Handler,
    request: Request,
    seat: Seat,
) -> Result<Running, Response> {
    let mut serving = Serving::new(request.context().deadline(), seat);
    let handler = guarded(|| budget::within(&mut serving, || dispatch(request)))?;
    Ok(Running { handler: Seated::new(handler, serving), timer: None })
}

/// A handler on its way to an answer: a panic becomes `internal`, and a handler that outlives its caller's patience is
/// stopped and becomes `timeout`.
pub(super) struct Running {
    handler: Seated<Handler>,
    /// Most handlers never wait: only one that does is worth a timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Future for Running {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Response> {
        let Self { handler, timer } = &mut *self;
        match guarded(|| Pin::new(&mut *handler).poll(cx)) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(response)) | Err(response) => return Poll::Ready(response),
        }
        let Some(deadline) = handler.serving.deadline() else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Response::failed(Code::Timeout, "the handler was stopped at the caller's deadline"))
    }
}

/// A handler that is stopped may panic while it is dropped: that must end neither the task nor the consume loop, which would
/// keep its place for ever.
impl Drop for Running {
    fn drop(&mut self) {
        let handler = std::mem::replace(self.handler.future(), Box::pin(std::future::pending()));
        let serving = &mut self.handler.serving;
        if let Err(panicked) = guarded(|| budget::within(serving, || drop(handler))) {
            log_late_panic(&panicked);
        }
    }
}

/// Of a handler that no longer answers: its request has ended before, or ends with the answer of something else.
#[cold]
fn log_late_panic(panicked: &Response) {
    let message = panicked.failure().map_or("", |(_, message)| message);
    tracing::error!(message = %printable(message), "a handler that was stopped panicked");
}

/// Runs a piece of a handler; an error is the answer when it panics.
fn guarded<T>(piece: impl FnOnce() -> T) -> Result<T, Response> {
    // No state of a handler that panicked is used again, so unwind safety does not matter.
    std::panic::catch_unwind(AssertUnwindSafe(piece)).map_err(panicked)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = printable(panic_message(&*panic)).up_to(PANIC_MESSAGE_MAX_BYTES).to_string();
    // The payload is the handler's own type, whose `Drop` may panic as well.
    if let Err(second) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
    Response::failed(Code::Internal, format!("the handler panicked: {message}"))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// Of a panic's message in the log and in the reply.
const PANIC_MESSAGE_MAX_BYTES: usize = 1_024;

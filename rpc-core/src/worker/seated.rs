//! A handler that is polled while it has a slot, and not without one.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use crate::budget::{self, Serving};

/// The future of a handler, or of its thread, with the call that it serves.
pub(super) struct Seated<F> {
    future: F,
    pub(super) serving: Serving,
    /// Waits for a slot after a nested call.
    resuming: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<F: Future + Unpin> Seated<F> {
    pub(super) fn new(future: F, serving: Serving) -> Self {
        Self { future, serving, resuming: None }
    }

    pub(super) fn future(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for Seated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Self { future, serving, resuming } = self.get_mut();
        if let Some(nest) = serving.seat.left() {
            ready!(resuming.get_or_insert_with(|| Box::pin(nest.resume())).as_mut().poll(cx));
        }
        // Also when it is not needed: a thread and its handler share the slot, and the other one may have taken it.
        *resuming = None;
        let polled = budget::within(serving, || Pin::new(future).poll(cx));
        if polled.is_pending() {
            serving.seat.leave_if_calling();
        }
        polled
    }
}

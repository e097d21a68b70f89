//! The call that a task serves: the calls it makes inherit the deadline, and know that they are nested ones.
//!
//! ```text
//!  handler (deadline of its caller) ──poll──► within(serving) ──► a nested call asks inherited_deadline(), nested_call()
//!     └──rpc_core::spawn──► task ─────poll──► the same
//! ```

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use tokio::{task::JoinHandle, time::Instant};
use tracing::Instrument;

use crate::{
    forward::Forwarded,
    nesting::{Nest, NestedCall, Seat},
};

thread_local! {
    /// Of the piece that runs on this thread. A plain place, because three pieces a call are paid for.
    static SERVING: RefCell<Serving> = const { RefCell::new(Serving::NONE) };
}

/// A handler's deadline and slot, or those of work that it has started elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// When the caller of the handler stops waiting.
    deadline: Option<Instant>,
    pub(crate) seat: Seat,
}

impl Serving {
    /// Of whatever serves no call.
    const NONE: Self = Self { deadline: None, seat: Seat::Free };

    pub(crate) fn new(deadline: Option<Instant>, seat: Seat) -> Self {
        Self { deadline, seat }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The deadline that calls made here inherit; `None` outside a handler, or when its caller did not send one.
pub(crate) fn inherited_deadline() -> Option<Instant> {
    here(|serving| serving.deadline)
}

/// Notes that a call begins here; `None` outside a handler, an error when the handler must not wait for it.
pub(crate) fn nested_call() -> Option<Result<NestedCall, String>> {
    here(|serving| serving.seat.begin_call())
}

/// Whether calls made here are a handler's.
pub(crate) fn is_within_handler() -> bool {
    here(|serving| (!matches!(serving.seat, Seat::Free)).then_some(())).is_some()
}

/// The headers that calls made here inherit.
pub(crate) fn forwarded() -> Option<Arc<Forwarded>> {
    here(|serving| serving.seat.forwarded())
}

/// Replaces the headers that calls made here inherit; without effect outside a handler.
pub(crate) fn forward(forwarded: Option<Arc<Forwarded>>) {
    here(|serving| {
        serving.seat.forward(forwarded);
        Some(())
    });
}

/// Whether the handler that runs here serves a request that is a retry.
pub(crate) fn is_within_retry() -> bool {
    here(|serving| serving.seat.is_retry().then_some(())).is_some()
}

/// The same call, for a thread on which its handler runs.
pub(crate) fn on_thread() -> Serving {
    elsewhere(Seat::Thread).unwrap_or_default()
}

/// `None` outside a handler.
fn elsewhere(seat: fn(Arc<Nest>) -> Seat) -> Option<Serving> {
    here(|serving| {
        let elsewhere = Serving { deadline: serving.deadline, seat: serving.seat.nest().map(seat).unwrap_or_default() };
        let is_none = elsewhere.deadline.is_none() && matches!(elsewhere.seat, Seat::Free);
        (!is_none).then_some(elsewhere)
    })
}

/// `None` also on a thread that ends: it has no place for a call any more, and makes none.
fn here<T>(read: impl FnOnce(&mut Serving) -> Option<T>) -> Option<T> {
    SERVING.try_with(|place| read(&mut place.borrow_mut())).ok().flatten()
}

/// Runs a piece of a handler, whose calls inherit its deadline.
pub(crate) fn within<T>(serving: &mut Serving, piece: impl FnOnce() -> T) -> T {
    let _inside = Inside::new(serving);
    piece()
}

/// While this lives, this thread serves its call, and it holds the call that was served before.
struct Inside<'a>(&'a mut Serving);

impl<'a> Inside<'a> {
    fn new(serving: &'a mut Serving) -> Self {
        exchange(serving);
        Self(serving)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        exchange(self.0);
    }
}

fn exchange(serving: &mut Serving) {
    let _ = SERVING.try_with(|place| std::mem::swap(&mut *place.borrow_mut(), serving));
}

/// Spawns a task that keeps the budget of the call being served, as handlers should instead of [`tokio::spawn`].
///
/// Calls that the task makes inherit what is left of the handler's budget, as calls made by the handler itself do; in a task of
/// `tokio::spawn` they get a client's default budget, and go on for a caller that has given up. The task also stays in the
/// handler's `tracing` span, and in its trace. Outside a handler this is `tokio::spawn`.
///
/// The task is **not** stopped with its handler. When the caller gives up, when its deadline passes or when the pool stops, the
/// pool drops the handler's future, and the task goes on. A task that should end then waits for [`Context::cancelled`] on
/// a clone of the handler's [`Context`]:
///
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// # use rpc_core::{Context, service};
/// # async fn render(_page: u32) {}
/// #[service]
/// trait Printer {
///     async fn print(&self, pages: u32, ctx: &Context);
/// }
///
/// struct Laser;
/// impl Printer for Laser {
///     async fn print(&self, pages: u32, ctx: &Context) {
///         let ctx = ctx.clone();
///         let work = rpc_core::spawn(async move {
///             for page in 0..pages {
///                 tokio::select! {
///                     () = render(page) => {}
///                     () = ctx.cancelled() => return,
///                 }
///             }
///         });
///         let _ = work.await;
///     }
/// }
/// # fn main() {}
/// ```
///
/// [`Context`]: crate::Context
/// [`Context::cancelled`]: crate::Context::cancelled
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let future = traced(future);
    match elsewhere(Seat::Task) {
        Some(serving) => tokio::spawn(Kept { future: Some(Box::pin(future)), serving }),
        None => tokio::spawn(future),
    }
}

/// Keeps the `tracing` span that is current here, and, with the feature `otel`, OpenTelemetry's context.
pub(crate) fn traced<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "otel")]
    let future = opentelemetry::context::FutureExt::with_current_context(future);
    future.in_current_span()
}

/// The future of a task that keeps the call of the handler that has started it.
struct Kept<F> {
    /// `None` once it is dropped.
    future: Option<Pin<Box<F>>>,
    serving: Serving,
}

impl<F: Future> Future for Kept<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Self { future, serving } = self.get_mut();
        match future {
            Some(future) => within(serving, || future.as_mut().poll(cx)),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Kept<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        within(&mut self.serving, || drop(future));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_spawned_task_keeps_the_deadline_and_so_does_one_that_it_spawns() {
        let deadline = Instant::now() + Duration::from_secs(3);
        let serving = |deadline| Serving::new(deadline, Seat::Free);
        let nested = || spawn(async { spawn(async { inherited_deadline() }).await.unwrap() });
        assert_eq!(within(&mut serving(Some(deadline)), nested).await.unwrap(), Some(deadline));
        assert_eq!(within(&mut serving(None), nested).await.unwrap(), None);
        let by_tokio = within(&mut serving(Some(deadline)), || tokio::spawn(async { inherited_deadline() }));
        assert_eq!(by_tokio.await.unwrap(), None, "the reason for `rpc_core::spawn`");
    }

    #[tokio::test]
    async fn what_a_task_drops_at_its_end_keeps_the_deadline_as_well() {
        struct Last(Option<tokio::sync::oneshot::Sender<Option<Instant>>>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(inherited_deadline());
            }
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        let (sender, seen) = tokio::sync::oneshot::channel();
        let last = Last(Some(sender));
        let pending = || {
            spawn(async move {
                let _last = last;
                std::future::pending::<()>().await;
            })
        };
        let task = within(&mut Serving::new(Some(deadline), Seat::Free), pending);
        tokio::task::yield_now().await;
        task.abort();
        assert_eq!(seen.await.unwrap(), Some(deadline));
    }

    #[test]
    fn a_piece_within_a_piece_and_one_that_panics_leave_the_call_before() {
        let now = Instant::now();
        let mut outer = Serving::new(Some(now), Seat::Free);
        within(&mut outer, || {
            let mut inner = Serving::new(None, Seat::Free);
            let piece = || within(&mut inner, || panic!("{:?}", inherited_deadline()));
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(piece)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), "None");
            assert_eq!(inherited_deadline(), Some(now));
        });
        assert_eq!((inherited_deadline(), outer.deadline()), (None, Some(now)));
    }
}

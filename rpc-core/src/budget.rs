//! The call that a task serves: the calls it makes inherit the deadline, and know that they are nested ones.
//!
//! ```text
//!  handler (deadline of its caller) ──poll──► within(serving) ──► a nested call asks inherited_deadline(), nested_call()
//!     └──rpc_core::spawn──► task ─────poll──► the same
//! ```

use std::{cell::RefCell, future::Future};

use tokio::{task::JoinHandle, time::Instant};
use tracing::Instrument;

use crate::nesting::{NestedCall, Seat};

tokio::task_local! {
    static SERVING: RefCell<Serving>;
}

/// A handler's deadline and slot, or those of work that it has started elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// When the caller of the handler stops waiting.
    deadline: Option<Instant>,
    pub(crate) seat: Seat,
}

impl Serving {
    pub(crate) fn new(deadline: Option<Instant>, seat: Seat) -> Self {
        Self { deadline, seat }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The deadline that calls made here inherit; `None` outside a handler, or when its caller did not send one.
pub(crate) fn inherited_deadline() -> Option<Instant> {
    SERVING.try_with(|serving| serving.borrow().deadline).ok().flatten()
}

/// Notes that a call begins here; `None` outside a handler, an error when the handler must not wait for it.
pub(crate) fn nested_call() -> Option<Result<NestedCall, String>> {
    SERVING.try_with(|serving| serving.borrow_mut().seat.begin_call()).ok().flatten()
}

/// The same call, for a thread on which its handler runs.
pub(crate) fn on_thread() -> Serving {
    elsewhere(Seat::Thread).unwrap_or_default()
}

fn elsewhere(seat: fn(std::sync::Arc<crate::nesting::Nest>) -> Seat) -> Option<Serving> {
    let serving = |serving: &RefCell<Serving>| {
        let mut serving = serving.borrow_mut();
        Serving { deadline: serving.deadline, seat: serving.seat.nest().map(seat).unwrap_or_default() }
    };
    SERVING.try_with(serving).ok()
}

/// Runs a piece of a handler, whose calls inherit its deadline. After a panic nothing is left of `serving`.
pub(crate) fn within<T>(serving: &mut Serving, piece: impl FnOnce() -> T) -> T {
    let inside = RefCell::new(std::mem::take(serving));
    SERVING.sync_scope(inside, || {
        let result = piece();
        *serving = SERVING.with(RefCell::take);
        result
    })
}

/// Spawns a task that keeps the budget of the call being served, as handlers should instead of [`tokio::spawn`].
///
/// Calls that the task makes inherit what is left of the handler's budget, as calls made by the handler itself do; in a task of
/// `tokio::spawn` they get a client's default budget, and go on for a caller that has given up. The task also stays in the
/// handler's `tracing` span. Outside a handler this is `tokio::spawn`.
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
    let future = future.in_current_span();
    match elsewhere(Seat::Task) {
        Some(serving) => tokio::spawn(SERVING.scope(RefCell::new(serving), future)),
        None => tokio::spawn(future),
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
}

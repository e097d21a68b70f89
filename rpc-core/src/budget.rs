//! The budget of the call that a task serves: calls made by that task inherit it.
//!
//! ```text
//!  handler (deadline of its caller) ──poll──► within(deadline) ──► a nested call asks inherited_deadline()
//!     └──rpc_core::spawn──► task ─────poll──► the same deadline
//! ```

use std::future::Future;

use tokio::{task::JoinHandle, time::Instant};
use tracing::Instrument;

tokio::task_local! {
    /// When the caller of the running handler stops waiting.
    static CALLER_DEADLINE: Instant;
}

/// The deadline that calls made here inherit; `None` outside a handler, or when its caller did not send one.
pub(crate) fn inherited_deadline() -> Option<Instant> {
    CALLER_DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Runs a piece of code whose calls inherit the deadline.
pub(crate) fn within<T>(deadline: Option<Instant>, piece: impl FnOnce() -> T) -> T {
    match deadline {
        Some(deadline) => CALLER_DEADLINE.sync_scope(deadline, piece),
        None => piece(),
    }
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
    match inherited_deadline() {
        Some(deadline) => tokio::spawn(CALLER_DEADLINE.scope(deadline, future)),
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
        let nested = || spawn(async { spawn(async { inherited_deadline() }).await.unwrap() });
        assert_eq!(within(Some(deadline), nested).await.unwrap(), Some(deadline));
        assert_eq!(within(None, nested).await.unwrap(), None);
        let by_tokio = within(Some(deadline), || tokio::spawn(async { inherited_deadline() }));
        assert_eq!(by_tokio.await.unwrap(), None, "the reason for `rpc_core::spawn`");
    }
}

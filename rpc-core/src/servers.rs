//! [`Servers`]: services in the process of their callers, as a client sees them.
//!
//! The seam between client and worker, which know nothing of each other: `client/deliver.rs` calls it, `worker/in_process.rs`
//! implements it. Requests and replies are messages as they would travel.

use std::{fmt, future::Future, pin::Pin};

use tokio::time::Instant;

use crate::connection::Delivery;

/// Services without a broker before them.
pub(crate) trait Servers: fmt::Debug + Send + Sync {
    /// Begins to serve a request, whose caller waits until the deadline; `None` when it is for no service here. To be called in a
    /// tokio runtime.
    fn serve(&self, request: Delivery, deadline: Option<Instant>) -> Option<Serving>;

    /// The version of a service; `None` when it is not here.
    fn version(&self, service: &str) -> Option<u32>;
}

/// A request on its way to a reply, which may never come; `None` once one that has no reply has ended.
///
/// Dropping it cancels the request, unless its method goes on all the same.
pub(crate) type Serving = Pin<Box<dyn Future<Output = Option<Delivery>> + Send>>;

//! [`Caller`]: the name of the authenticated caller.

use std::{fmt, sync::Arc};

/// The name of the authenticated caller of a request, among its [extensions](super::Extensions).
///
/// [`AuthLayer`](super::AuthLayer) leaves the one that its authenticator tells; a layer of yours may insert one. It must be the same for
/// all requests of one caller, whatever token they carry, because a pool that remembers answers
/// ([`dedupe`](crate::WorkerPool::dedupe)) repeats an answer to its own caller alone.
///
/// ```
/// use rpc_core::{Context, layer::Caller};
///
/// let ctx = Context::for_test().extension(Caller::new("ada")).build();
/// assert_eq!(ctx.extensions().get::<Caller>().map(Caller::name), Some("ada"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Caller(Arc<str>);

impl Caller {
    /// The caller of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.name()).finish()
    }
}

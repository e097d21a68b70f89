//! Items that generated code names besides the public types. Not covered by semantic versioning.

pub use async_trait::async_trait;
pub use serde;

pub use crate::{
    codec::Codec,
    method::{Argument, ContextArgument, FallibleMethod, Method, NotAResult, Outcome, Probe, Sides},
    service::{MethodDescriptor, ServiceDescriptor},
    worker::{Dispatch, Handler, Request, Response, Sealed, blocking},
};

/// The one name that the expansion of `#[async_trait]` takes from the prelude, for modules without a prelude.
///
/// Generated code imports it with `*`: unlike `use …::Box`, that yields to a `Box` the module imports by name, and two
/// services in one module do not clash.
pub mod async_trait_prelude {
    pub use std::boxed::Box;
}

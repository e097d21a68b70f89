//! Items that generated code names besides the public types. Not covered by semantic versioning.

pub use async_trait::async_trait;
pub use serde;

pub use crate::{
    call_error::is_code_of_framework,
    codec::Codec,
    method::{
        Argument, ContextArgument, ErrorProbe, ErrorType, FallibleMethod, FallibleOneway, Method, NotAResult, Outcome,
        PlainError, Probe, Sides, error_codes, oneway_error_codes,
    },
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

/// The parameters of generated functions. Generated code imports these with `*`: a function hides a constant or a variant of
/// the same name from the module around it, which a parameter of that name would otherwise be matched against.
pub mod parameters {
    /// Hides a constant `client`.
    pub fn client() {}
    /// Hides a constant `connection`.
    pub fn connection() {}
    /// Hides a constant `f`.
    pub fn f() {}
    /// Hides a constant `layer`.
    pub fn layer() {}
    /// Hides a constant `options`.
    pub fn options() {}
    /// Hides a constant `service`.
    pub fn service() {}
}

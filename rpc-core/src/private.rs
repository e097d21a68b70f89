//! What generated code may name, besides the public types. Not covered by semantic versioning.

pub use serde;

pub use crate::{
    codec::Codec,
    service::{MethodDescriptor, ServiceDescriptor},
    worker::{Dispatch, Handler, Request, Response, blocking},
};

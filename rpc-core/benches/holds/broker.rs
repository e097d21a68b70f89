//! The broker's core, without its sockets.

#[path = "../../src/broker/core/mod.rs"]
pub(crate) mod core;

//! Shared by the runnable programs: the broker they use, how they fail, their traces and metrics, and the Fibonacci service.
//!
//! The programs themselves are in `examples/`, one a file; `orders` is one of several processes, in a folder.

mod broker;
mod failure;
pub mod fibonacci;
mod process;
mod tally;
pub mod telemetry;

pub use broker::{BrokerArgs, ExampleBroker};
pub use failure::Failure;
pub use process::{Process, ensure, eventually};
pub use tally::Tally;

/// The README's programs, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

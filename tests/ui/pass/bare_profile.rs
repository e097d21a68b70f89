//! The bare profile takes one argument, or none.
#![deny(missing_docs, warnings)]

use rpc_core::service;

/// The tutorials' Fibonacci.
#[service(queue = "rpc_queue")]
pub trait Tutorial {
    /// The n-th number.
    async fn fib(&self, n: u32) -> u64;
}

/// Without an argument.
#[service(queue = "clock", codec = "json")]
pub trait Clock {
    /// The time.
    async fn now(&self) -> u64;
}

fn main() {}

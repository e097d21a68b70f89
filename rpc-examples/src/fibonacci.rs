//! The service of `fib_pool`, `fib_server` and `fib_client`. In a project of your own: the crate both sides depend on.

use rpc_core::service;
use serde::{Deserialize, Serialize};

/// Fibonacci numbers, computed anew for every call.
#[service(name = "fibonacci")]
pub trait Fibonacci {
    /// The n-th Fibonacci number, by n additions; [`FibError::TooLarge`] above [`MAX_N`].
    #[rpc(idempotent, timeout = "2s")]
    async fn fib(&self, n: u32) -> Result<u64, FibError>;

    /// The same by the recursive definition, which takes 1.6 times longer for each further n: work for a pool.
    /// [`FibError::TooLarge`] above [`MAX_N_RECURSIVE`].
    #[rpc(idempotent, blocking, timeout = "60s")]
    async fn fib_recursive(&self, n: u32) -> Result<u64, FibError>;
}

/// Why a number is not computed. The error travels to the caller as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum FibError {
    /// The number does not fit 64 bits, or would take too long.
    #[error("n = {n} is too large, the largest is {max}")]
    TooLarge {
        /// The requested n.
        n: u32,
        /// The largest n that is computed.
        max: u32,
    },
}

/// The largest n whose Fibonacci number fits 64 bits.
pub const MAX_N: u32 = 93;

/// A third of a second of work on a fast core.
pub const MAX_N_RECURSIVE: u32 = 40;

/// The service's implementation.
#[derive(Debug, Clone, Copy)]
pub struct Calculator;

impl Fibonacci for Calculator {
    async fn fib(&self, n: u32) -> Result<u64, FibError> {
        at_most(MAX_N, n).map(iterative)
    }

    async fn fib_recursive(&self, n: u32) -> Result<u64, FibError> {
        at_most(MAX_N_RECURSIVE, n).map(recursive)
    }
}

fn at_most(max: u32, n: u32) -> Result<u32, FibError> {
    if n <= max { Ok(n) } else { Err(FibError::TooLarge { n, max }) }
}

/// By n additions. `n` is at most [`MAX_N`].
pub fn iterative(n: u32) -> u64 {
    // The number after the last one wanted may not fit; it is not looked at.
    (0..n).fold((0_u64, 1_u64), |(a, b), _| (b, a.wrapping_add(b))).0
}

fn recursive(n: u32) -> u64 {
    if n < 2 { n.into() } else { recursive(n - 1) + recursive(n - 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_and_the_largest_fits() {
        for n in 0..20 {
            assert_eq!(iterative(n), recursive(n), "fib({n})");
        }
        assert_eq!(iterative(30), 832_040);
        assert_eq!(iterative(MAX_N), 12_200_160_415_121_876_738);
    }
}

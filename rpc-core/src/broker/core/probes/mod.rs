//! Access for tests: injected faults, inspection, and the invariants of the core.

mod faults;
pub(crate) mod injected;
pub(crate) mod inspect;
#[cfg(any(test, fuzzing))]
mod invariants;

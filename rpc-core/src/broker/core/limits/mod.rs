//! Limits that act while the broker runs: memory, the alarm that blocks publishers, and overdue deliveries.

pub(crate) mod alarm;
pub(crate) mod memory;
pub(crate) mod overdue;

//! Limits: their defaults, and those that act over time: memory, the alarm that blocks publishers, overdue deliveries.

pub(crate) mod alarm;
pub(crate) mod consumer_timeout;
pub(crate) mod defaults;
pub(crate) mod logins;
pub(crate) mod memory;
pub(crate) mod overdue;

//! Typed remote procedure calls over AMQP 0-9-1.

pub mod routing;

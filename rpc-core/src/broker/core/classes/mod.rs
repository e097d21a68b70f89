//! AMQP's classes: the methods of each, and the work behind the larger ones.

pub(crate) mod basic;
pub(crate) mod channel;
pub(crate) mod confirm;
pub(crate) mod connection;
mod consume;
pub(crate) mod content;
pub(crate) mod exchange;
pub(crate) mod publish;
mod publish_properties;
pub(crate) mod queue;
mod queue_declare;
pub(crate) mod settle;
pub(crate) mod tx;

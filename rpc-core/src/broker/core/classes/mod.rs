//! AMQP's classes. A method of a class is handled in the file of that name, with these exceptions:
//!
//! | methods | file |
//! |---|---|
//! | `basic.publish`, and its content frames | `content`, then `publish` and `publish_properties` |
//! | `basic.consume`, `basic.cancel` | `consume` |
//! | `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover` | `settle` |
//! | `queue.declare` | `queue_declare` |
//!
//! `connection` also holds the login. Each method works on a [`Context`](super::context::Context), except for those of
//! `connection` and `channel.open`, which have no open channel yet.

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

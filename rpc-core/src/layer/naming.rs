//! Names of methods and of their ways through the broker, as OpenTelemetry writes them.

use std::fmt;

use super::request::LogicalCall;
use crate::topology;

/// `service/method`.
pub(super) struct MethodName<'a>(pub(super) &'a LogicalCall);

impl fmt::Display for MethodName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(call) = self;
        write!(f, "{}/{}", call.service.name, call.method.name)
    }
}

/// The way of a request through the broker, without the parts that are empty or repeat another one.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) call: &'a LogicalCall,
    /// Of a consumer.
    pub(super) has_queue: bool,
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogicalCall { service, method, .. } = self.call;
        let Some(queue) = service.queue else {
            write!(f, "{}:{}", topology::EXCHANGE, method.routing_key)?;
            return match self.has_queue {
                true => write!(f, ":{}", topology::service_queue(service.name, method.queue)),
                false => Ok(()),
            };
        };
        // Through the default exchange, by the queue's name.
        f.write_str(queue)
    }
}

//! Descriptors of a service and its methods: constants that `#[service]` generates for its client and its server.

use std::time::Duration;

use crate::{codec::Codec, topology};

/// A service: its name on the wire and its methods.
#[derive(Debug, Clone, Copy)]
pub struct ServiceDescriptor {
    /// The first word of its routing keys.
    pub name: &'static str,
    /// A server executes requests of its own and of earlier versions.
    pub version: u32,
    /// The queue of the bare profile: requests are published to it through the default exchange, the service has one
    /// method, and the body is its argument alone.
    pub queue: Option<&'static str>,
    /// The codec of the client's requests, and of requests without a `content_type`.
    pub codec: Codec,
    /// How many requests each of its queues holds before the broker refuses further ones. Callers then publish with
    /// confirms, so that a refusal reaches them.
    pub max_length: Option<u32>,
    /// How many levels a body may nest: a request at the worker, a reply at the client.
    pub max_depth: u32,
    /// In the order of the trait.
    pub methods: &'static [MethodDescriptor],
}

/// A method of a service.
#[derive(Debug, Clone, Copy)]
pub struct MethodDescriptor {
    /// The last word of its routing key.
    pub name: &'static str,
    /// The routing key of its requests.
    pub routing_key: &'static str,
    /// Earlier names, which servers still serve.
    pub aliases: &'static [&'static str],
    /// The budget of a call; `None`: the client's default.
    pub timeout: Option<Duration>,
    /// May be executed more than once.
    pub idempotent: bool,
    /// May be sent a second time while the first request is under way, if the client's policy says so.
    pub hedge: bool,
    /// Has no reply.
    pub oneway: bool,
    /// Runs on a thread of its own.
    pub blocking: bool,
    /// Not stopped when its caller cancels the call.
    pub no_cancel: bool,
    /// Has a queue of its own, `rpc.<service>.<queue>`.
    pub queue: Option<&'static str>,
    /// The codes of its own errors, as far as their type declares them.
    pub error_codes: &'static [&'static str],
    /// 0 to 9 by AMQP, to 255 on RabbitMQ's priority queues.
    pub priority: Option<u8>,
}

impl MethodDescriptor {
    /// A method with no options.
    pub const fn new(name: &'static str, routing_key: &'static str) -> Self {
        Self {
            name,
            routing_key,
            aliases: &[],
            timeout: None,
            idempotent: false,
            hedge: false,
            oneway: false,
            blocking: false,
            no_cancel: false,
            queue: None,
            error_codes: &[],
            priority: None,
        }
    }
}

impl ServiceDescriptor {
    /// The index of the method that a routing key names.
    pub(crate) fn method_of(&self, routing_key: &str) -> Option<usize> {
        let exact = self.methods.iter().position(|method| method.routing_key == routing_key);
        exact.or_else(|| self.method_index(topology::method_of(routing_key)))
    }

    /// The method of a request with this routing key.
    pub(crate) fn method_for(&self, routing_key: &str) -> Option<&'static MethodDescriptor> {
        match self.queue {
            // The bare profile has one method, and the routing key is the queue's name.
            Some(_) => self.methods.first(),
            None => self.method_of(routing_key).map(|method| &self.methods[method]),
        }
    }

    /// The index of the method with this name or alias.
    fn method_index(&self, name: &str) -> Option<usize> {
        self.methods
            .iter()
            .position(|method| method.name == name)
            .or_else(|| self.methods.iter().position(|method| method.aliases.contains(&name)))
    }

    /// The queues of the service: its own (`None`), and those of methods that have one.
    pub(crate) fn method_queues(&self) -> Vec<Option<&'static str>> {
        let mut queues = Vec::new();
        for method in self.methods {
            if !queues.contains(&method.queue) {
                queues.push(method.queue);
            }
        }
        // Callers built before a method moved to a queue of its own still use the service's.
        if self.queue.is_none() && !queues.contains(&None) {
            queues.push(None);
        }
        queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: &[MethodDescriptor] = &[
        MethodDescriptor { aliases: &["compute"], ..MethodDescriptor::new("fib", "f.fib") },
        MethodDescriptor { queue: Some("slow"), ..MethodDescriptor::new("prime", "f.slow.prime") },
        MethodDescriptor::new("compute", "f.compute"),
    ];
    const SERVICE: ServiceDescriptor = ServiceDescriptor {
        name: "f",
        version: 1,
        queue: None,
        codec: Codec::MessagePack,
        max_length: None,
        max_depth: Codec::MAX_DEPTH,
        methods: METHODS,
    };

    #[test]
    fn names_win_over_aliases() {
        assert_eq!(SERVICE.method_index("fib"), Some(0));
        assert_eq!(SERVICE.method_index("compute"), Some(2));
        assert_eq!(SERVICE.method_index("nope"), None);
    }

    #[test]
    fn every_queue_is_listed_once_and_the_service_queue_always() {
        assert_eq!(SERVICE.method_queues(), [None, Some("slow")]);
        let only_slow = ServiceDescriptor { methods: &METHODS[1..2], ..SERVICE };
        assert_eq!(only_slow.method_queues(), [Some("slow"), None]);
    }
}

//! The spans: their names, kinds and attributes. Everything in them comes from descriptors, but the message_id.

use std::fmt;

use tracing::{Span, field::Empty};

use super::super::{
    names,
    naming::{Destination, MethodName},
    request::{LogicalCall, Request},
};

/// The side of a call, and whether it has a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
    Producer,
    Consumer,
}

impl Side {
    pub(super) fn of(call: &LogicalCall) -> Self {
        match (&call.served, call.method.oneway) {
            (None, false) => Self::Client,
            (Some(_), false) => Self::Server,
            (None, true) => Self::Producer,
            (Some(_), true) => Self::Consumer,
        }
    }

    /// As OpenTelemetry calls it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// Whether the reply, or the lack of one, is in the span.
    pub(super) const fn has_reply(self) -> bool {
        matches!(self, Self::Client | Self::Server)
    }

    pub(super) const fn is_in_pool(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }

    /// A span for the call; a disabled one if nobody wants it.
    pub(super) fn span(self, request: &Request) -> Span {
        let span = self.new_span(&request.call);
        if !span.is_disabled()
            && let Some(server) = request.core.server()
        {
            let (host, port) = &*server;
            span.record(names::SERVER_ADDRESS, &**host);
            span.record(names::SERVER_PORT, *port);
        }
        span
    }

    /// Those of a pool have no local parent: the spans around them live as long as the consumer does.
    fn new_span(self, call: &LogicalCall) -> Span {
        match self {
            Self::Client => tracing::debug_span!(
                "call",
                { names::SPAN_NAME } = %MethodName(call),
                { names::SPAN_KIND } = self.kind(),
                { names::SYSTEM } = names::SYSTEM_VALUE,
                { names::METHOD } = %MethodName(call),
                { names::MESSAGE_ID } = call.message_id(),
                { names::SERVER_ADDRESS } = Empty,
                { names::SERVER_PORT } = Empty,
                { names::ATTEMPTS } = Empty,
                { names::STATUS_CODE } = Empty,
                { names::ERROR_TYPE } = Empty,
                { names::SPAN_STATUS } = Empty,
            ),
            Self::Server => tracing::debug_span!(
                parent: None,
                "serve",
                { names::SPAN_NAME } = %MethodName(call),
                { names::SPAN_KIND } = self.kind(),
                { names::SYSTEM } = names::SYSTEM_VALUE,
                { names::METHOD } = %MethodName(call),
                { names::MESSAGE_ID } = call.message_id(),
                { names::REDELIVERED } = redelivered(call),
                { names::STATUS_CODE } = Empty,
                { names::ERROR_TYPE } = Empty,
                { names::SPAN_STATUS } = Empty,
            ),
            Self::Producer => tracing::debug_span!(
                "publish",
                { names::SPAN_NAME } = %Operation(names::PUBLISH, Destination { call, has_queue: false }),
                { names::SPAN_KIND } = self.kind(),
                { names::MESSAGING_SYSTEM } = names::MESSAGING_SYSTEM_VALUE,
                { names::OPERATION_NAME } = names::PUBLISH,
                { names::OPERATION_TYPE } = names::SEND,
                { names::DESTINATION } = %Destination { call, has_queue: false },
                { names::ROUTING_KEY } = call.method.routing_key,
                { names::MESSAGE_ID } = call.message_id(),
                { names::SERVER_ADDRESS } = Empty,
                { names::SERVER_PORT } = Empty,
                { names::ATTEMPTS } = Empty,
                { names::ERROR_TYPE } = Empty,
                { names::SPAN_STATUS } = Empty,
            ),
            Self::Consumer => tracing::debug_span!(
                parent: None,
                "consume",
                { names::SPAN_NAME } = %Operation(names::CONSUME, Destination { call, has_queue: true }),
                { names::SPAN_KIND } = self.kind(),
                { names::MESSAGING_SYSTEM } = names::MESSAGING_SYSTEM_VALUE,
                { names::OPERATION_NAME } = names::CONSUME,
                { names::OPERATION_TYPE } = names::PROCESS,
                { names::DESTINATION } = %Destination { call, has_queue: true },
                { names::ROUTING_KEY } = call.method.routing_key,
                { names::MESSAGE_ID } = call.message_id(),
                { names::REDELIVERED } = redelivered(call),
                { names::ERROR_TYPE } = Empty,
                { names::SPAN_STATUS } = Empty,
            ),
        }
    }
}

fn redelivered(call: &LogicalCall) -> bool {
    call.served.as_ref().is_some_and(|served| served.context.redelivered())
}

/// An operation and its destination: the name of a span.
struct Operation<'a>(&'static str, Destination<'a>);

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(operation, destination) = self;
        write!(f, "{operation} {destination}")
    }
}

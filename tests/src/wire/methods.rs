//! Every class and method of AMQP 0-9-1 with RabbitMQ's extensions, one a line, as the specification lists them.

/// One method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// `queue.declare`.
    pub name: &'static str,
    /// The class's number.
    pub class_id: u16,
    /// The method's number.
    pub method_id: u16,
    /// Its arguments in order, `type:name` separated by blanks.
    arguments: &'static str,
}

impl Method {
    /// All methods.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        METHODS.iter()
    }

    /// The method of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }

    /// The method of those numbers.
    pub fn numbered(class_id: u16, method_id: u16) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.class_id == class_id && method.method_id == method_id)
    }

    /// Its arguments in order: type and name.
    pub fn arguments(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.arguments.split_whitespace().filter_map(|argument| argument.split_once(':'))
    }

    /// Whether the server answers it with a method of its own, unless told not to.
    pub fn is_request(&self) -> bool {
        self.name == "basic.get" || METHODS.iter().any(|other| other.name.strip_suffix("-ok") == Some(self.name))
    }

    /// Whether a content header and a body follow it.
    pub fn has_content(&self) -> bool {
        matches!(self.name, "basic.publish" | "basic.return" | "basic.deliver" | "basic.get-ok")
    }
}

const fn method(name: &'static str, class_id: u16, method_id: u16, arguments: &'static str) -> Method {
    Method { name, class_id, method_id, arguments }
}

const CLOSE: &str = "short:reply_code shortstr:reply_text short:class_id short:method_id";
const BIND: &str = "short:ticket shortstr:destination shortstr:source shortstr:routing_key bit:no_wait table:arguments";

static METHODS: &[Method] = &[
    method(
        "connection.start",
        10,
        10,
        "octet:version_major octet:version_minor table:server_properties longstr:mechanisms longstr:locales",
    ),
    method(
        "connection.start-ok",
        10,
        11,
        "table:client_properties shortstr:mechanism longstr:response shortstr:locale",
    ),
    method("connection.secure", 10, 20, "longstr:challenge"),
    method("connection.secure-ok", 10, 21, "longstr:response"),
    method("connection.tune", 10, 30, "short:channel_max long:frame_max short:heartbeat"),
    method("connection.tune-ok", 10, 31, "short:channel_max long:frame_max short:heartbeat"),
    method("connection.open", 10, 40, "shortstr:virtual_host shortstr:capabilities bit:insist"),
    method("connection.open-ok", 10, 41, "shortstr:known_hosts"),
    method("connection.close", 10, 50, CLOSE),
    method("connection.close-ok", 10, 51, ""),
    method("connection.blocked", 10, 60, "shortstr:reason"),
    method("connection.unblocked", 10, 61, ""),
    method("connection.update-secret", 10, 70, "longstr:new_secret shortstr:reason"),
    method("connection.update-secret-ok", 10, 71, ""),
    method("channel.open", 20, 10, "shortstr:out_of_band"),
    method("channel.open-ok", 20, 11, "longstr:channel_id"),
    method("channel.flow", 20, 20, "bit:active"),
    method("channel.flow-ok", 20, 21, "bit:active"),
    method("channel.close", 20, 40, CLOSE),
    method("channel.close-ok", 20, 41, ""),
    method("access.request", 30, 10, "shortstr:realm bit:exclusive bit:passive bit:active bit:write bit:read"),
    method("access.request-ok", 30, 11, "short:ticket"),
    method(
        "exchange.declare",
        40,
        10,
        "short:ticket shortstr:exchange shortstr:type bit:passive bit:durable bit:auto_delete bit:internal bit:no_wait \
         table:arguments",
    ),
    method("exchange.declare-ok", 40, 11, ""),
    method("exchange.delete", 40, 20, "short:ticket shortstr:exchange bit:if_unused bit:no_wait"),
    method("exchange.delete-ok", 40, 21, ""),
    method("exchange.bind", 40, 30, BIND),
    method("exchange.bind-ok", 40, 31, ""),
    method("exchange.unbind", 40, 40, BIND),
    method("exchange.unbind-ok", 40, 51, ""),
    method(
        "queue.declare",
        50,
        10,
        "short:ticket shortstr:queue bit:passive bit:durable bit:exclusive bit:auto_delete bit:no_wait table:arguments",
    ),
    method("queue.declare-ok", 50, 11, "shortstr:queue long:message_count long:consumer_count"),
    method(
        "queue.bind",
        50,
        20,
        "short:ticket shortstr:queue shortstr:exchange shortstr:routing_key bit:no_wait table:arguments",
    ),
    method("queue.bind-ok", 50, 21, ""),
    method("queue.purge", 50, 30, "short:ticket shortstr:queue bit:no_wait"),
    method("queue.purge-ok", 50, 31, "long:message_count"),
    method("queue.delete", 50, 40, "short:ticket shortstr:queue bit:if_unused bit:if_empty bit:no_wait"),
    method("queue.delete-ok", 50, 41, "long:message_count"),
    method(
        "queue.unbind",
        50,
        50,
        "short:ticket shortstr:queue shortstr:exchange shortstr:routing_key table:arguments",
    ),
    method("queue.unbind-ok", 50, 51, ""),
    method("basic.qos", 60, 10, "long:prefetch_size short:prefetch_count bit:global"),
    method("basic.qos-ok", 60, 11, ""),
    method(
        "basic.consume",
        60,
        20,
        "short:ticket shortstr:queue shortstr:consumer_tag bit:no_local bit:no_ack bit:exclusive bit:no_wait \
         table:arguments",
    ),
    method("basic.consume-ok", 60, 21, "shortstr:consumer_tag"),
    method("basic.cancel", 60, 30, "shortstr:consumer_tag bit:no_wait"),
    method("basic.cancel-ok", 60, 31, "shortstr:consumer_tag"),
    method("basic.publish", 60, 40, "short:ticket shortstr:exchange shortstr:routing_key bit:mandatory bit:immediate"),
    method("basic.return", 60, 50, "short:reply_code shortstr:reply_text shortstr:exchange shortstr:routing_key"),
    method(
        "basic.deliver",
        60,
        60,
        "shortstr:consumer_tag longlong:delivery_tag bit:redelivered shortstr:exchange shortstr:routing_key",
    ),
    method("basic.get", 60, 70, "short:ticket shortstr:queue bit:no_ack"),
    method(
        "basic.get-ok",
        60,
        71,
        "longlong:delivery_tag bit:redelivered shortstr:exchange shortstr:routing_key long:message_count",
    ),
    method("basic.get-empty", 60, 72, "shortstr:cluster_id"),
    method("basic.ack", 60, 80, "longlong:delivery_tag bit:multiple"),
    method("basic.reject", 60, 90, "longlong:delivery_tag bit:requeue"),
    method("basic.recover-async", 60, 100, "bit:requeue"),
    method("basic.recover", 60, 110, "bit:requeue"),
    method("basic.recover-ok", 60, 111, ""),
    method("basic.nack", 60, 120, "longlong:delivery_tag bit:multiple bit:requeue"),
    method("confirm.select", 85, 10, "bit:no_wait"),
    method("confirm.select-ok", 85, 11, ""),
    method("tx.select", 90, 10, ""),
    method("tx.select-ok", 90, 11, ""),
    method("tx.commit", 90, 20, ""),
    method("tx.commit-ok", 90, 21, ""),
    method("tx.rollback", 90, 30, ""),
    method("tx.rollback-ok", 90, 31, ""),
];

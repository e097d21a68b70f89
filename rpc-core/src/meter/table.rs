//! Every metric: its name, kind, unit and meaning. The guide's chapter has the same table.

use metrics::Unit;

use super::Event;

/// A metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) description: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, description: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, description }
}

const fn gauge(name: &'static str, description: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, description }
}

const fn seconds(name: &'static str, description: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Seconds, description }
}

// OpenTelemetry's, for RPC and, of one-way methods, for messaging.
pub(crate) const CLIENT_DURATION: Metric =
    seconds("rpc.client.call.duration", "Time from the beginning of a call to its end, with all its attempts.");
pub(crate) const SERVER_DURATION: Metric =
    seconds("rpc.server.call.duration", "Time that layers and the handler of a request took.");
pub(crate) const PUBLISH_DURATION: Metric =
    seconds("messaging.client.operation.duration", "Time until the broker had confirmed a one-way request.");
pub(crate) const PROCESS_DURATION: Metric =
    seconds("messaging.process.duration", "Time that layers and the handler of a one-way request took.");
// Ours.
pub(crate) const CLIENT_ACTIVE: Metric = gauge("rpc_amqp.client.active_calls", "Calls that have begun and not ended.");
pub(crate) const SERVER_ACTIVE: Metric =
    gauge("rpc_amqp.server.active_calls", "Requests in layers of the pool and in handlers.");
pub(crate) const QUEUE_WAIT: Metric = seconds(
    "rpc_amqp.server.queue_wait",
    "Time that a request waited for its handler, at the broker and in the worker.",
);
pub(super) const BLOCKED: Metric = gauge("rpc_amqp.connection.blocked", "Connections that the broker blocks now.");
pub(super) const BLOCKED_TIME: Metric =
    seconds("rpc_amqp.connection.blocked_time", "How long the broker blocked a connection, once it no longer does.");

const RESENT: Metric =
    counter("rpc_amqp.client.resent", "Requests sent again because they, or their connection, were lost.");
const RETRIED: Metric =
    counter("rpc_amqp.client.retried", "Further attempts of calls by layers and policies, hedges included.");
const RETURNED: Metric = counter("rpc_amqp.client.returned", "Requests that the broker returned: no queue takes them.");
const LATE: Metric = counter("rpc_amqp.client.late_replies", "Replies whose calls had ended without one.");
const DUPLICATE: Metric = counter("rpc_amqp.client.duplicate_replies", "Second replies to calls that had one.");
const FOREIGN: Metric = counter("rpc_amqp.client.foreign_replies", "Replies that name no call of the client.");
const CANCELS: Metric =
    counter("rpc_amqp.client.cancels", "Calls that workers were told of because their callers gave up.");
const LOOKS: Metric =
    counter("rpc_amqp.client.looks", "Looks for workers, while a call waited longer than usual or before it was sent.");
const UNSERVED: Metric =
    counter("rpc_amqp.client.unserved", "Attempts of calls that ended because no worker was there for their grace.");
const TIMEOUTS: Metric =
    counter("rpc_amqp.client.timeouts", "Calls that timed out, by the stage that they had reached.");
const REDELIVERED: Metric = counter("rpc_amqp.server.redelivered", "Requests that the broker had delivered before.");
const DEAD_LETTERED: Metric = counter("rpc_amqp.server.dead_lettered", "Requests moved to the dead-letter queue.");
const DEAD_LETTERS_LOST: Metric =
    counter("rpc_amqp.server.dead_letters_lost", "Requests that could not be moved to the dead-letter queue.");
const SHED: Metric = counter("rpc_amqp.server.shed", "Requests refused because they would have waited too long.");
const EXPIRED: Metric = counter("rpc_amqp.server.expired", "Requests dropped because their callers had given up.");
const CANCELLED: Metric = counter("rpc_amqp.server.cancelled", "Handlers stopped because their callers gave up.");
const DEDUPLICATED: Metric = counter("rpc_amqp.server.deduplicated", "Requests answered from memory.");
const ONEWAY_FAILED: Metric = counter("rpc_amqp.server.oneway_failed", "One-way requests that failed.");
const FORBIDDEN: Metric = counter("rpc_amqp.server.forbidden", "Requests of users who are not served.");
const CALLERS_GONE: Metric =
    counter("rpc_amqp.server.callers_gone", "Replies that the broker returned: their callers are gone.");
const REPLIES_REFUSED: Metric =
    counter("rpc_amqp.server.replies_refused", "Replies given up because the broker refused them.");
const RECONNECTS: Metric = counter("rpc_amqp.connection.reconnects", "Connections lost and opened again.");

/// All of them.
pub(super) const ALL: [Metric; 31] = [
    CLIENT_DURATION,
    SERVER_DURATION,
    PUBLISH_DURATION,
    PROCESS_DURATION,
    CLIENT_ACTIVE,
    SERVER_ACTIVE,
    QUEUE_WAIT,
    BLOCKED,
    BLOCKED_TIME,
    RESENT,
    RETRIED,
    RETURNED,
    LATE,
    DUPLICATE,
    FOREIGN,
    CANCELS,
    LOOKS,
    UNSERVED,
    TIMEOUTS,
    REDELIVERED,
    DEAD_LETTERED,
    DEAD_LETTERS_LOST,
    SHED,
    EXPIRED,
    CANCELLED,
    DEDUPLICATED,
    ONEWAY_FAILED,
    FORBIDDEN,
    CALLERS_GONE,
    REPLIES_REFUSED,
    RECONNECTS,
];

/// The counter of an event.
pub(super) const fn counter_of(event: Event) -> &'static Metric {
    match event {
        Event::Resent => &RESENT,
        Event::Retried => &RETRIED,
        Event::Returned => &RETURNED,
        Event::LateReply => &LATE,
        Event::DuplicateReply => &DUPLICATE,
        Event::ForeignReply => &FOREIGN,
        Event::CancelSent => &CANCELS,
        Event::Looked => &LOOKS,
        Event::Unserved => &UNSERVED,
        Event::TimedOut(_) => &TIMEOUTS,
        Event::Redelivered => &REDELIVERED,
        Event::DeadLettered => &DEAD_LETTERED,
        Event::DeadLetterLost => &DEAD_LETTERS_LOST,
        Event::Shed => &SHED,
        Event::Expired => &EXPIRED,
        Event::Cancelled => &CANCELLED,
        Event::Deduplicated => &DEDUPLICATED,
        Event::OnewayFailed => &ONEWAY_FAILED,
        Event::Forbidden => &FORBIDDEN,
        Event::CallerGone => &CALLERS_GONE,
        Event::ReplyRefused => &REPLIES_REFUSED,
        Event::Reconnected => &RECONNECTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_every_metric() {
        let guide = include_str!("../../docs/metrics.md");
        for Metric { name, kind, unit, description } in ALL {
            let kind = format!("{kind:?}").to_lowercase();
            let unit = if unit == Unit::Seconds { "s" } else { "1" };
            assert!(guide.contains(&format!("| `{name}` | {kind} | {unit} |")), "{name}: {kind}, {unit}");
            assert!(description.ends_with('.'), "{name}");
        }
    }
}

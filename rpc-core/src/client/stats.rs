//! [`ClientStats`]: the counts of a client.

use std::{sync::atomic::Ordering, time::Duration};

use super::Client;
use crate::{call_error::TimeoutStage, connection::ConnectionStats, stats::MethodStats};

/// Counts of what a client has done since it was made; its clones, and those with layers, share them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientStats {
    /// The methods of the services that were called.
    pub methods: Vec<MethodStats>,
    /// Requests that wait for their reply now; calls that wait to be sent are not among them.
    pub in_flight: usize,
    /// Requests that were sent again because their connection or channel was lost, or because the broker did not take them.
    pub resent: u64,
    /// Further attempts that layers or a policy for retries made, hedges included.
    pub retried: u64,
    /// Requests that the broker returned, because no queue takes them.
    pub returned: u64,
    /// Replies whose calls had ended without one: their callers had given up, or their deadlines had passed.
    pub late_replies: u64,
    /// Second replies to calls that had one, as after a redelivery. Of calls that ended long ago they may count as late: a session knows
    /// the last 1 024 that ended without a reply.
    pub duplicate_replies: u64,
    /// Replies that name no call of this client.
    pub foreign_replies: u64,
    /// Calls that workers were to be told of, because their caller gave up or their deadline passed.
    pub cancels: u64,
    /// Looks for workers of services whose calls waited ([`ClientOptions::grace`](crate::ClientOptions::grace)).
    pub looks: u64,
    /// Attempts that ended because no worker was there for the grace of their calls.
    pub unserved: u64,
    /// Calls that ended with [`CallError::Timeout`](crate::CallError::Timeout), by stage; stages that did not occur are left out.
    pub timeouts: Vec<(TimeoutStage, u64)>,
    /// How often the client's connection was lost and opened again.
    pub reconnects: u64,
    /// How long the broker has blocked the client's connection in all.
    pub blocked: Duration,
}

impl Client {
    /// The counts of the client so far. Nothing stops while they are read, so they are not of one moment.
    pub fn stats(&self) -> ClientStats {
        let counters = &*self.inner.counters;
        let ConnectionStats { reconnects, blocked } = self.inner.connection.stats();
        ClientStats {
            methods: self.inner.called.stats(),
            in_flight: self.in_flight(),
            resent: counters.resent.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            returned: counters.returned.load(Ordering::Relaxed),
            late_replies: counters.late_replies.load(Ordering::Relaxed),
            duplicate_replies: counters.duplicate_replies.load(Ordering::Relaxed),
            foreign_replies: counters.foreign_replies.load(Ordering::Relaxed),
            cancels: counters.cancels.load(Ordering::Relaxed),
            looks: counters.looks.load(Ordering::Relaxed),
            unserved: counters.unserved.load(Ordering::Relaxed),
            timeouts: counters.timeouts(),
            reconnects,
            blocked,
        }
    }
}

//! The counts of a pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    connection::{ConnectionStates, ConnectionStats},
    forward::Forwarding,
    meter::{self, Event, Of},
    stats::{MethodStats, ServiceCounts},
};

/// Counts of what a pool has done since it was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// The methods of its services.
    pub methods: Vec<MethodStats>,
    /// Requests delivered by the broker.
    pub received: u64,
    /// Those among them that the broker had delivered before, to this pool or to another one.
    pub redelivered: u64,
    /// Replies sent.
    pub answered: u64,
    /// Requests dropped unexecuted because their caller had given up.
    pub expired: u64,
    /// Handlers stopped because their caller gave up.
    pub cancelled: u64,
    /// Requests requeued unexecuted.
    pub requeued: u64,
    /// Requests moved to `rpc.<service>.dead`.
    pub dead_lettered: u64,
    /// Requests that failed or were abandoned, and could not be moved there: each is logged, and settled all the same.
    pub dead_letters_lost: u64,
    /// Requests refused because they would have waited here longer than their caller.
    pub shed: u64,
    /// Replies that the broker returned, because the caller was gone and its reply queue with it. On the lapin transport they
    /// are counted up to a second late, and lapin logs each of them as a warning, which `lapin::returned_messages=error` in a
    /// log filter silences.
    pub callers_gone: u64,
    /// Replies that were given up although their request was executed: the broker refused them, or their `reply_to` is malformed. Their
    /// callers time out, and the log has the reason.
    pub replies_refused: u64,
    /// One-way requests that failed: undecodable, of an unknown method, or their handler panicked. They are logged and moved to
    /// `rpc.<service>.dead`.
    pub oneway_failed: u64,
    /// Requests of users whom the pool does not serve ([`WorkerPool::users`](crate::WorkerPool::users)); not executed.
    pub forbidden: u64,
    /// Requests answered from memory ([`WorkerPool::dedupe`](crate::WorkerPool::dedupe)), or from a store.
    pub deduplicated: u64,
    /// Requests refused because the pool's [store of answers](crate::WorkerPool::dedupe_store) was away; not executed.
    pub store_refused: u64,
    /// Requests executed without a claim, because the store was away
    /// ([`WhenAway::GoOn`](crate::dedupe::WhenAway::GoOn)).
    pub store_bypassed: u64,
    /// Claims that ran out while their handler ran: it did not reach the store, or stood still. Another worker may have executed the
    /// request, too; its callers get one answer all the same.
    pub claims_lost: u64,
    /// Answers that the store did not take in time: the same request may be executed again.
    pub answers_unkept: u64,
    /// Headers that handlers' calls did not carry on ([`WorkerPool::forward_headers`](crate::WorkerPool::forward_headers)), because
    /// the frame had no room for them.
    pub headers_dropped: u64,
    /// How often the pool's connection was lost and opened again.
    pub reconnects: u64,
    /// How long the broker has blocked the pool's connection in all: meanwhile replies wait.
    pub blocked: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Of each service.
    services: Vec<Arc<ServiceCounts>>,
    /// Its connection, whose counts are the pool's, too. This does not keep it open.
    connection: Option<ConnectionStates>,
    pub(super) received: AtomicU64,
    redelivered: AtomicU64,
    pub(super) answered: AtomicU64,
    expired: AtomicU64,
    cancelled: AtomicU64,
    pub(super) requeued: AtomicU64,
    dead_lettered: AtomicU64,
    dead_letters_lost: AtomicU64,
    deduplicated: AtomicU64,
    pub(super) store_refused: AtomicU64,
    pub(super) store_bypassed: AtomicU64,
    pub(super) claims_lost: AtomicU64,
    pub(super) answers_unkept: AtomicU64,
    shed: AtomicU64,
    callers_gone: AtomicU64,
    replies_refused: AtomicU64,
    oneway_failed: AtomicU64,
    forbidden: AtomicU64,
    /// Lanes that have no consumer now.
    pub(super) lost_lanes: AtomicU64,
    /// The headers that handlers' calls carry on, and the count of those that had no room.
    pub(super) forwarding: Arc<Forwarding>,
}

impl Counters {
    pub(super) fn new(
        services: Vec<Arc<ServiceCounts>>,
        connection: ConnectionStates,
        forwarding: Arc<Forwarding>,
    ) -> Self {
        Self { services, connection: Some(connection), forwarding, ..Self::default() }
    }

    /// Those of services that have no broker: nobody reads them.
    pub(super) fn without_broker(forwarding: Arc<Forwarding>) -> Self {
        Self { forwarding, ..Self::default() }
    }

    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event of a service's request, here and by the facade.
    #[cold]
    pub(super) fn note(&self, event: Event, service: &'static str) {
        self.note_of(event, Of::Service(service));
    }

    pub(super) fn note_of(&self, event: Event, of: Of) {
        let counter = match event {
            Event::Redelivered => Some(&self.redelivered),
            Event::DeadLettered => Some(&self.dead_lettered),
            Event::DeadLetterLost => Some(&self.dead_letters_lost),
            Event::Shed => Some(&self.shed),
            Event::Expired => Some(&self.expired),
            Event::Cancelled => Some(&self.cancelled),
            Event::Deduplicated => Some(&self.deduplicated),
            Event::OnewayFailed => Some(&self.oneway_failed),
            Event::Forbidden => Some(&self.forbidden),
            Event::CallerGone => Some(&self.callers_gone),
            Event::ReplyRefused => Some(&self.replies_refused),
            // A client's, or a connection's.
            _ => None,
        };
        if let Some(counter) = counter {
            Self::add(counter);
        }
        meter::count(event, of);
    }

    pub(super) fn subtract(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether every lane consumes.
    pub(super) fn is_consuming(&self) -> bool {
        self.lost_lanes.load(Ordering::Relaxed) == 0
    }

    pub(super) fn stats(&self) -> PoolStats {
        let connection = self.connection.as_ref().map(ConnectionStates::stats);
        let ConnectionStats { reconnects, blocked } = connection.unwrap_or_default();
        PoolStats {
            methods: self.services.iter().flat_map(|service| service.snapshot()).collect(),
            received: self.received.load(Ordering::Relaxed),
            redelivered: self.redelivered.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            requeued: self.requeued.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            dead_letters_lost: self.dead_letters_lost.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            callers_gone: self.callers_gone.load(Ordering::Relaxed),
            replies_refused: self.replies_refused.load(Ordering::Relaxed),
            oneway_failed: self.oneway_failed.load(Ordering::Relaxed),
            forbidden: self.forbidden.load(Ordering::Relaxed),
            deduplicated: self.deduplicated.load(Ordering::Relaxed),
            store_refused: self.store_refused.load(Ordering::Relaxed),
            store_bypassed: self.store_bypassed.load(Ordering::Relaxed),
            claims_lost: self.claims_lost.load(Ordering::Relaxed),
            answers_unkept: self.answers_unkept.load(Ordering::Relaxed),
            headers_dropped: self.forwarding.dropped(),
            reconnects,
            blocked,
        }
    }
}

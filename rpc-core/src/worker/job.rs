//! One request on its way through a handler, and the state that the jobs of one consumer share.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{
    dispatch::Response,
    lane::{Lane, Phase},
    pace::Pace,
    policy::AckPolicy,
    reply::{Finished, Outcome, Reply},
    stats::Counters,
};
use crate::connection::{Delivery, WeakDelivery};

/// The state that the jobs of one consumer share.
pub(super) struct Shared {
    pub(super) lane: Arc<Lane>,
    /// To the replier, which ends when the last job and the consume loop have dropped it.
    finished: mpsc::UnboundedSender<Finished>,
    phase: watch::Receiver<Phase>,
    /// One for each method.
    pub(super) paces: Box<[Pace]>,
}

impl Shared {
    pub(super) fn new(
        lane: Arc<Lane>,
        finished: mpsc::UnboundedSender<Finished>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let paces = lane.service.descriptor().methods.iter().map(|_| Pace::default()).collect();
        Self { lane, finished, phase, paces }
    }

    /// The paces of the methods, where their handlers may run in the consume loop. Handlers that wait for a slot or for
    /// another request's answer need a task each to wait in.
    pub(super) fn inline_paces(&self) -> Option<&[Pace]> {
        let lane = &*self.lane;
        (lane.is_inline && lane.slots.is_none() && lane.dedupe.is_none()).then_some(&*self.paces)
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() > Phase::Serving
    }

    /// Settles a request without a reply.
    pub(super) fn settle(&self, delivery_tag: u64, outcome: Outcome) {
        self.finish(Finished { delivery_tag, outcome, reply: None });
    }

    fn finish(&self, finished: Finished) {
        // It fails when the replier is gone. Its channel is gone then too, and the broker redelivers.
        drop(self.finished.send(finished));
    }
}

/// A request on its way through a handler. Dropped unfinished (aborted), it stays unacknowledged, and the broker redelivers it
/// when the channel closes; tasks that the handler has started see [`Context::cancelled`](crate::Context::cancelled).
pub(super) struct Job {
    /// Until the request is settled.
    delivery: Option<Delivery>,
    pub(super) shared: Arc<Shared>,
    /// Whether it was acknowledged before its handler ([`AckPolicy::BeforeHandler`]).
    is_acked: bool,
}

impl Job {
    pub(super) fn new(delivery: Delivery, shared: &Arc<Shared>) -> Self {
        let is_acked = shared.lane.source.ack_policy == AckPolicy::BeforeHandler;
        Self { delivery: Some(delivery), shared: Arc::clone(shared), is_acked }
    }

    /// For the table of handlers, which a cancel looks into.
    pub(super) fn weak_delivery(&self) -> WeakDelivery {
        self.delivery.as_ref().map(Delivery::downgrade).unwrap_or_default()
    }

    /// Answers the caller, if it waits for an answer, and settles the request.
    pub(super) fn finish(mut self, response: Response) {
        if let Some(code) = response.error_code() {
            tracing::debug!(code, "answered with an error");
        }
        let outcome = if self.is_acked { Outcome::Settled } else { Outcome::Ack };
        let Some(delivery) = self.delivery.take() else { return };
        let delivery_tag = delivery.delivery_tag();
        // A one-way request has no reply_to, and gets no reply whatever happens.
        let answer = if delivery.has_reply_to() { response.into_answer() } else { None };
        let reply = answer.map(|answer| Reply { delivery, answer });
        self.shared.finish(Finished { delivery_tag, outcome, reply });
    }

    /// Settles a request whose caller has given up, unexecuted.
    pub(super) fn expire(self) {
        Counters::add(&self.shared.lane.counters.expired);
        self.finish(Response::NONE);
    }

    /// Requeues a request that was not begun. One that was acknowledged before its handler is lost: at most once.
    pub(super) fn requeue(mut self) {
        let outcome = if self.is_acked { Outcome::Settled } else { Outcome::Requeue };
        Counters::add(&self.shared.lane.counters.requeued);
        if let Some(delivery) = self.delivery.take() {
            self.shared.settle(delivery.delivery_tag(), outcome);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(delivery) = &self.delivery {
            delivery.cancel();
        }
    }
}

//! One request on its way through a handler, and the state that the jobs of one consumer share.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    at_most_once::AtMostOnce,
    dispatch::{Answer, Response},
    finished::{Finished, Outcome, Reply, Way},
    lane::{Lane, Phase},
    log::log_request,
    pace::Pace,
    policy::AckPolicy,
    stats::Counters,
};
use crate::{
    connection::{Channel, Delivery, WeakDelivery},
    envelope::Code,
    error::Error,
    meter::Event,
    printable::printable,
    stats::CANCELLED,
};

/// The state that the jobs of one consumer share.
pub(super) struct Shared {
    pub(super) lane: Arc<Lane>,
    /// To the replier, which ends when the last job and the consume loop have dropped it.
    finished: mpsc::UnboundedSender<Finished>,
    phase: watch::Receiver<Phase>,
    /// Whether the consumer is lost, and the broker delivers its requests to another one.
    is_lost: AtomicBool,
    /// With [`AckPolicy::BeforeHandler`].
    at_most_once: Option<AtMostOnce>,
    /// One for each method.
    pub(super) paces: Box<[Pace]>,
    since: Instant,
}

impl Shared {
    pub(super) fn new(
        lane: Arc<Lane>,
        channel: &Channel,
        finished: mpsc::UnboundedSender<Finished>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let paces = lane.service.descriptor().methods.iter().map(|_| Pace::default()).collect();
        let source = &lane.source;
        let at_most_once = (source.ack_policy == AckPolicy::BeforeHandler)
            .then(|| AtMostOnce::new(channel.clone(), source.prefetch_count));
        Self { lane, finished, phase, is_lost: AtomicBool::new(false), at_most_once, paces, since: Instant::now() }
    }

    /// The paces of the methods, where their handlers may run in the consume loop. Handlers that wait for another request's
    /// answer need a task each to wait in.
    pub(super) fn inline_paces(&self) -> Option<&[Pace]> {
        let lane = &*self.lane;
        (lane.is_inline && lane.dedupe.is_none()).then_some(&*self.paces)
    }

    /// Whether no further handler is begun: at a shutdown, and when the consumer is lost.
    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() > Phase::Serving || self.is_lost.load(Ordering::SeqCst)
    }

    /// Notes that the consumer is lost, so that no request begins in the slot of a handler that is aborted.
    pub(super) fn note_loss(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
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
    /// The method whose handler has begun, until its end is counted, or [`NOT_BEGUN`].
    begun: Cell<u16>,
    /// When it began, in ns since `Shared::since`, if times are counted. Half as large as an `Instant`.
    began_ns: Cell<u64>,
    /// Whether its handler has begun and it was acknowledged before ([`AckPolicy::BeforeHandler`]).
    is_acked: Cell<bool>,
    /// Whether it has one of the places that such requests need.
    has_place: Cell<bool>,
    /// The broker has closed the lane's channel while the request was here: its reply must not cost another one.
    is_suspect: bool,
}

impl Job {
    pub(super) fn new(delivery: Delivery, shared: &Arc<Shared>, is_suspect: bool) -> Self {
        Self {
            delivery: Some(delivery),
            shared: Arc::clone(shared),
            begun: Cell::new(NOT_BEGUN),
            began_ns: Cell::new(0),
            is_acked: Cell::new(false),
            has_place: Cell::new(false),
            is_suspect,
        }
    }

    /// Takes the place that the request needs before its handler runs; false when it has to wait for one.
    pub(super) fn try_place(&self) -> bool {
        let Some(at_most_once) = &self.shared.at_most_once else { return true };
        self.has_place.set(at_most_once.try_place());
        self.has_place.get()
    }

    /// Where to wait for the place that the request needs before its handler runs, if it has none.
    pub(super) fn lacks_place(&self) -> Option<&AtMostOnce> {
        self.shared.at_most_once.as_ref().filter(|_| !self.has_place.get())
    }

    pub(super) fn note_place(&self) {
        self.has_place.set(true);
    }

    /// Notes that the handler of a method is about to run. False if it must not, because the request has to be acknowledged before
    /// and cannot be.
    #[inline]
    pub(super) fn begin(&self, method: usize) -> bool {
        let is_granted = self.acknowledge_first();
        if is_granted && let (Ok(begun), Some(counts)) = (u16::try_from(method), self.shared.lane.counts.at(method)) {
            counts.begin();
            self.begun.set(begun);
            if counts.is_timed() {
                self.began_ns.set(self.shared.now_ns());
            }
        }
        is_granted
    }

    fn acknowledge_first(&self) -> bool {
        let (Some(at_most_once), Some(delivery)) = (&self.shared.at_most_once, &self.delivery) else { return true };
        let acknowledged = at_most_once.acknowledge(delivery.delivery_tag());
        if let Err(error) = &acknowledged {
            self.log_not_begun(delivery, error);
        }
        self.is_acked.set(acknowledged.is_ok());
        self.is_acked.get()
    }

    #[cold]
    fn log_not_begun(&self, delivery: &Delivery, error: &Error) {
        let words = "could not acknowledge before the handler: it does not run";
        log_request!(debug, self.shared.lane.source, *delivery, %error, "{words}");
    }

    /// For the table of handlers, which a cancel looks into.
    pub(super) fn weak_delivery(&self) -> WeakDelivery {
        self.delivery.as_ref().map(Delivery::downgrade).unwrap_or_default()
    }

    /// Answers the caller, if it waits for an answer, and settles the request.
    pub(super) fn finish(mut self, response: Response) {
        if let Some(delivery) = self.delivery.take() {
            self.settle(delivery, response);
        }
    }

    /// Whether the method that has begun has no reply.
    fn is_oneway(&self) -> bool {
        let methods = self.shared.lane.service.descriptor().methods;
        methods.get(usize::from(self.begun.get())).is_some_and(|method| method.oneway)
    }

    /// Counts the end of a handler that has begun.
    #[inline]
    fn note_end(&self, code: Option<&str>) {
        let begun = self.begun.replace(NOT_BEGUN);
        // No service has that many methods.
        let Some(counts) = self.shared.lane.counts.at(begun.into()) else { return };
        counts.end(code);
        if counts.is_timed() {
            counts.note_time(Duration::from_nanos(self.shared.now_ns().saturating_sub(self.began_ns.get())));
        }
    }

    fn settle(&self, delivery: Delivery, response: Response) {
        let mut is_answered = delivery.has_reply_to();
        match response.error_code() {
            None => self.note_end(None),
            Some(code) => {
                // The error of a one-way method stays here, whatever its request asks for.
                is_answered &= !(response.is_service_error() && self.is_oneway());
                self.note_end(Some(code));
                self.log_error(&delivery, &response);
            }
        }
        let outcome = if self.is_acked.get() { Outcome::Settled } else { Outcome::Ack };
        let delivery_tag = delivery.delivery_tag();
        let reply = response.into_answer().and_then(|answer| {
            let is_apart = self.is_suspect || self.shared.lane.caution.is_apart(answer.body_bytes());
            let way = match is_answered {
                true if is_apart => Way::Apart,
                true => Way::Lane,
                // It gets no reply whatever happens, and must not fail in silence.
                false if self.note_failure(&delivery, &answer) => Way::DeadLetter,
                false => return None,
            };
            Some(Reply { delivery, answer, way })
        });
        self.shared.finish(Finished { delivery_tag, outcome, reply });
    }

    /// Names the request in the log. A failure of the worker itself is an error there, too; its message may be a panic's.
    #[cold]
    fn log_error(&self, delivery: &Delivery, response: &Response) {
        let source = &self.shared.lane.source;
        let code = response.error_code().unwrap_or_default();
        match response.failure() {
            Some((_, message)) if code == Code::Internal.name() => {
                log_request!(error, *source, *delivery, code, message = %printable(message), "a request failed");
            }
            _ => log_request!(debug, *source, *delivery, code = %printable(code), "answered with an error"),
        }
    }

    /// Whether a one-way request has failed; then it is counted and logged.
    fn note_failure(&self, delivery: &Delivery, answer: &Answer) -> bool {
        let Some((code, message)) = answer.failure_without_reply() else { return false };
        let lane = &self.shared.lane;
        lane.note(Event::OnewayFailed);
        log_request!(
            warn,
            lane.source,
            *delivery,
            code = %printable(code),
            message = %printable(message),
            "a one-way request failed: it is dead-lettered"
        );
        true
    }

    /// Refuses a request of a user whom the pool does not serve. A one-way request is not dead-lettered: such a user must not
    /// be able to push letters of others out of the dead-letter queue, which is bounded.
    #[cold]
    pub(super) fn forbid(mut self) {
        let Some(delivery) = self.delivery.take() else { return };
        let lane = &self.shared.lane;
        lane.note(Event::Forbidden);
        log_request!(
            warn,
            lane.source,
            delivery,
            user_id = %printable(delivery.user_id().unwrap_or_default()),
            "a request of a user who is not served was refused"
        );
        let response = match (delivery.has_reply_to(), delivery.user_id()) {
            (false, _) => Response::NONE,
            (true, Some(_)) => Response::failed(Code::Forbidden, "the workers do not serve this user"),
            (true, None) => Response::failed(
                Code::Forbidden,
                "the workers serve certain users, and the request has no user_id: set ClientOptions::send_user_id",
            ),
        };
        self.settle(delivery, response);
    }

    /// Settles a request whose caller has given up, unexecuted.
    pub(super) fn expire(self) {
        self.shared.lane.note(Event::Expired);
        self.finish(Response::NONE);
    }

    /// Requeues a request that was not begun.
    pub(super) fn requeue(mut self) {
        Counters::add(&self.shared.lane.counters.requeued);
        if let Some(delivery) = self.delivery.take() {
            self.shared.settle(delivery.delivery_tag(), Outcome::Requeue);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(at_most_once) = self.shared.at_most_once.as_ref().filter(|_| self.has_place.get()) {
            at_most_once.give_place_back();
        }
        let Some(delivery) = self.delivery.take() else { return };
        delivery.cancel();
        if std::thread::panicking() {
            // Its task ends here, and nothing else would give its place back.
            self.settle(delivery, Response::failed(Code::Internal, "the handler panicked while it was dropped"));
        }
        self.note_end(Some(CANCELLED));
    }
}

/// No index of a method.
const NOT_BEGUN: u16 = u16::MAX;

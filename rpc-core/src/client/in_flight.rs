//! The calls in flight of one session, and the waiter that each caller holds.
//!
//! Replies, returned messages, deadlines and the end of the session complete a call here; whichever is first counts.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    cancel::Cancels,
    pending::{Ended, Pending},
};
use crate::{
    connection::{
        Channel, Delivery,
        amqp::{Publish, Returned},
    },
    error::Error,
};

/// How a call's wait ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Reply(Delivery),
    /// No queue took the request.
    Returned {
        reply_text: String,
    },
    /// The broker refused the request: its queue is full.
    Refused,
    Expired,
    Disconnected,
    Shutdown,
}

/// Why a call was not taken in.
#[derive(Debug)]
pub(super) enum NotSent {
    /// `max_in_flight` calls wait already.
    Full,
    /// The session has ended: open another one.
    Ended,
    /// The request cannot be expressed in AMQP.
    Refused(Error),
}

/// The calls in flight of one session, and the channel they are published on.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) channel: Channel,
    pub(super) reply_queue: String,
    pub(super) cancels: Cancels,
    calls: Mutex<Calls>,
    has_ended: AtomicBool,
    /// Wakes the task that expires calls: the earliest deadline has changed, or the session has ended.
    deadlines: Notify,
    /// One permit for each call that ended while others waited for a place.
    freed: Notify,
}

#[derive(Debug)]
struct Calls {
    pending: Pending<Outcome>,
    /// As `InFlight::has_ended`, in step with `pending`.
    has_ended: bool,
    /// Callers waiting for a place.
    waiting: usize,
}

/// The caller's end of one call in flight. Dropping it takes the call out and cancels what was sent.
#[derive(Debug)]
pub(super) struct Waiter {
    in_flight: Arc<InFlight>,
    id: u64,
    is_over: bool,
    /// The service whose workers are notified when the call is given up.
    cancellable: Option<&'static str>,
}

impl Waiter {
    /// The correlation_id.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Sends the request. `cancellable` is the service whose workers are to know if the call is given up.
    pub(super) fn publish(&mut self, publish: Publish<'_>, cancellable: Option<&'static str>) -> Result<(), NotSent> {
        match self.in_flight.channel.publish(publish) {
            Ok(()) => {
                self.cancellable = cancellable;
                Ok(())
            }
            Err(error) => Err(self.not_sent(error)),
        }
    }

    /// The reason why a publish failed, for the caller.
    pub(super) fn not_sent(&self, error: Error) -> NotSent {
        match error {
            Error::Disconnected { .. } => {
                self.check_channel();
                NotSent::Ended
            }
            error => NotSent::Refused(error),
        }
    }

    /// If the channel of the session has ended, which the reply consumer may not have seen yet, the session takes no more
    /// calls: the next attempt needs another session.
    pub(super) fn check_channel(&self) {
        if self.in_flight.channel.has_ended() {
            self.in_flight.close();
        }
    }

    /// Lets the service's workers know if the call is given up from now on.
    pub(super) fn make_cancellable(&mut self, service: Option<&'static str>) {
        self.cancellable = service;
    }

    /// How the call ended. It always does: at its deadline it expires.
    pub(super) fn poll_outcome(&mut self, cx: &task::Context<'_>) -> Poll<Outcome> {
        let outcome = self.in_flight.calls().pending.poll(self.id, cx.waker());
        self.is_over = outcome.is_ready();
        if matches!(outcome, Poll::Ready(Outcome::Expired)) {
            // The worker counts the budget from the request's arrival there, so it would go on for a while.
            self.cancel();
        }
        outcome
    }

    /// Waits for the end.
    pub(super) async fn outcome(mut self) -> Outcome {
        std::future::poll_fn(|cx| self.poll_outcome(cx)).await
    }

    fn cancel(&self) {
        if let Some(service) = self.cancellable {
            self.in_flight.cancels.note(service, self.id);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A call that is no longer in flight has just been answered.
        if !self.is_over && self.in_flight.forget(self.id) {
            self.cancel();
        }
    }
}

impl InFlight {
    pub(super) fn new(channel: Channel, reply_queue: String, max_in_flight: usize) -> Self {
        Self {
            channel,
            reply_queue,
            cancels: Cancels::default(),
            calls: Mutex::new(Calls { pending: Pending::new(max_in_flight), has_ended: false, waiting: 0 }),
            has_ended: AtomicBool::new(false),
            deadlines: Notify::new(),
            freed: Notify::new(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn len(&self) -> usize {
        self.calls().pending.len()
    }

    /// Takes a call in. Its waiter exists from here on, so no answer can come too early.
    pub(super) fn begin(self: &Arc<Self>, deadline: Instant) -> Result<Waiter, NotSent> {
        let inserted = {
            let mut calls = self.calls();
            if calls.has_ended {
                return Err(NotSent::Ended);
            }
            calls.pending.insert(deadline.into_std()).ok_or(NotSent::Full)?
        };
        if inserted.is_earliest {
            self.deadlines.notify_one();
        }
        Ok(Waiter { in_flight: Arc::clone(self), id: inserted.id, is_over: false, cancellable: None })
    }

    /// Waits until a call ends while `max_in_flight` are waiting.
    ///
    /// # Cancel safety
    /// A place that was offered to a dropped future is offered to the next caller.
    pub(super) async fn freed(&self) {
        struct Leave<'a>(&'a InFlight);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.calls().waiting -= 1;
            }
        }
        let freed = self.freed.notified();
        self.calls().waiting += 1;
        let _leave = Leave(self);
        // A call may have ended between the refusal and the line above.
        {
            let calls = self.calls();
            if calls.has_ended || !calls.pending.is_full() {
                return;
            }
        }
        freed.await;
    }

    /// Ends the call that `correlation_id` names, and offers its place to a waiting caller.
    pub(super) fn complete(&self, correlation_id: Option<u64>, outcome: Outcome) {
        let ended = correlation_id.and_then(|id| {
            let mut calls = self.calls();
            let ended = calls.pending.complete(id, outcome).ok();
            ended.map(|ended| (ended, calls.waiting > 0))
        });
        let Some((ended, is_wanted)) = ended else {
            tracing::debug!(correlation_id, "dropped a late, duplicate or foreign reply");
            return;
        };
        ended.wake();
        if is_wanted {
            self.freed.notify_one();
        }
    }

    /// Takes out a call whose caller has stopped waiting, and offers its place; returns whether it was still in flight.
    fn forget(&self, id: u64) -> bool {
        let mut calls = self.calls();
        let was_in_flight = calls.pending.forget(id);
        let is_wanted = was_in_flight && calls.waiting > 0;
        drop(calls);
        if is_wanted {
            self.freed.notify_one();
        }
        was_in_flight
    }

    /// Ends the call whose request no queue took.
    pub(super) fn give_back(&self, Returned { correlation_id, reply_text }: Returned) {
        let correlation_id = correlation_id.and_then(|id| id.parse().ok());
        self.complete(correlation_id, Outcome::Returned { reply_text });
    }

    /// Ends a call whose request the broker refused.
    pub(super) fn refuse(&self, correlation_id: u64) {
        self.complete(Some(correlation_id), Outcome::Refused);
    }

    /// Ends a call whose request was lost before the broker had confirmed it.
    pub(super) fn lose(&self, correlation_id: u64) {
        self.complete(Some(correlation_id), Outcome::Disconnected);
    }

    /// Expires calls at their deadlines, with one timer for all of them, until the session ends.
    pub(super) async fn expire_calls(&self) {
        loop {
            let next_deadline = self.expire(Instant::now());
            match next_deadline {
                None if self.has_ended() => return,
                None => self.deadlines.notified().await,
                Some(at) => tokio::select! {
                    () = self.deadlines.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Ends the calls whose deadline has passed; returns the next deadline.
    fn expire(&self, now: Instant) -> Option<Instant> {
        loop {
            let mut calls = self.calls();
            let Some(ended) = calls.pending.expire(now.into_std(), || Outcome::Expired) else {
                return calls.pending.next_deadline().map(Instant::from_std);
            };
            let is_wanted = calls.waiting > 0;
            drop(calls);
            ended.wake();
            if is_wanted {
                self.freed.notify_one();
            }
        }
    }

    /// Takes no more calls in. Those in flight go on: replies that have arrived already are still to be handed out, and then
    /// the reply consumer ends the others.
    pub(super) fn close(&self) {
        self.calls().has_ended = true;
        self.has_ended.store(true, Ordering::Release);
        self.freed.notify_waiters();
    }

    /// Ends all calls, and takes no more in.
    pub(super) fn end(&self, outcome: impl Fn() -> Outcome) {
        self.close();
        let ended = self.calls().pending.end_all(outcome);
        ended.into_iter().for_each(Ended::wake);
        self.deadlines.notify_one();
    }
}

//! A client's session: its channel, its exclusive reply queue, and the calls waiting on it.
//!
//! ```text
//!  call ──insert──► Pending ◄──complete── replies task ◄── consumer (no_ack)
//!    │                 ▲
//!    └─publish         └──returned, expired── driver task (one timer for all calls)
//!    └─given up ──► cancels task
//! ```
//!
//! A session ends with its channel and never comes back: the next call opens another one, whose reply queue has
//! another name, so no reply can reach the wrong session.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    cancel::Cancels,
    confirmed::Confirming,
    pending::{Ended, Pending},
};
use crate::{
    connection::{
        Channel, Connection, Consumer, Delivery,
        transport::{Publish, QueueDeclaration, Returned},
    },
    error::Error,
    topology,
};

/// How a call's wait ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Reply(Delivery),
    Returned {
        reply_text: String,
    },
    /// The queue is full.
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

/// An open session; dropping it stops its tasks and closes its channel.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 3],
    /// The way out for requests the broker may refuse; opened by the first one.
    confirming: tokio::sync::Mutex<Option<Arc<Confirming>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    channel: Channel,
    reply_queue: String,
    calls: Mutex<Calls>,
    has_ended: AtomicBool,
    /// Wakes the driver: an earlier deadline, or the first publish after a quiet time.
    driver: Notify,
    /// One permit for each call that ended while others waited for a place.
    freed: Notify,
    returns: AtomicU8,
    cancels: Cancels,
}

#[derive(Debug)]
struct Calls {
    pending: Pending<Outcome>,
    /// As `Shared::has_ended`, in step with `pending`.
    has_ended: bool,
    /// Callers waiting for a place.
    waiting: usize,
}

/// The states of `Shared::returns`: may the channel hold returned messages?
mod returns {
    /// No: nothing was published since the last look, and no call is in flight.
    pub(super) const QUIET: u8 = 0;
    /// The driver looks from time to time.
    pub(super) const WATCHED: u8 = 1;
    /// Something was published since the driver looked.
    pub(super) const PUBLISHED: u8 = 2;
}

impl Session {
    /// Declares the exchange and the reply queue, and starts consuming.
    pub(super) async fn open(
        connection: &Connection,
        client: Uuid,
        epoch: u64,
        max_in_flight: usize,
    ) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.declare_request_exchanges().await?;
        channel.declare_cancel_exchange().await?;
        let reply_queue = topology::reply_queue(client, epoch);
        let queue =
            QueueDeclaration { name: &reply_queue, durable: false, exclusive: true, auto_delete: true, arguments: &[] };
        channel.declare_queue(queue).await?;
        let consumer = channel.consume(&reply_queue, "", true).await?;
        tracing::debug!(reply_queue, "reply queue ready");
        let shared = Arc::new(Shared {
            channel,
            calls: Mutex::new(Calls { pending: Pending::new(max_in_flight), has_ended: false, waiting: 0 }),
            has_ended: AtomicBool::new(false),
            driver: Notify::new(),
            freed: Notify::new(),
            returns: AtomicU8::new(returns::QUIET),
            cancels: Cancels::default(),
            reply_queue,
        });
        let span = tracing::debug_span!("client", reply_queue = shared.reply_queue);
        let replies = tokio::spawn(take_replies(Arc::clone(&shared), consumer).instrument(span.clone()));
        let driver = tokio::spawn(drive(Arc::clone(&shared)).instrument(span.clone()));
        let cancels = {
            let shared = Arc::clone(&shared);
            tokio::spawn(
                async move { shared.cancels.send(&shared.channel, &shared.reply_queue).await }.instrument(span),
            )
        };
        let tasks = [replies.abort_handle(), driver.abort_handle(), cancels.abort_handle()];
        Ok(Self { shared, tasks, confirming: tokio::sync::Mutex::default() })
    }

    pub(super) fn reply_queue(&self) -> &str {
        &self.shared.reply_queue
    }

    pub(super) fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.shared.calls().pending.len()
    }

    /// Takes a call in. Its waiter exists from here on, so no answer can come too early.
    pub(super) fn begin(&self, deadline: Instant) -> Result<Waiter, NotSent> {
        let inserted = {
            let mut calls = self.shared.calls();
            if calls.has_ended {
                return Err(NotSent::Ended);
            }
            calls.pending.insert(deadline.into_std()).ok_or(NotSent::Full)?
        };
        if inserted.is_earliest {
            self.shared.driver.notify_one();
        }
        Ok(Waiter { shared: Arc::clone(&self.shared), id: inserted.id, is_over: false, cancellable: None })
    }

    /// Sends a request that the broker may refuse; then the call ends with `Refused`.
    pub(super) async fn publish_confirmed(
        &self,
        connection: &Connection,
        waiter: &mut Waiter,
        publish: Publish<'_>,
        cancellable: Option<&'static str>,
    ) -> Result<(), NotSent> {
        let confirming = self.confirming(connection).await.map_err(|_| NotSent::Ended)?;
        // First: a future dropped meanwhile may have sent it.
        waiter.cancellable = cancellable;
        match confirming.publish(waiter.id, publish).await {
            Ok(()) => Ok(()),
            Err(Error::Disconnected { .. }) => Err(NotSent::Ended),
            Err(error) => Err(NotSent::Refused(error)),
        }
    }

    async fn confirming(&self, connection: &Connection) -> Result<Arc<Confirming>, Error> {
        let mut confirming = self.confirming.lock().await;
        if let Some(confirming) = confirming.as_ref().filter(|confirming| !confirming.has_ended()) {
            return Ok(Arc::clone(confirming));
        }
        let opened = Arc::new(Confirming::open(connection, Arc::clone(&self.shared)).await?);
        Ok(Arc::clone(confirming.insert(opened)))
    }

    /// Waits until a call ends while `max_in_flight` are waiting.
    ///
    /// # Cancel safety
    /// A place that was offered to a dropped future is offered to the next caller.
    pub(super) async fn freed(&self) {
        struct Leave<'a>(&'a Shared);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.calls().waiting -= 1;
            }
        }
        let freed = self.shared.freed.notified();
        self.shared.calls().waiting += 1;
        let _leave = Leave(&self.shared);
        // A call may have ended between the refusal and the line above.
        {
            let calls = self.shared.calls();
            if calls.has_ended || !calls.pending.is_full() {
                return;
            }
        }
        freed.await;
    }

    /// Ends the session: every call in flight gets `Shutdown`.
    pub(super) fn shut_down(&self) {
        self.shared.end(|| Outcome::Shutdown);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Nobody would tell those who still wait.
        self.shared.end(|| Outcome::Disconnected);
    }
}

/// The caller's end of one call in flight. Dropping it takes the call out and cancels what was sent.
#[derive(Debug)]
pub(super) struct Waiter {
    shared: Arc<Shared>,
    id: u64,
    is_over: bool,
    /// The service whose workers are told when the call is given up.
    cancellable: Option<&'static str>,
}

impl Waiter {
    /// The correlation_id.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Sends the request. `cancellable` is the service whose workers are to know if the call is given up.
    pub(super) fn publish(&mut self, publish: Publish<'_>, cancellable: Option<&'static str>) -> Result<(), NotSent> {
        match self.shared.channel.publish(publish) {
            Ok(()) => {}
            Err(Error::Disconnected { .. }) => return Err(NotSent::Ended),
            Err(error) => return Err(NotSent::Refused(error)),
        }
        self.cancellable = cancellable;
        if self.shared.returns.swap(returns::PUBLISHED, Ordering::AcqRel) == returns::QUIET {
            self.shared.driver.notify_one();
        }
        Ok(())
    }

    /// How the call ended. It always does: the driver expires it at its deadline.
    pub(super) fn poll_outcome(&mut self, cx: &task::Context<'_>) -> Poll<Outcome> {
        let outcome = self.shared.calls().pending.poll(self.id, cx.waker());
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
            self.shared.cancels.note(service, self.id);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // What was not in flight any more was answered a moment ago.
        if !self.is_over && self.shared.forget(self.id) {
            self.cancel();
        }
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the call that `correlation_id` names, and offers its place to a waiting caller.
    fn complete(&self, correlation_id: Option<u64>, outcome: Outcome) {
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

    /// Takes a call out whose caller has gone, and offers its place; says whether it was in flight still.
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

    fn take_returned(&self) {
        for Returned { correlation_id, reply_text } in self.channel.drain_returned() {
            self.give_back(correlation_id.as_deref(), reply_text);
        }
    }

    /// Ends the call whose request no queue took.
    pub(super) fn give_back(&self, correlation_id: Option<&str>, reply_text: String) {
        let correlation_id = correlation_id.and_then(|id| id.parse().ok());
        self.complete(correlation_id, Outcome::Returned { reply_text });
    }

    /// Ends a call whose request the broker refused.
    pub(super) fn refuse(&self, correlation_id: u64) {
        self.complete(Some(correlation_id), Outcome::Refused);
    }

    /// Ends a call whose request's confirm was lost.
    pub(super) fn lose(&self, correlation_id: u64) {
        self.complete(Some(correlation_id), Outcome::Disconnected);
    }

    /// Ends the calls whose deadline has come; says when the next one must.
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

    fn end(&self, outcome: impl Fn() -> Outcome) {
        let ended = {
            let mut calls = self.calls();
            calls.has_ended = true;
            self.has_ended.store(true, Ordering::Release);
            calls.pending.end_all(outcome)
        };
        ended.into_iter().for_each(Ended::wake);
        self.freed.notify_waiters();
        self.driver.notify_one();
    }
}

/// Hands replies to their callers until the consumer ends.
async fn take_replies(shared: Arc<Shared>, mut consumer: Consumer) {
    loop {
        match consumer.next().await {
            Ok(Some(delivery)) => {
                let correlation_id = delivery.correlation_id().and_then(|id| id.parse().ok());
                shared.complete(correlation_id, Outcome::Reply(delivery));
            }
            Ok(None) => {
                tracing::debug!("the reply consumer was cancelled");
                return shared.end(|| Outcome::Disconnected);
            }
            Err(error) => {
                tracing::debug!(%error, "the reply consumer ended");
                return shared.end(|| Outcome::Disconnected);
            }
        }
    }
}

/// Looks for returned messages and expires calls, with one timer for all of them.
///
/// Outside confirm mode the client library queues returns without a word. A call answered before the first look
/// costs nothing; while calls wait the looks grow rarer, and every new publish makes them frequent again.
async fn drive(shared: Arc<Shared>) {
    let mut pause = RETURNS_FIRST_LOOK;
    let mut next_look: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if next_look.is_some_and(|at| at <= now) {
            shared.take_returned();
            let published = shared.returns.swap(returns::WATCHED, Ordering::AcqRel) == returns::PUBLISHED;
            pause = if published { RETURNS_FIRST_LOOK } else { (pause * 2).min(RETURNS_LAST_LOOK) };
            next_look = Some(now + pause);
        }
        let next_deadline = shared.expire(now);
        {
            let calls = shared.calls();
            if calls.has_ended {
                return;
            }
            if calls.pending.len() == 0
                && shared
                    .returns
                    .compare_exchange(returns::WATCHED, returns::QUIET, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
            {
                next_look = None;
                pause = RETURNS_FIRST_LOOK;
            }
        }
        if next_look.is_none() && shared.returns.load(Ordering::Acquire) != returns::QUIET {
            next_look = Some(now + pause);
        }
        let wake = [next_deadline, next_look].into_iter().flatten().min();
        match wake {
            None => shared.driver.notified().await,
            Some(at) => tokio::select! {
                () = shared.driver.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }
}

/// Most calls are answered within this time, and then nobody need look for their return.
const RETURNS_FIRST_LOOK: Duration = Duration::from_millis(2);
/// A return that took longer than all looks before it is found at most this late.
const RETURNS_LAST_LOOK: Duration = Duration::from_millis(250);

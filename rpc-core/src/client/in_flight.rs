//! The calls in flight of one session, and the waiter that each caller holds.
//!
//! Replies, returned messages, deadlines and the end of the session complete a call here; whichever is first counts.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
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
    correlation::{Cipher, CorrelationId},
    counters::Counters,
    life::Life,
    opening::Exchange,
    pending::{EXCHANGES, Ended, Pending, Tag},
    reach::{Nack, Reach},
    sizes::Sizes,
    unanswered::{Unanswered, Unheard},
};
use crate::{
    connection::{
        Delivery,
        amqp::{ACCESS_REFUSED, Refusal, Returned},
    },
    error::Error,
    lock::lock,
    meter::{Event, Of},
    printable::printable,
    users::Users,
};

/// How a call's wait ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Reply(Delivery),
    /// No queue took the request.
    Returned {
        reply_text: String,
    },
    /// The broker refused the request (`basic.nack`).
    Refused(Nack),
    /// The broker refused the request: it takes no message of its size.
    TooLarge {
        limit_bytes: usize,
    },
    /// The broker refused the request: the user may not publish it.
    Denied(Box<Refusal>),
    /// The channel ended before the broker looked at the request.
    Unsent,
    Expired,
    Disconnected,
    Shutdown,
}

/// Why a call was not taken in, or its request not sent.
#[derive(Debug)]
pub(super) enum NotSent {
    /// `max_in_flight` calls wait already.
    Full,
    /// So much waits to be written that requests must wait, too.
    NoRoom,
    /// The session or its channel has ended: open another one.
    Ended,
    /// The request cannot be expressed in AMQP, or the broker does not open a channel for it.
    Refused(Error),
}

impl From<Error> for NotSent {
    fn from(error: Error) -> Self {
        match error {
            Error::Disconnected { .. } => Self::Ended,
            error => Self::Refused(error),
        }
    }
}

/// The calls in flight of one session.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) reply_to: String,
    pub(super) cancels: Cancels,
    cipher: Cipher,
    pub(super) sizes: Sizes,
    /// By exchange.
    reach: [Reach; EXCHANGES],
    pub(super) life: Life,
    pub(super) users: Users,
    counters: Arc<Counters>,
    /// The user may not publish to `rpc.nested`.
    is_nested_denied: AtomicBool,
    calls: Mutex<Calls>,
    /// Wakes the task that expires calls: the earliest deadline has changed, or the session has ended.
    deadlines: Notify,
    /// One permit for each call that ended while others waited for a place.
    freed: Notify,
}

#[derive(Debug)]
struct Calls {
    pending: Pending<Outcome>,
    /// As `InFlight::life`, in step with `pending`.
    has_ended: bool,
    /// Callers waiting for a place.
    waiting: usize,
    unanswered: Unanswered,
    /// By exchange: whether a request was answered.
    has_replied: [bool; EXCHANGES],
}

/// The caller's end of one call in flight. Dropping it takes the call out and cancels what was sent.
#[derive(Debug)]
pub(super) struct Waiter {
    in_flight: Arc<InFlight>,
    number: u64,
    is_over: bool,
    /// The service whose workers are notified when the call is given up.
    cancellable: Option<&'static str>,
}

impl Waiter {
    /// The number that the correlation_id spells.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn correlation_id(&self) -> CorrelationId {
        CorrelationId::of(self.number)
    }

    /// Lets the service's workers know if the call is given up from now on.
    pub(super) fn make_cancellable(&mut self, service: Option<&'static str>) {
        self.cancellable = service;
    }

    /// How the call ended. It always does: at its deadline it expires.
    pub(super) fn poll_outcome(&mut self, cx: &task::Context<'_>) -> Poll<Outcome> {
        let outcome = self.in_flight.calls().pending.poll(self.number, cx.waker());
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
            self.in_flight.cancels.note(service, self.number);
            self.in_flight.counters.note(Event::CancelSent, Of::Service(service));
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A call that is no longer in flight has just been answered.
        if !self.is_over && self.in_flight.forget(self.number) {
            self.cancel();
        }
    }
}

impl InFlight {
    /// Those of a session with that `reply_to`. The key is random: it protects the correlation_ids.
    pub(super) fn new(
        reply_to: String,
        key: u128,
        max_in_flight: usize,
        users: Users,
        counters: Arc<Counters>,
    ) -> Self {
        let pending = Pending::new(max_in_flight);
        Self {
            reply_to,
            cancels: Cancels::default(),
            cipher: Cipher::new(key),
            sizes: Sizes::default(),
            reach: Default::default(),
            life: Life::default(),
            users,
            counters,
            is_nested_denied: AtomicBool::new(false),
            calls: Mutex::new(Calls {
                pending,
                has_ended: false,
                waiting: 0,
                unanswered: Unanswered::default(),
                has_replied: [false; EXCHANGES],
            }),
            deadlines: Notify::new(),
            freed: Notify::new(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }

    pub(super) fn len(&self) -> usize {
        self.calls().pending.len()
    }

    /// Whether a call awaits the reply with that correlation_id; so does an id that is none of this session's.
    pub(super) fn awaits(&self, correlation_id: &[u8]) -> bool {
        let number = CorrelationId::number(correlation_id);
        number.is_none_or(|number| self.calls().pending.tag(number).is_some())
    }

    /// Takes a call in. Its waiter exists from here on, so no answer can come too early.
    pub(super) fn begin(self: &Arc<Self>, deadline: Instant, tag: Tag) -> Result<Waiter, NotSent> {
        let inserted = {
            let mut calls = self.calls();
            if calls.has_ended {
                return Err(NotSent::Ended);
            }
            calls
                .pending
                .insert(deadline.into_std(), tag, |number| self.cipher.encipher(number))
                .ok_or(NotSent::Full)?
        };
        if inserted.is_earliest {
            self.deadlines.notify_one();
        }
        Ok(Waiter { in_flight: Arc::clone(self), number: inserted.id, is_over: false, cancellable: None })
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

    /// Where requests that are meant for an exchange go: those for `rpc.nested` to `rpc`, once that is known to be denied.
    pub(super) fn exchange(&self, meant: Exchange) -> Exchange {
        match meant {
            Exchange::Nested if self.is_nested_denied.load(Ordering::Acquire) => Exchange::Requests,
            meant => meant,
        }
    }

    /// Sends the nested requests of this session to `rpc` from now on.
    pub(super) fn deny_nested(&self, reason: &dyn fmt::Display) {
        if !self.is_nested_denied.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                reason = %printable(&reason.to_string()),
                "the user may not publish to exchange 'rpc.nested': its handlers' calls go to 'rpc', and wait behind other requests"
            );
        }
    }

    /// Hands a reply to the call that it names.
    pub(super) fn reply(&self, delivery: Delivery) {
        if !self.users.takes(&delivery) {
            let user_id = delivery.user_id().unwrap_or_default();
            tracing::warn!(user_id = %printable(user_id), "dropped a reply of a user whose replies are not taken");
            return;
        }
        let number = delivery.correlation_id_bytes().and_then(CorrelationId::number);
        self.complete(number, Outcome::Reply(delivery));
    }

    /// Ends a call, and offers its place to a waiting caller.
    fn complete(&self, number: Option<u64>, outcome: Outcome) {
        let is_reply = matches!(outcome, Outcome::Reply(_));
        let ended = number.and_then(|number| {
            let mut calls = self.calls();
            let ended = calls.pending.complete(number, outcome).ok()?;
            calls.has_replied[usize::from(ended.tag.exchange)] |= is_reply;
            Some((ended, calls.waiting > 0))
        });
        let Some((ended, is_wanted)) = ended else {
            if is_reply {
                self.note_unheard(number);
            }
            return;
        };
        ended.wake();
        if is_wanted {
            self.freed.notify_one();
        }
    }

    /// Counts a reply that no call awaits.
    #[cold]
    fn note_unheard(&self, id: Option<u64>) {
        let unheard = id.map_or(Unheard::Foreign, |id| {
            let (number, mut calls) = (self.cipher.decipher(id), self.calls());
            match calls.pending.has_numbered(number) {
                true => calls.unanswered.take(id, number),
                false => Unheard::Foreign,
            }
        });
        let event = match unheard {
            Unheard::Late => Event::LateReply,
            Unheard::Duplicate => Event::DuplicateReply,
            Unheard::Foreign => Event::ForeignReply,
        };
        self.counters.note(event, Of::Nothing);
        tracing::debug!(?unheard, "dropped a reply that no call awaits");
    }

    /// Takes out a call whose caller has stopped waiting, and offers its place; returns whether it was still in flight.
    fn forget(&self, id: u64) -> bool {
        let mut calls = self.calls();
        let was_in_flight = calls.pending.forget(id);
        if was_in_flight {
            calls.note_unanswered(id, &self.cipher);
        }
        let is_wanted = was_in_flight && calls.waiting > 0;
        drop(calls);
        if is_wanted {
            self.freed.notify_one();
        }
        was_in_flight
    }

    /// Ends the call whose request no queue took; returns its number.
    pub(super) fn give_back(&self, Returned { correlation_id, reply_text }: Returned) -> Option<u64> {
        let number = correlation_id.and_then(|id| CorrelationId::number(id.as_bytes()));
        self.complete(number, Outcome::Returned { reply_text });
        number
    }

    /// How the requests to an exchange reach their services.
    pub(super) fn reach(&self, exchange: Exchange) -> &Reach {
        &self.reach[exchange.index()]
    }

    /// Ends a call whose request the broker refused.
    pub(super) fn refuse(&self, number: u64, nack: Nack) {
        self.complete(Some(number), Outcome::Refused(nack));
    }

    /// Ends a call whose request was lost before the broker had confirmed it.
    pub(super) fn lose(&self, number: u64) {
        self.calls().note_unanswered(number, &self.cipher);
        self.complete(Some(number), Outcome::Disconnected);
    }

    /// The broker has closed the channel that the requests to an exchange share. The calls that this is true of end, the
    /// idempotent ones are sent again, and the others wait on: the broker has taken those from before the one that it refused.
    pub(super) fn refuse_channel(&self, exchange: Exchange, refusal: &Refusal) {
        let limit_bytes = self.learn(exchange, refusal);
        let ended = {
            let mut calls = self.calls();
            let is_denied = calls.is_denied(exchange, refusal);
            calls.pending.end_some(|tag| {
                let is_here = usize::from(tag.exchange) == exchange.index() && !tag.is_confirmed;
                is_here.then(|| judge(tag, refusal, limit_bytes, is_denied)).flatten()
            })
        };
        self.wake(ended);
    }

    /// The same for the channel with confirms, whose unconfirmed publishes are known in their order.
    pub(super) fn refuse_publishes(&self, exchange: Exchange, unconfirmed: &[(u64, usize)], refusal: &Refusal) {
        let limit_bytes = self.learn(exchange, refusal);
        let is_too_large = |bytes: usize| limit_bytes.is_some_and(|limit_bytes| bytes > limit_bytes);
        let refused = unconfirmed.iter().position(|(_, bytes)| is_too_large(*bytes));
        let mut ended = Vec::new();
        {
            let mut calls = self.calls();
            let is_denied = calls.is_denied(exchange, refusal);
            for (at, (number, _)) in unconfirmed.iter().enumerate() {
                let Some(tag) = calls.pending.tag(*number) else { continue };
                let outcome = match refused {
                    // The broker has taken it, and its reply is to come.
                    Some(refused) if at < refused => None,
                    // The broker has not looked at it.
                    Some(refused) if at > refused && !is_too_large(tag.body_bytes as usize) => Some(Outcome::Unsent),
                    _ => judge(tag, refusal, limit_bytes, is_denied),
                };
                ended.extend(outcome.and_then(|outcome| calls.pending.complete(*number, outcome).ok()));
            }
        }
        self.wake(ended);
    }

    /// Draws the lessons of a refusal; returns the broker's limit, if it names one.
    fn learn(&self, exchange: Exchange, refusal: &Refusal) -> Option<usize> {
        if exchange == Exchange::Nested && refusal.reply_code == ACCESS_REFUSED {
            self.deny_nested(&refusal.reply_text);
        }
        let limit_bytes = refusal.message_max_bytes();
        if let Some(limit_bytes) = limit_bytes {
            self.sizes.limit(limit_bytes);
        }
        limit_bytes
    }

    fn wake(&self, ended: Vec<Ended>) {
        for ended in ended {
            ended.wake();
            self.freed.notify_one();
        }
    }

    /// Expires calls at their deadlines, with one timer for all of them, until the session ends.
    pub(super) async fn expire_calls(&self) {
        loop {
            let next_deadline = self.expire(Instant::now());
            match next_deadline {
                None if self.life.has_ended() => return,
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
            let Some((id, ended)) = calls.pending.expire(now.into_std(), || Outcome::Expired) else {
                return calls.pending.next_deadline().map(Instant::from_std);
            };
            calls.note_unanswered(id, &self.cipher);
            let is_wanted = calls.waiting > 0;
            drop(calls);
            ended.wake();
            if is_wanted {
                self.freed.notify_one();
            }
        }
    }

    /// Ends all calls, and takes no more in.
    pub(super) fn end(&self, outcome: impl Fn() -> Outcome) {
        let ended = {
            let mut calls = self.calls();
            calls.has_ended = true;
            calls.pending.end_all(outcome)
        };
        self.life.end();
        ended.into_iter().for_each(Ended::wake);
        self.freed.notify_waiters();
        self.deadlines.notify_one();
    }
}

impl Calls {
    /// Notes that a call has ended without a reply.
    #[cold]
    fn note_unanswered(&mut self, id: u64, cipher: &Cipher) {
        self.unanswered.note(id, |id| cipher.decipher(id));
    }

    /// Whether the user may not publish to the exchange: then no request has got through.
    fn is_denied(&self, exchange: Exchange, refusal: &Refusal) -> bool {
        refusal.is_denial() && !self.has_replied[exchange.index()]
    }
}

/// The end of a call whose channel the broker has closed, unless it waits on.
fn judge(tag: Tag, refusal: &Refusal, limit_bytes: Option<usize>, is_denied: bool) -> Option<Outcome> {
    match limit_bytes.filter(|limit_bytes| tag.body_bytes as usize > *limit_bytes) {
        Some(limit_bytes) => Some(Outcome::TooLarge { limit_bytes }),
        // It is sent again, to the exchange `rpc`.
        None if is_denied && usize::from(tag.exchange) == Exchange::Nested.index() => Some(Outcome::Unsent),
        None if is_denied => Some(Outcome::Denied(Box::new(refusal.clone()))),
        None => tag.is_idempotent.then_some(Outcome::Disconnected),
    }
}

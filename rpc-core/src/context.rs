//! What a handler may know about the call it serves.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::connection::{Delivery, transport::HeaderValue};

/// The call a handler serves: its deadline, its headers, where it came from.
///
/// A method gets it by naming an argument of type `&Context`; it does not travel.
pub struct Context {
    delivery: Delivery,
    received_at: Instant,
    deadline: Option<Instant>,
}

impl Context {
    pub(crate) fn new(delivery: Delivery, received_at: Instant) -> Self {
        let budget = delivery.expiration_ms().map(Duration::from_millis);
        let deadline = budget.and_then(|budget| received_at.checked_add(budget));
        Self { delivery, received_at, deadline }
    }

    /// When the caller stops waiting; `None` when it did not say.
    ///
    /// Counted from the moment the request arrived here: the time it was queued is unknown, so the caller may give
    /// up somewhat earlier.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits; zero when it has given up.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// When the request arrived here.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Whether the broker has delivered this request before: an earlier worker may have executed it, in whole or in
    /// part, and died before it acknowledged.
    pub fn redelivered(&self) -> bool {
        self.delivery.redelivered()
    }

    /// How many times the caller has sent this request, from 1.
    pub fn attempt(&self) -> u32 {
        let attempt = self.header(crate::envelope::ATTEMPT_HEADER);
        attempt.and_then(|attempt| attempt.as_i64()).and_then(|attempt| attempt.try_into().ok()).unwrap_or(1)
    }

    /// The `message_id`: the same for every send of one logical call.
    pub fn message_id(&self) -> Option<&str> {
        self.delivery.message_id()
    }

    /// The `app_id` the caller announces.
    pub fn app_id(&self) -> Option<&str> {
        self.delivery.app_id()
    }

    /// The AMQP priority.
    pub fn priority(&self) -> Option<u8> {
        self.delivery.priority()
    }

    /// The routing key the request was published with.
    pub fn routing_key(&self) -> &str {
        self.delivery.routing_key()
    }

    /// The queue the reply goes to; `None` when nobody waits for one.
    pub fn reply_to(&self) -> Option<&str> {
        self.delivery.reply_to()
    }

    /// A header; `None` when absent, or of a type [`HeaderValue`] does not have.
    pub fn header(&self, name: &str) -> Option<HeaderValue> {
        self.delivery.header(name)
    }

    /// Whether the caller's deadline has passed.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("routing_key", &self.routing_key())
            .field("message_id", &self.message_id())
            .field("redelivered", &self.redelivered())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

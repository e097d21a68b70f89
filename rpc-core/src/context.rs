//! The context of a handler: facts about the call it serves.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    connection::{Delivery, NewDelivery, amqp::HeaderValue},
    envelope,
    layer::{Body, Extensions, LazyHeaders, headers},
};

/// The call that a handler serves: its deadline, its headers, where it came from, whether it was cancelled.
///
/// A method gets it by an argument of type `&Context`, which does not travel. A clone of it, which is cheap, may live longer
/// than the handler, for example in a task of [`rpc_core::spawn`](crate::spawn); it keeps the request's body in memory.
///
/// # In unit tests
///
/// [`Context::for_test`] makes one without a broker:
///
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// use std::time::Duration;
///
/// use rpc_core::{Context, service};
///
/// #[service]
/// trait Greeter {
///     async fn greet(&self, name: String, ctx: &Context) -> String;
/// }
///
/// struct Polite;
/// impl Greeter for Polite {
///     async fn greet(&self, name: String, ctx: &Context) -> String {
///         let tenant = ctx.header("tenant").and_then(|tenant| tenant.as_str().map(str::to_owned));
///         let hurry = ctx.remaining().is_some_and(|left| left < Duration::from_millis(10));
///         match tenant {
///             _ if hurry => "Hi".to_owned(),
///             Some(tenant) => format!("Dear {name} of {tenant}"),
///             None => format!("Dear {name}"),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let ctx = Context::for_test().header("tenant", "blue").build();
/// assert_eq!(Polite.greet("Ada".to_owned(), &ctx).await, "Dear Ada of blue");
///
/// let ctx = Context::for_test().deadline(Duration::from_millis(5)).build();
/// assert_eq!(Polite.greet("Ada".to_owned(), &ctx).await, "Hi");
/// # }
/// ```
#[derive(Clone)]
pub struct Context {
    delivery: Delivery,
    received_at: Instant,
    deadline: Option<Instant>,
    /// If the request has come through layers.
    layered: Option<Arc<Layered>>,
}

/// The marks that layers have left on a request.
#[derive(Debug)]
struct Layered {
    headers: LazyHeaders,
    extensions: Extensions,
    /// The arguments.
    body: Body,
}

impl Context {
    /// The context of a request whose caller waits for that many milliseconds from now on.
    pub(crate) fn new(delivery: Delivery, received_at: Instant, budget_ms: Option<u64>) -> Self {
        // RabbitMQ takes no larger one, and no clock has to add a longer time.
        let budget = budget_ms.map(|ms| Duration::from_millis(ms.min(u32::MAX.into())));
        let deadline = budget.and_then(|budget| received_at.checked_add(budget));
        Self { delivery, received_at, deadline, layered: None }
    }

    /// The context of a request whose caller waits until then, by the same clock.
    pub(crate) fn until(delivery: Delivery, received_at: Instant, deadline: Option<Instant>) -> Self {
        Self { delivery, received_at, deadline, layered: None }
    }

    /// The same with the headers, values and arguments that layers have left.
    pub(crate) fn layered(self, headers: LazyHeaders, extensions: Extensions, body: Body) -> Self {
        if extensions.is_empty() && headers.is_received() && body.is_received() {
            return self;
        }
        Self { layered: Some(Arc::new(Layered { headers, extensions, body })), ..self }
    }

    /// The same with another value for the handler.
    pub(crate) fn with_extension<T: Send + Sync + 'static>(self, value: T) -> Self {
        let (headers, mut extensions, body) = match &self.layered {
            None => {
                let (headers, body) = (self.delivery.clone(), self.delivery.clone());
                (LazyHeaders::received(headers), Extensions::default(), Body::received(body))
            }
            Some(layered) => (layered.headers.clone(), layered.extensions.clone(), layered.body.clone()),
        };
        extensions.insert(value);
        self.layered(headers, extensions, body)
    }

    /// Begins a context for a unit test of a handler: a first delivery of a first attempt, with no deadline and no headers.
    pub fn for_test() -> TestContext {
        TestContext::default()
    }

    /// When the caller stops waiting; `None` when the request has no `expiration`.
    ///
    /// It is counted from the moment the request arrived here, less the time it was under way longer than the quickest requests of
    /// the same caller: by how much the clocks differ is unknown. The caller may give up somewhat earlier, by less than 0.2 s if it has
    /// called this pool before.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits; zero when its deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// When the request arrived here.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// How long the request has waited by then, as far as that is known: `None` when it does not say how long its caller waits. The
    /// time before its arrival counts as in [`deadline`](Self::deadline).
    pub(crate) fn waited(&self, now: Instant) -> Option<Duration> {
        let budget = Duration::from_millis(self.delivery.expiration_ms()?);
        Some(budget.saturating_sub(self.deadline?.saturating_duration_since(now)))
    }

    /// Resolves when the work for this call has become pointless:
    ///
    /// - the caller has given up: it dropped the call, or its deadline passed, and its cancel arrived here;
    /// - the deadline has passed by this worker's clock;
    /// - the pool dropped the handler before it answered: the limit of a shutdown was over, the pool was dropped, or its
    ///   connection was lost.
    ///
    /// An async handler rarely needs this, because in all three cases the pool drops its future, at its next `.await`. Work
    /// that the handler has started elsewhere goes on: tasks of [`rpc_core::spawn`](crate::spawn) and `tokio::spawn`, and
    /// threads. Such work keeps a clone of the context and waits here. A `#[rpc(blocking)]` handler, whose thread
    /// cannot be stopped, asks [`is_cancelled`](Self::is_cancelled) between two steps of its computation.
    ///
    /// Once the handler has answered, with a value, an error or a panic, only the deadline resolves this future; without a
    /// deadline it never resolves. The same holds for a `#[rpc(no_cancel)]` method, whose callers cannot cancel it, until the
    /// pool drops the handler. A cancel can get lost together with a connection: then the deadline alone resolves the future.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn cancelled(&self) {
        match self.deadline {
            Some(deadline) => tokio::select! {
                () = self.delivery.cancelled() => {}
                () = sleep_until(deadline) => {}
            },
            None => self.delivery.cancelled().await,
        }
    }

    /// Whether [`cancelled`](Self::cancelled) would resolve at once.
    pub fn is_cancelled(&self) -> bool {
        self.delivery.is_cancelled() || self.is_expired(Instant::now())
    }

    /// Whether the broker has delivered this request before: an earlier worker may have executed it, wholly or in part,
    /// before it was lost.
    pub fn redelivered(&self) -> bool {
        self.delivery.redelivered()
    }

    /// How many times the caller has sent this request, from 1.
    pub fn attempt(&self) -> u32 {
        let attempt = self.header(envelope::ATTEMPT_HEADER);
        attempt.and_then(|attempt| attempt.as_i64()).and_then(|attempt| attempt.try_into().ok()).unwrap_or(1)
    }

    /// The `message_id`: the same for every send of one logical call. Calls that are never sent twice have none.
    pub fn message_id(&self) -> Option<&str> {
        self.delivery.message_id_text()
    }

    /// The user as whom the caller has logged in, if it sends the property `user_id`
    /// ([`ClientOptions::send_user_id`](crate::ClientOptions::send_user_id)): the broker refuses any other name than the
    /// connection's own. [`WorkerPool::users`](crate::WorkerPool::users) checks it before a handler runs.
    pub fn user_id(&self) -> Option<&str> {
        self.delivery.user_id()
    }

    /// The `app_id` that the caller announces.
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

    /// The queue the reply is published to; `None` for a one-way call.
    pub fn reply_to(&self) -> Option<&str> {
        self.delivery.reply_to_text()
    }

    /// A header; `None` when it is absent, or of a type that [`HeaderValue`] does not have.
    pub fn header(&self, name: &str) -> Option<HeaderValue> {
        match &self.layered {
            None => self.delivery.header(name),
            Some(layered) => headers::get(layered.headers.get(), name).cloned(),
        }
    }

    /// The values that the pool's layers have left for the handler, for example the authenticated user.
    pub fn extensions(&self) -> &Extensions {
        self.layered.as_ref().map_or(Extensions::NONE, |layered| &layered.extensions)
    }

    /// Whether the caller's deadline has passed.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The arguments.
    pub(crate) fn body(&self) -> &[u8] {
        self.layered.as_ref().map_or_else(|| self.delivery.body(), |layered| layered.body.get())
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

/// Makes a [`Context`] for a unit test of a handler; see [`Context::for_test`].
#[derive(Debug, Clone, Default)]
#[must_use = "a context is made by `build`"]
pub struct TestContext {
    delivery: NewDelivery,
    deadline: Option<Duration>,
    is_cancelled: bool,
    extensions: Extensions,
}

impl TestContext {
    /// How long the caller still waits, from [`build`](Self::build) on. The default is no deadline.
    pub fn deadline(mut self, from_now: Duration) -> Self {
        self.deadline = Some(from_now);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<HeaderValue>) -> Self {
        self.delivery.headers.push((name.into(), value.into()));
        self
    }

    /// How many times the caller has sent the request. The default is 1.
    pub fn attempt(self, attempt: u32) -> Self {
        self.header(envelope::ATTEMPT_HEADER, i64::from(attempt))
    }

    /// Whether the broker has delivered the request before. The default is false.
    pub fn redelivered(mut self, redelivered: bool) -> Self {
        self.delivery.redelivered = redelivered;
        self
    }

    /// The `message_id`. The default is none.
    pub fn message_id(mut self, message_id: impl Into<String>) -> Self {
        self.delivery.message_id = Some(message_id.into());
        self
    }

    /// The queue the reply would be published to. The default is none, as for a one-way call.
    pub fn reply_to(mut self, reply_to: impl Into<String>) -> Self {
        self.delivery.reply_to = Some(reply_to.into());
        self
    }

    /// The AMQP priority. The default is none.
    pub fn priority(mut self, priority: u8) -> Self {
        self.delivery.priority = Some(priority);
        self
    }

    /// The caller's `user_id`. The default is none.
    pub fn user_id(mut self, user_id: impl Into<String>) -> Self {
        self.delivery.user_id = Some(user_id.into());
        self
    }

    /// The caller's `app_id`. The default is none.
    pub fn app_id(mut self, app_id: impl Into<String>) -> Self {
        self.delivery.app_id = Some(app_id.into());
        self
    }

    /// The routing key. The default is empty.
    pub fn routing_key(mut self, routing_key: impl Into<String>) -> Self {
        self.delivery.routing_key = routing_key.into();
        self
    }

    /// Adds a value, as a layer of the pool would.
    pub fn extension<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// Whether the caller has given up already, so that [`Context::cancelled`] resolves at once. The default is false. A caller
    /// that gives up in the middle of a test is best made by a short [`deadline`](Self::deadline).
    pub fn cancelled(mut self, is_cancelled: bool) -> Self {
        self.is_cancelled = is_cancelled;
        self
    }

    /// The context.
    ///
    /// # Panics
    /// When a text, or the name of a header, is longer than the 255 bytes that AMQP allows.
    #[expect(clippy::expect_used, reason = "a unit test is to fail at once")]
    pub fn build(self) -> Context {
        let delivery = self.delivery.make().expect("texts and header names of a request have at most 255 bytes");
        if self.is_cancelled {
            delivery.cancel();
        }
        let received_at = Instant::now();
        let deadline = self.deadline.and_then(|from_now| received_at.checked_add(from_now));
        let context = Context { delivery, received_at, deadline, layered: None };
        let delivery = context.delivery.clone();
        context.layered(LazyHeaders::received(delivery.clone()), self.extensions, Body::received(delivery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_for_a_test_says_what_it_was_given() {
        let ctx = Context::for_test()
            .header("tenant", "blue")
            .header("shard", 7)
            .attempt(3)
            .redelivered(true)
            .message_id("m")
            .reply_to("q")
            .priority(5)
            .user_id("alice")
            .app_id("shop")
            .routing_key("stock.take")
            .build();
        assert_eq!((ctx.header("tenant"), ctx.header("shard")), (Some("blue".into()), Some(7.into())));
        assert_eq!((ctx.attempt(), ctx.redelivered(), ctx.priority()), (3, true, Some(5)));
        let texts = [ctx.message_id(), ctx.reply_to(), ctx.user_id(), ctx.app_id(), Some(ctx.routing_key())];
        assert_eq!(texts, [Some("m"), Some("q"), Some("alice"), Some("shop"), Some("stock.take")]);
        assert!(ctx.remaining().is_none() && !ctx.is_cancelled());
        let plain = Context::for_test().build();
        assert_eq!((plain.attempt(), plain.redelivered(), plain.priority()), (1, false, None));
        assert_eq!([plain.message_id(), plain.reply_to(), plain.user_id(), plain.app_id()], [None; 4]);
        assert_eq!((plain.header("tenant"), plain.routing_key()), (None, ""));
        assert!(plain.extensions().is_empty());
        let layered = Context::for_test().header("tenant", "blue").attempt(3).extension(9_u8).build();
        assert_eq!((layered.header("tenant"), layered.attempt()), (Some("blue".into()), 3));
        assert_eq!(layered.extensions().get(), Some(&9_u8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_waited_for_as_long_as_its_budget_has_shrunk() {
        let arrived = |expiration_ms, budget_ms| {
            let delivery = NewDelivery { expiration_ms, ..NewDelivery::default() }.make().unwrap();
            Context::new(delivery, Instant::now(), budget_ms)
        };
        let ctx = arrived(Some(1_000), Some(700));
        let later = Instant::now() + Duration::from_millis(50);
        assert_eq!(ctx.waited(later), Some(Duration::from_millis(350)), "300 ms before it arrived, and 50 ms here");
        assert_eq!(ctx.waited(later + Duration::from_secs(9)), Some(Duration::from_secs(1)));
        assert_eq!(arrived(None, None).waited(later), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_is_cancelled_by_its_caller_or_at_its_deadline() {
        Context::for_test().cancelled(true).build().cancelled().await;
        let ctx = Context::for_test().deadline(Duration::from_millis(20)).build();
        assert!(!ctx.is_cancelled());
        ctx.clone().cancelled().await;
        assert!(ctx.is_cancelled() && ctx.remaining() == Some(Duration::ZERO));
        let ctx = Context::for_test().build();
        let waiting = tokio::time::timeout(Duration::from_secs(3_600), ctx.cancelled());
        assert!(waiting.await.is_err(), "no deadline, no cancel");
        ctx.delivery().cancel();
        ctx.cancelled().await;
    }
}

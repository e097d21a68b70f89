//! Requests that come again: when an earlier worker may have executed one, or has died of it.
//!
//! ```text
//!  redelivered ──► too often?                ──► rpc.<service>.dead, and the caller is told
//!              └─► not idempotent? Redelivered::Execute ──► the handler runs again
//!                                  ReplyMaybeExecuted   ──► the caller is told
//!                                  DeadLetter           ──► rpc.<service>.dead, and the caller is told
//! ```
//!
//! Quorum queues count deliveries, and dead-letter by themselves what no worker gets as far as to judge (its caller is told
//! by `dead_callers.rs`). Classic queues only say `redelivered`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Counters, Source, consume::Lane, dispatch::Response, kind_arguments};
use crate::{
    connection::{Backoff, Channel, Delivery, transport::HeaderValue},
    envelope::Code,
    error::Error,
    service::MethodDescriptor,
    topology,
};

/// What becomes of a request that an earlier worker may have executed, when its method is not idempotent.
///
/// A worker that died after it had executed a request and before it acknowledged leaves it to the next one; so does a
/// pool that shut down before it had begun it. `#[rpc(idempotent)]` methods are always executed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Redelivered {
    /// The handler runs again; it sees [`Context::redelivered`](crate::Context::redelivered). The default.
    #[default]
    Execute,
    /// The handler does not run; the caller gets [`CallError::Abandoned`](crate::CallError::Abandoned).
    ReplyMaybeExecuted,
    /// The same, and the request goes to the queue `rpc.<service>.dead`, for a person to look at.
    DeadLetter,
}

/// Why a request is not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It has been delivered more often than `delivery_limit` allows.
    DeliveryLimit { deliveries: i64 },
    /// The policy keeps it, or only reports it.
    Redelivered { is_kept: bool },
}

/// Judges a redelivered request; `None` when it is to be executed.
pub(super) fn judge(source: &Source, method: &MethodDescriptor, delivery: &Delivery) -> Option<Sentence> {
    if let (Some(limit), Some(count)) = (source.delivery_limit, delivery.header(DELIVERY_COUNT_HEADER))
        && let Some(deliveries) = count.as_i64().filter(|deliveries| *deliveries >= i64::from(limit))
    {
        return Some(Sentence::DeliveryLimit { deliveries });
    }
    match source.redelivered {
        _ if method.idempotent => None,
        Redelivered::Execute => None,
        Redelivered::ReplyMaybeExecuted => Some(Sentence::Redelivered { is_kept: false }),
        Redelivered::DeadLetter => Some(Sentence::Redelivered { is_kept: true }),
    }
}

impl Sentence {
    /// Moves the request to the dead letters if it is to be kept, and says how to answer it.
    ///
    /// Tries for ever: until it is there the request stays unacknowledged, so that nothing is lost.
    pub(super) async fn execute(self, lane: Arc<Lane>, delivery: Delivery) -> Response {
        if !matches!(self, Self::Redelivered { is_kept: false }) {
            let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
            while let Err(error) = self.dead_letter(&lane.source, &delivery).await {
                tracing::error!(%error, "could not dead-letter a request: it is kept here");
                sleep(backoff.pause()).await;
            }
            Counters::add(&lane.counters.dead_lettered);
        }
        Response::failed(Code::Abandoned, self.to_string())
    }

    async fn dead_letter(self, source: &Source, delivery: &Delivery) -> Result<(), Error> {
        let channel = source.connection.channel().await?;
        channel.confirm_select().await?;
        source.declare_dead_letters(&channel).await?;
        let queue = topology::dead_queue(source.descriptor.name);
        let confirm = channel.republish(delivery, &queue, self.headers(delivery)).await?;
        let failed = |what: &str| Err(Error::Disconnected { reason: format!("{what} for '{queue}'") });
        match confirm.wait().await? {
            (true, None) => {
                // It is there, whatever becomes of the channel.
                drop(channel.close().await);
                Ok(())
            }
            (true, Some(returned)) => failed(&returned.reply_text),
            (false, _) => failed("the broker refused a dead letter"),
        }
    }

    /// What is written on the dead letter, besides what was on it.
    fn headers(self, delivery: &Delivery) -> Vec<(Cow<'static, str>, HeaderValue)> {
        let mut headers: Vec<(Cow<'static, str>, HeaderValue)> = vec![
            ("rpc-dead-reason".into(), self.reason().into()),
            ("rpc-dead-routing-key".into(), delivery.routing_key().into()),
        ];
        if let Self::DeliveryLimit { deliveries } = self {
            headers.push(("rpc-dead-deliveries".into(), deliveries.into()));
        }
        if let Some(expiration_ms) = delivery.expiration_ms() {
            // As a property it would remove the dead letter itself.
            let expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
            headers.push(("rpc-dead-expiration-ms".into(), expiration_ms.into()));
        }
        headers
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::DeliveryLimit { .. } => "delivery_limit",
            Self::Redelivered { .. } => "redelivered",
        }
    }
}

impl std::fmt::Display for Sentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DeliveryLimit { deliveries } => {
                write!(f, "delivered {deliveries} times before, and lost by its worker each time")
            }
            Self::Redelivered { .. } => f.write_str("the worker that had it was lost, and it is not executed again"),
        }
    }
}

impl Source {
    /// Declares what requests of `queue` that are not executed any more need.
    pub(super) async fn prepare_dead_letters(&self, channel: &Channel, queue: &str) -> Result<(), Error> {
        if self.delivery_limit.is_some() || self.redelivered == Redelivered::DeadLetter {
            self.declare_dead_letters(channel).await?;
        }
        match self.delivery_limit {
            Some(_) => self.bind_dead_letters(channel, queue, &topology::dead_queue(self.descriptor.name)).await,
            None => Ok(()),
        }
    }

    /// Declares where dead letters go.
    async fn declare_dead_letters(&self, channel: &Channel) -> Result<(), Error> {
        self.declare_durable(channel, &topology::dead_queue(self.descriptor.name), &kind_arguments(self.is_quorum))
            .await
    }

    /// Lets the broker's own dead letters of `queue` into `dead`, those that hit the delivery limit only: requests that
    /// expired are no matter for a person.
    pub(super) async fn bind_dead_letters(&self, channel: &Channel, queue: &str, dead: &str) -> Result<(), Error> {
        channel.declare_dead_exchange().await?;
        let arguments = [
            ("x-match", HeaderValue::from("all-with-x")),
            ("x-first-death-reason", HeaderValue::from("delivery_limit")),
            ("x-first-death-queue", HeaderValue::from(queue)),
        ];
        channel.bind_queue_by_headers(dead, topology::DEAD_EXCHANGE, &arguments).await
    }
}

/// What the caller is told of a request that the broker dead-lettered.
pub(super) const BROKERS_SENTENCE: &str =
    "lost by its worker each time it was delivered, until the broker dead-lettered it";

/// How often a quorum queue has delivered a message before.
const DELIVERY_COUNT_HEADER: &str = "x-delivery-count";

/// What RabbitMQ 4 takes by default.
pub(super) const DEFAULT_DELIVERY_LIMIT: u32 = 20;

/// Pauses before another try to dead-letter.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

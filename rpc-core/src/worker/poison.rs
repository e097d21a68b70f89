//! Redelivered requests: an earlier worker may have executed one, or may have died of it.
//!
//! ```text
//!  redelivered ──► at the delivery limit? ─────────────────► rpc.<service>.dead, and the caller gets `abandoned`
//!              └─► not idempotent? Execute ────────────────► the handler runs again
//!                                  ReplyMaybeExecuted ─────► the caller gets `abandoned`
//!                                  DeadLetter ─────────────► rpc.<service>.dead, and the caller gets `abandoned`
//! ```
//!
//! Quorum queues count deliveries, and dead-letter by themselves a request that kills every worker before it is looked at
//! here (`dead_callers.rs` answers its caller). Classic queues only say `redelivered`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    dispatch::Response,
    lane::Lane,
    policy::{RedeliveryPolicy, RedeliveryRules},
    source::Source,
    stats::Counters,
};
use crate::{
    connection::{Backoff, Delivery, amqp::HeaderValue},
    envelope::Code,
    error::Error,
    service::MethodDescriptor,
    topology,
};

/// Why a request is not executed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It has been delivered as often as `delivery_limit` allows.
    DeliveryLimit { deliveries: i64 },
    /// The pool's [`RedeliveryPolicy`] forbids it.
    Policy { is_dead_lettered: bool },
}

/// Decides on a redelivered request; `None` when it is to be executed.
pub(super) fn abandons(rules: RedeliveryRules, method: &MethodDescriptor, delivery: &Delivery) -> Option<Abandoned> {
    if let (Some(limit), Some(count)) = (rules.delivery_limit, delivery.header(DELIVERY_COUNT_HEADER))
        && let Some(deliveries) = count.as_i64().filter(|deliveries| *deliveries >= i64::from(limit))
    {
        return Some(Abandoned::DeliveryLimit { deliveries });
    }
    match rules.policy {
        _ if method.idempotent => None,
        RedeliveryPolicy::Execute => None,
        RedeliveryPolicy::ReplyMaybeExecuted => Some(Abandoned::Policy { is_dead_lettered: false }),
        RedeliveryPolicy::DeadLetter => Some(Abandoned::Policy { is_dead_lettered: true }),
    }
}

impl Abandoned {
    /// Dead-letters the request where required, and returns its answer.
    ///
    /// Tries for ever: until the dead letter is stored the request stays unacknowledged, so that it is never lost.
    pub(super) async fn execute(self, lane: Arc<Lane>, delivery: &Delivery) -> Response {
        if !matches!(self, Self::Policy { is_dead_lettered: false }) {
            let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
            while let Err(error) = self.dead_letter(&lane.source, delivery).await {
                tracing::error!(%error, "could not dead-letter a request: it stays unacknowledged, and the next attempt follows");
                sleep(backoff.pause()).await;
            }
            Counters::add(&lane.counters.dead_lettered);
        }
        Response::failed(Code::Abandoned, self.to_string())
    }

    async fn dead_letter(self, source: &Source, delivery: &Delivery) -> Result<(), Error> {
        let channel = source.connection.channel().await?;
        channel.confirm_select().await?;
        source.declare_dead_queue(&channel).await?;
        let queue = topology::dead_queue(source.descriptor.name);
        let confirm = channel.republish(delivery, &queue, &self.headers(delivery))?;
        let failed = |what: &str| Err(Error::Disconnected { reason: format!("{what} for '{queue}'") });
        match confirm.wait().await? {
            (true, None) => {
                // The broker has confirmed the dead letter: a failure to close loses nothing.
                drop(channel.close().await);
                Ok(())
            }
            (true, Some(returned)) => failed(&returned.reply_text),
            (false, _) => failed("the broker refused a dead letter"),
        }
    }

    /// The headers that the dead letter has besides those of the request.
    fn headers(self, delivery: &Delivery) -> Vec<(Cow<'static, str>, HeaderValue)> {
        let mut headers: Vec<(Cow<'static, str>, HeaderValue)> = vec![
            ("rpc-dead-reason".into(), self.reason().into()),
            ("rpc-dead-routing-key".into(), delivery.routing_key().into()),
        ];
        if let Self::DeliveryLimit { deliveries } = self {
            headers.push(("rpc-dead-deliveries".into(), deliveries.into()));
        }
        if let Some(expiration_ms) = delivery.expiration_ms() {
            // Not as the property `expiration`, because the dead letter itself would expire.
            let expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
            headers.push(("rpc-dead-expiration-ms".into(), expiration_ms.into()));
        }
        headers
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::DeliveryLimit { .. } => "delivery_limit",
            Self::Policy { .. } => "redelivered",
        }
    }
}

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DeliveryLimit { deliveries } => {
                write!(f, "delivered {deliveries} times before, and lost by its worker each time")
            }
            Self::Policy { .. } => f.write_str("the worker that had it was lost, and it is not executed again"),
        }
    }
}

/// The error text for the caller of a request that the broker dead-lettered.
pub(super) const DEAD_LETTERED_BY_BROKER: &str =
    "lost by its worker each time it was delivered, until the broker dead-lettered it";

/// The header in which a quorum queue counts earlier deliveries.
const DELIVERY_COUNT_HEADER: &str = "x-delivery-count";

/// RabbitMQ 4's default.
pub(super) const DEFAULT_DELIVERY_LIMIT: u32 = 20;

/// Bounds of the randomised pauses before another attempt to dead-letter.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

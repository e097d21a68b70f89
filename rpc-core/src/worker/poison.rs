//! Redelivered requests: an earlier worker may have executed one, or may have died of it.
//!
//! ```text
//!  redelivered ──► at the delivery limit? ─────────────────► rpc.<service>.dead, and the caller gets `abandoned`
//!              ├─► cost this lane its channel twice? ────────► the same
//!              └─► not idempotent? Execute ────────────────► the handler runs again
//!                                  ReplyMaybeExecuted ─────► the caller gets `abandoned`
//!                                  DeadLetter ─────────────► rpc.<service>.dead, and the caller gets `abandoned`
//! ```
//!
//! Quorum queues count deliveries, and dead-letter by themselves a request that kills every worker before it is looked at
//! here (`dead_callers.rs` answers its caller). Classic queues only say `redelivered`.

use std::sync::Arc;

use super::{
    dead_letter::{self, Reason},
    dispatch::Response,
    lane::Lane,
    policy::{RedeliveryPolicy, RedeliveryRules},
};
use crate::{connection::Delivery, envelope::Code, service::MethodDescriptor};

/// Why a request is not executed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It has been delivered as often as `delivery_limit` allows.
    DeliveryLimit { deliveries: i64 },
    /// The pool's [`RedeliveryPolicy`] forbids it.
    Policy { is_dead_lettered: bool },
    /// The broker has closed the lane's channel twice while the request was here.
    ChannelLost,
}

/// Decides on a redelivered request, at which the lane has lost its channel so many times; `None` when it is to be executed.
pub(super) fn abandons(
    rules: RedeliveryRules,
    method: &MethodDescriptor,
    delivery: &Delivery,
    losses: u32,
) -> Option<Abandoned> {
    if losses >= CHANNEL_LOSSES_MAX {
        return Some(Abandoned::ChannelLost);
    }
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
    pub(super) async fn execute(self, lane: Arc<Lane>, delivery: &Delivery) -> Response {
        if !matches!(self, Self::Policy { is_dead_lettered: false }) {
            dead_letter::keep(&lane, delivery, self.reason()).await;
        }
        Response::failed(Code::Abandoned, self.to_string())
    }

    const fn reason(self) -> Reason<'static> {
        match self {
            Self::DeliveryLimit { deliveries } => Reason::DeliveryLimit { deliveries },
            Self::Policy { .. } => Reason::Redelivered,
            Self::ChannelLost => Reason::ChannelLost,
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
            Self::ChannelLost => {
                f.write_str("the broker closed its worker's channel twice, and it is not executed again")
            }
        }
    }
}

/// The error text for the caller of a request that the broker dead-lettered.
pub(super) const DEAD_LETTERED_BY_BROKER: &str =
    "lost by its worker each time it was delivered, until the broker dead-lettered it";

/// The header in which a quorum queue counts earlier deliveries.
const DELIVERY_COUNT_HEADER: &str = "x-delivery-count";

/// A request at which a lane has lost its channel so often is not executed again, on any kind of queue.
const CHANNEL_LOSSES_MAX: u32 = 2;

/// RabbitMQ 4's default.
pub(super) const DEFAULT_DELIVERY_LIMIT: u32 = 20;

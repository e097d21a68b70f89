//! `basic.ack`, `basic.nack`, `basic.reject` and `basic.recover`: deliveries are acknowledged, rejected or requeued.
//!
//! One frame may settle all deliveries of a channel. That takes a single pass over them, however many there are and
//! however full the queues are.

use std::collections::VecDeque;

use crate::{
    broker::core::{
        context::Context,
        fault::Fault,
        session::{
            channel::{Mode, Settle},
            unacked::Delivered,
        },
        vhost::{Vhost, consumers::Regained, dead_letter::Death, queue::RequeueReason},
    },
    routing::QueueId,
};

/// Acknowledges, rejects or requeues the delivery with a tag, or with `multiple` all deliveries up to it.
pub(crate) fn settle(
    context: &mut Context<'_>,
    delivery_tag: u64,
    multiple: bool,
    settle: Settle,
) -> Result<(), Fault> {
    let channel = context.channel_mut();
    let unknown = || Fault::unknown_delivery_tag(delivery_tag);
    if let Mode::Transaction(_) = channel.mode {
        return if channel.hold_back(delivery_tag, multiple, settle) { Ok(()) } else { Err(unknown()) };
    }
    if multiple {
        let taken = channel.take_through(delivery_tag).ok_or_else(unknown)?;
        let refusal = refuse_of_streams(context.vhost, taken.queues(), settle, NACK);
        let freed = apply(context, taken.into_deliveries(), settle);
        context.deliver_all(freed, context.regained());
        return refusal;
    }
    let delivered = channel.take_one(delivery_tag).ok_or_else(unknown)?;
    let key = delivered.queue;
    let is_shared = channel.global_prefetch_count != 0;
    // The usual case: only consumers of this channel can have got credit.
    if !is_shared && settle == Settle::Ack {
        channel.release(&delivered);
        let regained = consumer_of(context, delivered.slot);
        context.vhost.acknowledged(key, regained, context.now, context.sessions);
        context.vhost.route_dead(context.now, context.sessions);
        return Ok(());
    }
    let refusal = refuse_of_streams(context.vhost, [key], settle, NACK);
    let regained = if is_shared { context.regained() } else { consumer_of(context, delivered.slot) };
    let freed = apply(context, [delivered], settle);
    refusal?;
    context.deliver_all(freed, regained);
    Ok(())
}

/// The consumer that a delivery was sent to. One of `basic.get` had none.
#[inline]
fn consumer_of(context: &Context<'_>, slot: Option<usize>) -> Regained {
    slot.map_or(Regained::Nobody, |slot| Regained::Consumer((context.id, context.number, slot)))
}

/// Requeues all deliveries of the channel. Returns the queues that may have messages to deliver now.
pub(crate) fn recover(context: &mut Context<'_>, requeue: bool) -> Result<Vec<QueueId>, Fault> {
    if !requeue {
        return Err(Fault::not_implemented("requeue=false"));
    }
    let taken = context.channel_mut().take_all();
    let refusal = refuse_of_streams(context.vhost, taken.queues(), Settle::Requeue, "basic.recover");
    let freed = apply(context, taken.into_deliveries(), Settle::Requeue);
    match refusal {
        Ok(()) => Ok(freed),
        Err(fault) => {
            context.deliver_all(freed, context.regained());
            Err(fault)
        }
    }
}

/// Settles deliveries as a committed transaction demands. Returns the queues that may have messages to deliver now.
pub(crate) fn apply_settlements(context: &mut Context<'_>, settlements: Vec<(Delivered, Settle)>) -> Vec<QueueId> {
    let mut freed = Vec::new();
    let mut rest = settlements.into_iter().peekable();
    while let Some(&(_, settle)) = rest.peek() {
        let alike = std::iter::from_fn(|| Some(rest.next_if(|(_, other)| *other == settle)?.0));
        freed.extend(apply_alike(context, alike, settle));
    }
    with_shared_window(context, freed)
}

/// Settles deliveries. Returns the queues that may have messages to deliver now.
fn apply(context: &mut Context<'_>, delivered: impl IntoIterator<Item = Delivered>, settle: Settle) -> Vec<QueueId> {
    let freed = apply_alike(context, delivered, settle);
    with_shared_window(context, freed)
}

/// Settles deliveries. Returns their queues, some of them several times.
fn apply_alike(
    context: &mut Context<'_>,
    delivered: impl IntoIterator<Item = Delivered>,
    settle: Settle,
) -> Vec<QueueId> {
    let now = context.now;
    let delivered = delivered.into_iter();
    let count_max = delivered.size_hint().1.unwrap_or_default();
    let mut work = 0;
    let (vhost, channel) = context.vhost_and_channel();
    let released = delivered.inspect(|delivered| {
        work += 1;
        channel.release(delivered);
    });
    let mut garbage = VecDeque::with_capacity(if settle == Settle::Requeue { 0 } else { count_max });
    let settled = match settle {
        Settle::Requeue => vhost.requeue_all(released, RequeueReason::Requested, now),
        Settle::Ack => vhost.settle_all(released, |_, entry| garbage.push_back(entry)),
        Settle::Reject => vhost.settle_all(released, |live, entry| {
            if let Some(mut live) = live {
                live.bury(&entry, Death::Rejected, now);
            }
            garbage.push_back(entry);
        }),
    };
    context.sessions.work += work;
    // Dropping a few entries here is cheaper than moving them to the garbage.
    if garbage.len() > GARBAGE_MIN {
        context.sessions.garbage.push(garbage);
    }
    settled
}

/// Sorts the queues of settled deliveries, and adds those that share the channel's window, which has room again.
fn with_shared_window(context: &mut Context<'_>, mut settled: Vec<QueueId>) -> Vec<QueueId> {
    settled.sort_unstable();
    settled.dedup();
    let channel = context.channel_mut();
    if channel.global_prefetch_count != 0 {
        let shared = channel.consumed_queues();
        settled.retain(|key| !shared.contains(key));
        settled.extend(shared);
    }
    settled
}

/// Refuses to reject or requeue a stream's deliveries.
fn refuse_of_streams(
    vhost: &Vhost,
    keys: impl IntoIterator<Item = QueueId>,
    settle: Settle,
    method: &str,
) -> Result<(), Fault> {
    if settle == Settle::Ack {
        return Ok(());
    }
    let mut last = None;
    for key in keys {
        if last.replace(key) != Some(key)
            && let Some(queue) = vhost.queues.get(&key).filter(|queue| queue.stream.is_some())
        {
            return Err(Fault::no_stream_method(method, &queue.name, &vhost.name));
        }
    }
    Ok(())
}

/// RabbitMQ's name of the methods that streams refuse.
const NACK: &str = "basic.nack and basic.reject";
/// Up to this many messages are dropped under the lock.
const GARBAGE_MIN: usize = 1_000;

//! The basic class, except for the methods with a file of their own: consume and cancel, publish, and the settling ones.

use amq_protocol::protocol::{
    AMQPClass,
    basic::{AMQPMethod, Get, GetEmpty, Qos, QosOk, RecoverOk, Reject},
};

use crate::broker::core::{
    classes::{
        consume::{cancel, cancelled, consume},
        settle::{recover, settle},
    },
    context::Context,
    deprecations::DeprecatedFeature,
    fault::{Fault, STREAMS},
    interface::Now,
    profile::QueueFacts,
    session::{
        access::{Resource, Right},
        channel::{Channel, Settle},
        output::{Extra, Got},
        unacked::Delivered,
    },
    vhost::{live_queue::LiveQueue, message::Entry, queue::Queue},
};

/// Handles a method of this class; `payload` is its frame's.
pub(crate) fn method(context: &mut Context<'_>, method: AMQPMethod, payload: &[u8]) -> Result<(), Fault> {
    let nacked = |requeue: bool| if requeue { Settle::Requeue } else { Settle::Reject };
    match method {
        AMQPMethod::Qos(qos) => self::qos(context, &qos, payload),
        AMQPMethod::Consume(consume) => self::consume(context, &consume),
        AMQPMethod::Cancel(cancel) => {
            self::cancel(context, cancel);
            Ok(())
        }
        AMQPMethod::Get(get) => self::get(context, &get),
        AMQPMethod::Nack(nack) => settle(context, nack.delivery_tag, nack.multiple, nacked(nack.requeue)),
        // RabbitMQ 4 regards a delivery that is rejected so as failed, but not one that is rejected by `basic.nack`.
        AMQPMethod::Reject(Reject { delivery_tag, requeue: true }) => {
            settle(context, delivery_tag, false, Settle::RequeueFailed)
        }
        AMQPMethod::Reject(reject) => settle(context, reject.delivery_tag, false, Settle::RejectFailed),
        AMQPMethod::CancelOk(ok) if context.vhost.facts.cancel_ok_is_internal_error => {
            self::cancelled(context, ok.consumer_tag)
        }
        AMQPMethod::Recover(recover) => {
            let ok = AMQPClass::Basic(AMQPMethod::RecoverOk(RecoverOk {}));
            self::recover(context, recover.requeue, Some(ok))
        }
        AMQPMethod::RecoverAsync(recover) => self::recover(context, recover.requeue, None),
        _ => Err(Fault::unimplemented_method()),
    }
}

fn qos(context: &mut Context<'_>, qos: &Qos, payload: &[u8]) -> Result<(), Fault> {
    // amq-protocol drops prefetch_size, which follows the ids.
    let size = payload.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_be_bytes(*size));
    if size != 0 {
        return Err(Fault::not_implemented(format!("prefetch_size!=0 ({size})")));
    }
    if qos.global && context.warns_of().is_some_and(|facts| !facts.has_shared_window) {
        context.deprecated(DeprecatedFeature::GlobalQos, "");
    }
    let is_shared = qos.global && context.vhost.facts.has_shared_window;
    let channel = context.channel_mut();
    if is_shared {
        channel.global_prefetch_count = qos.prefetch_count;
    } else {
        channel.prefetch_count = qos.prefetch_count;
    }
    // A wider window of the channel takes effect at once.
    let keys = if is_shared { channel.consumed_queues() } else { Vec::new() };
    context.send(&AMQPClass::Basic(AMQPMethod::QosOk(QosOk {})));
    context.deliver_all(keys, context.regained());
    Ok(())
}

fn get(context: &mut Context<'_>, get: &Get) -> Result<(), Fault> {
    let name = context.queue_name(get.queue.as_str())?;
    context.authorize(Right::Read, Resource::Queue(&name))?;
    let (connection, now) = (context.id, context.now);
    let limit = context.globals.rules.limits.consumer_timeout;
    let facts = &context.vhost.facts.queues;
    let (vhost, channel) = context.vhost_and_channel();
    let mut live = vhost.accessible(&name, connection)?;
    check_get(live.queue, live.vhost, facts)?;
    let timeout = live.queue.consumer_timeout(facts, limit).filter(|_| !get.no_ack);
    let got = take_ready(&mut live, now).map(|entry| tagged(&mut live, channel, entry, get.no_ack));
    live.set_timer();
    match got {
        Some(got) => {
            if let Some(due) = timeout.and_then(|timeout| now.instant.checked_add(timeout)) {
                context.sessions.set_due((connection, context.number), due, got.delivery_tag);
            }
            context.sessions.send_got(connection, context.number, &got);
            context.vhost.route_dead(now, context.sessions);
        }
        None => {
            context.vhost.route_dead(now, context.sessions);
            context.send(&AMQPClass::Basic(AMQPMethod::GetEmpty(GetEmpty {})));
        }
    }
    Ok(())
}

/// Refuses to get from a queue of a type that does not support it.
fn check_get(queue: &Queue, vhost: &str, facts: &QueueFacts) -> Result<(), Fault> {
    if queue.stream.is_some() {
        return Err(Fault::no_stream_method("basic.get", STREAMS, &queue.name, vhost));
    }
    if queue.arguments.is_quorum && queue.arguments.single_active_consumer {
        return Err(Fault::no_get_beside_single_active(facts.quorum.noun, &queue.name, vhost));
    }
    Ok(())
}

/// Takes the next message out of a queue, and drops expired ones around it.
fn take_ready(live: &mut LiveQueue<'_>, now: Now) -> Option<Entry> {
    live.drop_expired(now);
    live.queue.last_used = now.instant;
    let entry = live.queue.pop()?;
    // The next message may have expired, and must not be counted in `basic.get-ok`.
    live.drop_expired(now);
    Some(entry)
}

/// Gives a message its delivery tag. Without `no_ack` the channel holds it until it is settled.
fn tagged(live: &mut LiveQueue<'_>, channel: &mut Channel, entry: Entry, no_ack: bool) -> Got {
    let kept = entry.clone();
    let delivery_tag = if no_ack {
        channel.tag_settled()
    } else {
        live.queue.unacked += 1;
        channel.tag_unacked(Delivered { queue: live.key, entry: Some(entry), slot: None, delivery_tag: 0 })
    };
    let message_count = u32::try_from(live.queue.ready_count()).unwrap_or(u32::MAX);
    let extra = Extra::of_got(&live.queue.arguments, &kept);
    Got { entry: kept, delivery_tag, message_count, extra }
}

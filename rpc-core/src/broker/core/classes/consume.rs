//! `basic.consume` and `basic.cancel`.

use std::time::Duration;

use amq_protocol::{
    protocol::{
        AMQPClass,
        basic::{AMQPMethod, Cancel, CancelOk, Consume, ConsumeOk},
    },
    types::{AMQPValue, ShortString},
};
use bytes::Bytes;

use crate::broker::core::{
    context::Context,
    fault::Fault,
    interface::Now,
    names::short,
    profile::{QueueFacts, StreamFacts},
    session::{
        access::{Resource, Right},
        channel::{Channel, ChannelConsumer},
        reply_address::DIRECT_REPLY_TO,
    },
    vhost::{
        consumers::{Consumer, Regained},
        field_values::{integer_of, shown, type_name},
        live_queue::LiveQueue,
        queue::Queue,
        stream::Start,
    },
};

/// Handles `basic.consume`.
pub(crate) fn consume(context: &mut Context<'_>, consume: &Consume) -> Result<(), Fault> {
    let tag = match consume.consumer_tag.as_str() {
        "" => context.globals.random.name("amq.ctag-"),
        tag => tag.to_owned(),
    };
    if consume.queue.as_str() == DIRECT_REPLY_TO {
        consume_direct_replies(context.channel_mut(), consume, &tag)?;
        send_consume_ok(context, consume, &tag);
        return Ok(());
    }
    let name = context.queue_name(consume.queue.as_str())?;
    check_channel(context, &tag)?;
    context.authorize(Right::Read, Resource::Queue(&name))?;
    let ((connection, number), now) = (context.place(), context.now);
    let limit = context.globals.rules.limits.consumer_timeout;
    let facts = &context.vhost.facts.queues;
    let (vhost, channel) = context.vhost_and_channel();
    let LiveQueue { key, queue, vhost, .. } = vhost.accessible(&name, connection)?;
    let Terms { priority, exclusive, timeout } = check_queue(queue, channel, consume, vhost, facts)?;
    let offset = offset(queue, consume, vhost, &facts.streams, now)?;
    let timeout = timeout.or_else(|| queue.consumer_timeout(facts, limit));
    let tag_bytes = Bytes::copy_from_slice(tag.as_bytes());
    let prefetch_count = channel.prefetch_count;
    let known = ChannelConsumer::new(tag_bytes.clone(), key, consume.no_ack, prefetch_count);
    let slot = channel.add_consumer(known.with_timeout(timeout));
    queue.consumers.add(Consumer { connection, channel: number, tag: tag_bytes, slot, priority, exclusive, offset });
    queue.last_used = now.instant;
    send_consume_ok(context, consume, &tag);
    context.deliver_all(vec![key], Regained::Nobody);
    Ok(())
}

/// Handles `basic.cancel`.
pub(crate) fn cancel(context: &mut Context<'_>, cancel: Cancel) {
    let channel = context.channel_mut();
    let tag = cancel.consumer_tag.as_str().as_bytes();
    if channel.direct_replies.as_deref() == Some(tag) {
        channel.direct_replies = None;
    }
    let removed = channel.consumer_slot(tag).and_then(|slot| Some((slot, channel.remove_consumer(slot)?)));
    if !cancel.nowait {
        let ok = AMQPMethod::CancelOk(CancelOk { consumer_tag: cancel.consumer_tag });
        context.send(&AMQPClass::Basic(ok));
    }
    if let Some((slot, consumer)) = removed {
        let Context { id, number, now, vhost, sessions, .. } = context;
        vhost.remove_consumer(consumer.queue, (*id, *number, slot), *now, sessions);
        // With a single active consumer, the next in line takes over.
        context.deliver_all(vec![consumer.queue], Regained::Nobody);
    }
}

/// Handles `basic.cancel-ok`: the client agrees that its consumer has timed out. Before, it was only sent nothing.
pub(crate) fn cancelled(context: &mut Context<'_>, consumer_tag: ShortString) -> Result<(), Fault> {
    // As in RabbitMQ 4.3, whatever the reason for the cancel was.
    context.channel().consumer_slot(consumer_tag.as_str().as_bytes()).ok_or_else(Fault::internal_error)?;
    cancel(context, Cancel { consumer_tag, nowait: true });
    Ok(())
}

/// Makes the channel receive the direct replies to its messages.
fn consume_direct_replies(channel: &mut Channel, consume: &Consume, tag: &str) -> Result<(), Fault> {
    if !consume.no_ack {
        return Err(Fault::precondition("reply consumer cannot acknowledge"));
    }
    if channel.direct_replies.is_some() {
        return Err(Fault::precondition("reply consumer already set"));
    }
    channel.direct_replies = Some(Bytes::copy_from_slice(tag.as_bytes()));
    Ok(())
}

fn send_consume_ok(context: &mut Context<'_>, consume: &Consume, tag: &str) {
    if !consume.nowait {
        let ok = AMQPMethod::ConsumeOk(ConsumeOk { consumer_tag: short(tag) });
        context.send(&AMQPClass::Basic(ok));
    }
}

/// Refuses a consumer tag that is taken, and one consumer too many on the channel.
fn check_channel(context: &Context<'_>, tag: &str) -> Result<(), Fault> {
    let channel = context.channel();
    if channel.consumer_slot(tag.as_bytes()).is_some() {
        return Err(Fault::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
    }
    let consumers_max = context.globals.rules.limits.consumers_per_channel_max;
    if channel.consumer_count() >= consumers_max {
        return Err(Fault::too_many_consumers(consumers_max));
    }
    Ok(())
}

/// How a consumer reads from its queue.
struct Terms {
    priority: i64,
    exclusive: bool,
    /// Its own `x-consumer-timeout`.
    timeout: Option<Duration>,
}

/// Refuses a consumer that its queue cannot serve.
fn check_queue(
    queue: &Queue,
    channel: &Channel,
    consume: &Consume,
    vhost: &str,
    facts: &QueueFacts,
) -> Result<Terms, Fault> {
    // RabbitMQ's quorum queues and streams ignore the flag.
    let exclusive = consume.exclusive && !queue.arguments.is_quorum && queue.stream.is_none();
    let is_taken = queue.consumers.has_exclusive();
    // RabbitMQ regards an exclusive consumer and a single active one as a contradiction.
    let is_shared = !queue.consumers.is_empty() || queue.arguments.single_active_consumer;
    if is_taken || (exclusive && is_shared) {
        return Err(Fault::exclusive_use(&queue.name, vhost));
    }
    let priority = priority(consume, queue, vhost, facts)?;
    let timeout = timeout(consume, queue, vhost, facts)?;
    if queue.arguments.is_quorum && channel.global_prefetch_count != 0 {
        return Err(Fault::no_global_qos(&queue.name, vhost));
    }
    match &queue.stream {
        Some(_) if channel.prefetch_count == 0 => {
            Err(Fault::no_prefetch(facts.streams.no_prefetch, &queue.name, vhost))
        }
        Some(_) if consume.no_ack => {
            Err(Fault::no_stream_method("automatic acknowledgement", facts.streams.noun, &queue.name, vhost))
        }
        _ => Ok(Terms { priority, exclusive, timeout }),
    }
}

/// A consumer's priority, 0 by default.
fn priority(consume: &Consume, queue: &Queue, vhost: &str, facts: &QueueFacts) -> Result<i64, Fault> {
    if facts.has_consumer_timeout && consume.arguments.contains_key(CONSUMER_TIMEOUT) && !queue.arguments.is_quorum {
        return Err(Fault::argument_of_other_type(CONSUMER_TIMEOUT, &queue.name, vhost, queue.arguments.module()));
    }
    if consume.arguments.contains_key(STREAM_OFFSET) && queue.stream.is_none() {
        return Err(Fault::argument_of_other_type(STREAM_OFFSET, &queue.name, vhost, queue.arguments.module()));
    }
    match consume.arguments.inner().get("x-priority") {
        None => Ok(0),
        Some(value) => integer_of(value).ok_or_else(|| {
            let why = format!("\"expected integer, got {}\"", type_name(value));
            Fault::invalid_argument("x-priority", &queue.name, vhost, &why)
        }),
    }
}

/// A consumer's own limit of the time until it acknowledges a message.
fn timeout(consume: &Consume, queue: &Queue, vhost: &str, facts: &QueueFacts) -> Result<Option<Duration>, Fault> {
    let Some(value) = consume.arguments.inner().get(CONSUMER_TIMEOUT).filter(|_| facts.has_consumer_timeout) else {
        return Ok(None);
    };
    let why = match integer_of(value).map(u64::try_from) {
        Some(Ok(milliseconds)) => return Ok(Some(Duration::from_millis(milliseconds))),
        Some(Err(_)) => format!("{{value_negative,{}}}", shown(value)),
        None => format!("\"expected integer, got {}\"", type_name(value)),
    };
    Err(Fault::invalid_argument(CONSUMER_TIMEOUT, &queue.name, vhost, &why))
}

/// The offset that a consumer of a stream starts at; 0 in another queue.
fn offset(queue: &Queue, consume: &Consume, vhost: &str, facts: &StreamFacts, now: Now) -> Result<u64, Fault> {
    let Some(stream) = &queue.stream else { return Ok(0) };
    let argument = consume.arguments.inner().get(STREAM_OFFSET);
    match (Start::read(argument, now), argument) {
        (Some(start), _) => Ok(stream.offset_of(start)),
        (None, Some(argument)) if !facts.has_internal_errors => {
            let (kind, value) = (type_name(argument), erlang_shown(argument));
            let why = format!("{{invalid_stream_offset_arg,{{{kind},{value}}}}}");
            Err(Fault::invalid_argument(STREAM_OFFSET, &queue.name, vhost, &why))
        }
        (None, _) => Err(Fault::internal_error()),
    }
}

/// A value as Erlang prints it: bytes with quotes, others plain.
fn erlang_shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => format!("<<\"{}\">>", shown(value)),
        value => shown(value),
    }
}

const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";
/// Where a consumer of a stream starts.
const STREAM_OFFSET: &str = "x-stream-offset";

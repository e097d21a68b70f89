//! The basic class, but for publishing; and confirm.select.

use amq_protocol::{
    protocol::{
        AMQPClass,
        basic::{AMQPMethod, Cancel, CancelOk, Consume, ConsumeOk, Get, GetEmpty, Qos, QosOk, RecoverOk},
        confirm,
    },
    types::FieldTable,
};
use bytes::Bytes;

use super::{
    ConnectionId, Core, Fault, Now,
    access::{Resource, Right},
    channel::{ChannelConsumer, Delivered, Mode, Settle},
    publish::DIRECT_REPLY_TO,
    queue::{Consumer, Queue},
    queue_arguments::{integer_of, type_name},
    queue_methods::accessible,
    session::{Extra, Got, short},
    stream::Start,
};

impl Core {
    pub(super) fn basic_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: AMQPMethod,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Fault> {
        match method {
            AMQPMethod::Qos(qos) => self.qos(id, number, &qos, payload, now),
            AMQPMethod::Consume(consume) => self.consume(id, number, &consume, now),
            AMQPMethod::Cancel(cancel) => self.cancel(id, number, cancel, now),
            AMQPMethod::Get(get) => self.get(id, number, &get, now),
            AMQPMethod::Nack(nack) => {
                let settle = if nack.requeue { Settle::Requeue } else { Settle::Reject };
                self.settle(id, number, nack.delivery_tag, nack.multiple, settle, now)
            }
            AMQPMethod::Reject(reject) => {
                let settle = if reject.requeue { Settle::Requeue } else { Settle::Reject };
                self.settle(id, number, reject.delivery_tag, false, settle, now)
            }
            AMQPMethod::Recover(recover) => {
                let freed = self.recover(id, number, recover.requeue, now)?;
                let ok = AMQPMethod::RecoverOk(RecoverOk {});
                self.sessions.send(id, number, &AMQPClass::Basic(ok));
                self.deliver_all(id, freed, now);
                Ok(())
            }
            AMQPMethod::RecoverAsync(recover) => {
                let freed = self.recover(id, number, recover.requeue, now)?;
                self.deliver_all(id, freed, now);
                Ok(())
            }
            _ => Err(Fault::unimplemented_method()),
        }
    }

    pub(super) fn confirm_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &confirm::AMQPMethod,
    ) -> Result<(), Fault> {
        let confirm::AMQPMethod::Select(select) = method else {
            return Err(Fault::unimplemented_method());
        };
        let channel = self.channel_mut(id, number)?;
        match channel.mode {
            Mode::Transaction(_) => return Err(Fault::precondition("cannot switch from tx to confirm mode")),
            Mode::Plain | Mode::Confirm => channel.mode = Mode::Confirm,
        }
        if !select.nowait {
            let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            self.sessions.send(id, number, &AMQPClass::Confirm(ok));
        }
        Ok(())
    }

    fn qos(&mut self, id: ConnectionId, number: u16, qos: &Qos, payload: &[u8], now: Now) -> Result<(), Fault> {
        // The library drops prefetch_size: ids (4), then it (4).
        let size = payload.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_be_bytes(*size));
        if size != 0 {
            return Err(Fault::not_implemented(format!("prefetch_size!=0 ({size})")));
        }
        let channel = self.channel_mut(id, number)?;
        if qos.global {
            channel.global_prefetch_count = qos.prefetch_count;
        } else {
            channel.prefetch_count = qos.prefetch_count;
        }
        // A wider window of the channel takes effect at once.
        let keys = if qos.global { channel.consumed_queues() } else { Vec::new() };
        self.sessions.send(id, number, &AMQPClass::Basic(AMQPMethod::QosOk(QosOk {})));
        self.deliver_all(id, keys, now);
        Ok(())
    }

    fn consume(&mut self, id: ConnectionId, number: u16, consume: &Consume, now: Now) -> Result<(), Fault> {
        let tag = match consume.consumer_tag.as_str() {
            "" => self.generated_name("amq.ctag-"),
            tag => tag.to_owned(),
        };
        if consume.queue.as_str() == DIRECT_REPLY_TO {
            self.consume_direct_replies(id, number, consume, &tag)?;
            self.send_consume_ok(id, number, consume, &tag);
            return Ok(());
        }
        let name = self.queue_name(id, number, consume.queue.as_str())?;
        if self.channel_mut(id, number)?.consumer_slot(tag.as_bytes()).is_some() {
            return Err(Fault::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        let consumers_max = self.rules.limits.consumers_per_channel_max;
        if self.channel_mut(id, number)?.consumers().count() >= consumers_max {
            return Err(Fault::too_many_consumers(consumers_max));
        }
        self.authorize(id, Right::Read, Resource::Queue(&name))?;
        let (vhost, sessions) = self.vhost(id)?;
        let key = accessible(vhost, &name, id)?;
        let Some(queue) = vhost.queues.get_mut(&key) else {
            return Err(Fault::no_queue(&name, &vhost.name));
        };
        // RabbitMQ's quorum queues and streams know no exclusive consumers.
        let is_exclusive = consume.exclusive && !queue.arguments.is_quorum && queue.stream.is_none();
        let is_taken = queue.consumers().iter().any(|consumer| consumer.exclusive);
        // RabbitMQ takes exclusive consumers and a single active one for a contradiction.
        let is_refused = !queue.consumers().is_empty() || queue.arguments.single_active_consumer;
        if is_taken || (is_exclusive && is_refused) {
            return Err(Fault::exclusive_use(&name, &vhost.name));
        }
        let priority = consumer_arguments(&consume.arguments, queue, &vhost.name)?;
        let Some(channel) = sessions.channel_mut(id, number) else { return Ok(()) };
        if queue.arguments.is_quorum && channel.global_prefetch_count != 0 {
            return Err(Fault::no_global_qos(&name, &vhost.name));
        }
        let offset = match &queue.stream {
            None => 0,
            Some(_) if channel.prefetch_count == 0 => return Err(Fault::no_prefetch(&name, &vhost.name)),
            Some(_) if consume.no_ack => {
                return Err(Fault::no_stream_method("automatic acknowledgement", &name, &vhost.name));
            }
            Some(stream) => {
                let start = Start::read(consume.arguments.inner().get(STREAM_OFFSET), now);
                let no_offset = || Fault::invalid_argument(STREAM_OFFSET, &name, &vhost.name, "invalid_offset");
                stream.offset_of(start.ok_or_else(no_offset)?)
            }
        };
        let tag_bytes = Bytes::copy_from_slice(tag.as_bytes());
        let prefetch_count = channel.prefetch_count;
        let slot = channel.add_consumer(ChannelConsumer::new(tag_bytes.clone(), key, consume.no_ack, prefetch_count));
        queue.add_consumer(Consumer {
            connection: id,
            channel: number,
            tag: tag_bytes,
            slot,
            priority,
            exclusive: is_exclusive,
            offset,
            is_blocked: false,
        });
        queue.last_used = now.instant;
        self.send_consume_ok(id, number, consume, &tag);
        self.deliver_all(id, vec![key], now);
        Ok(())
    }

    fn consume_direct_replies(
        &mut self,
        id: ConnectionId,
        number: u16,
        consume: &Consume,
        tag: &str,
    ) -> Result<(), Fault> {
        if !consume.no_ack {
            return Err(Fault::precondition("reply consumer cannot acknowledge"));
        }
        let channel = self.channel_mut(id, number)?;
        if channel.direct_replies.is_some() {
            return Err(Fault::precondition("reply consumer already set"));
        }
        channel.direct_replies = Some(Bytes::copy_from_slice(tag.as_bytes()));
        Ok(())
    }

    fn send_consume_ok(&mut self, id: ConnectionId, number: u16, consume: &Consume, tag: &str) {
        if !consume.nowait {
            let ok = AMQPMethod::ConsumeOk(ConsumeOk { consumer_tag: short(tag) });
            self.sessions.send(id, number, &AMQPClass::Basic(ok));
        }
    }

    fn cancel(&mut self, id: ConnectionId, number: u16, cancel: Cancel, now: Now) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        let tag = cancel.consumer_tag.as_str().as_bytes();
        if channel.direct_replies.as_deref() == Some(tag) {
            channel.direct_replies = None;
        }
        let removed = channel.consumer_slot(tag).and_then(|slot| channel.remove_consumer(slot));
        if !cancel.nowait {
            let ok = AMQPMethod::CancelOk(CancelOk { consumer_tag: cancel.consumer_tag });
            self.sessions.send(id, number, &AMQPClass::Basic(ok));
        }
        if let Some(consumer) = removed {
            let (vhost, sessions) = self.vhost(id)?;
            vhost.remove_consumer(consumer.queue, (id, number, &consumer.tag), now, sessions);
            // With a single active consumer, the next in line takes over.
            self.deliver_all(id, vec![consumer.queue], now);
        }
        Ok(())
    }

    fn get(&mut self, id: ConnectionId, number: u16, get: &Get, now: Now) -> Result<(), Fault> {
        let name = self.queue_name(id, number, get.queue.as_str())?;
        self.authorize(id, Right::Read, Resource::Queue(&name))?;
        let (vhost, sessions) = self.vhost(id)?;
        let key = accessible(vhost, &name, id)?;
        if let Some(queue) = vhost.queues.get(&key) {
            if queue.stream.is_some() {
                return Err(Fault::no_stream_method("basic.get", &name, &vhost.name));
            }
            if queue.arguments.is_quorum && queue.arguments.single_active_consumer {
                return Err(Fault::no_get_beside_single_active(&name, &vhost.name));
            }
        }
        vhost.drop_expired(key, now);
        let entry = vhost.queues.get_mut(&key).and_then(|queue| {
            queue.last_used = now.instant;
            queue.pop()
        });
        let Some(entry) = entry else {
            vhost.set_timer(key);
            vhost.route_dead(now, sessions);
            sessions.send(id, number, &AMQPClass::Basic(AMQPMethod::GetEmpty(GetEmpty {})));
            return Ok(());
        };
        // What comes to the head now may be due, and is not counted any more.
        vhost.drop_expired(key, now);
        let Some(queue) = vhost.queues.get_mut(&key) else { return Ok(()) };
        let Some(channel) = sessions.channel_mut(id, number) else { return Ok(()) };
        let kept = entry.clone();
        let delivery_tag = if get.no_ack {
            channel.tag_settled()
        } else {
            queue.unacked += 1;
            channel.tag_unacked(Delivered { queue: key, entry, slot: None, delivery_tag: 0 })
        };
        let message_count = u32::try_from(queue.ready_count()).unwrap_or(u32::MAX);
        let extra = if queue.arguments.is_quorum { Extra::DeliveryCount } else { Extra::Nothing };
        sessions.send_got(id, number, &Got { entry: &kept, delivery_tag, message_count, extra });
        vhost.set_timer(key);
        vhost.route_dead(now, sessions);
        Ok(())
    }
}

/// Where a consumer of a stream begins.
const STREAM_OFFSET: &str = "x-stream-offset";

/// Checks a consumer's arguments; its priority, 0 by default.
fn consumer_arguments(arguments: &FieldTable, queue: &Queue, vhost: &str) -> Result<i64, Fault> {
    if arguments.contains_key(STREAM_OFFSET) && queue.stream.is_none() {
        return Err(Fault::argument_of_other_type(STREAM_OFFSET, &queue.name, vhost, queue.arguments.module()));
    }
    match arguments.inner().get("x-priority") {
        None => Ok(0),
        Some(value) => integer_of(value).ok_or_else(|| {
            let why = format!("\"expected integer, got {}\"", type_name(value));
            Fault::invalid_argument("x-priority", &queue.name, vhost, &why)
        }),
    }
}

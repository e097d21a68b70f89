//! The basic class, but for publishing; and confirm.select.

use amq_protocol::{
    protocol::{
        AMQPClass,
        basic::{AMQPMethod, Cancel, CancelOk, Consume, ConsumeOk, Get, GetEmpty, GetOk, Qos, QosOk, RecoverOk},
        confirm,
    },
    types::FieldTable,
};
use bytes::Bytes;

use super::{
    ConnectionId, Core, Fault, Now,
    channel::{ChannelConsumer, Confirm, Delivered, Mode, Settle},
    publish::DIRECT_REPLY_TO,
    queue::Consumer,
    queue_arguments::{integer_of, type_name},
    queue_methods::accessible,
    session::name_of,
    vhost::Death,
};

impl Core {
    pub(super) fn basic_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: AMQPMethod,
        payload: &Bytes,
        now: Now,
    ) -> Result<(), Fault> {
        match method {
            AMQPMethod::Qos(qos) => self.qos(id, number, &qos, payload, now),
            AMQPMethod::Consume(consume) => self.consume(id, number, &consume, now),
            AMQPMethod::Cancel(cancel) => self.cancel(id, number, cancel, now),
            // Ours are sent with nowait: nobody has to answer.
            AMQPMethod::CancelOk(_) => Err(Fault::unimplemented()),
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
                let ok = AMQPMethod::RecoverOk(RecoverOk {});
                self.recover(id, number, recover.requeue, Some(ok), now)
            }
            AMQPMethod::RecoverAsync(recover) => self.recover(id, number, recover.requeue, None, now),
            _ => Err(Fault::unimplemented()),
        }
    }

    pub(super) fn confirm_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: confirm::AMQPMethod,
    ) -> Result<(), Fault> {
        let confirm::AMQPMethod::Select(select) = method else {
            return Err(Fault::unimplemented());
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

    fn qos(&mut self, id: ConnectionId, number: u16, qos: &Qos, payload: &Bytes, now: Now) -> Result<(), Fault> {
        // The library drops prefetch_size: ids (4), then it (4).
        let size = payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        if size != 0 {
            return Err(Fault::not_implemented(format!("prefetch_size!=0 ({size})")));
        }
        let channel = self.channel_mut(id, number)?;
        let mut queues = Vec::new();
        if qos.global {
            channel.global_prefetch_count = qos.prefetch_count;
            // Those it held back may get more now.
            queues.extend(channel.consumers.iter().flatten().map(|consumer| consumer.queue));
            queues.sort_unstable();
            queues.dedup();
        } else {
            channel.prefetch_count = qos.prefetch_count;
        }
        self.sessions.send(id, number, &AMQPClass::Basic(AMQPMethod::QosOk(QosOk {})));
        self.deliver_all(id, queues, now);
        Ok(())
    }

    fn consume(&mut self, id: ConnectionId, number: u16, consume: &Consume, now: Now) -> Result<(), Fault> {
        let tag = match consume.consumer_tag.as_str() {
            "" => self.generated_name("amq.ctag-"),
            tag => tag.to_owned(),
        };
        if consume.queue.as_str() == DIRECT_REPLY_TO {
            self.consume_direct_replies(id, number, consume, &tag)?;
            self.send_consume_ok(id, number, consume, tag);
            return Ok(());
        }
        let name = self.queue_name(id, number, consume.queue.as_str())?;
        let tag = Bytes::from(tag);
        if self.channel_mut(id, number)?.consumer_slot(&tag).is_some() {
            return Err(Fault::not_allowed(format!("attempt to reuse consumer tag '{}'", name_of(&tag))));
        }
        let (vhost, sessions) = self.vhost(id)?;
        let key = accessible(vhost, &name, id)?;
        let Some(queue) = vhost.queues.get_mut(&key) else {
            return Err(Fault::no_queue(&name, &vhost.name));
        };
        let is_taken = queue.consumers.iter().any(|consumer| consumer.exclusive);
        let may_be_exclusive = queue.consumers.is_empty() && !queue.arguments.single_active_consumer;
        if is_taken || (consume.exclusive && !may_be_exclusive) {
            return Err(Fault::exclusive_use(&name, &vhost.name));
        }
        let priority = priority_of(&consume.arguments, &name, &vhost.name)?;
        let Some(channel) = sessions.channel_mut(id, number) else { return Ok(()) };
        let prefetch_count = channel.prefetch_count;
        let slot = channel.add_consumer(ChannelConsumer::new(tag.clone(), key, consume.no_ack, prefetch_count));
        let exclusive = consume.exclusive;
        queue.add_consumer(Consumer { connection: id, channel: number, tag: tag.clone(), slot, priority, exclusive });
        queue.last_used = now.instant;
        self.send_consume_ok(id, number, consume, name_of(&tag).to_owned());
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

    fn send_consume_ok(&mut self, id: ConnectionId, number: u16, consume: &Consume, tag: String) {
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
            self.remove_from_queue(id, number, &consumer.tag, consumer.queue, now);
            // With a single active consumer, the next in line takes over.
            self.deliver_all(id, vec![consumer.queue], now);
        }
        Ok(())
    }

    fn get(&mut self, id: ConnectionId, number: u16, get: &Get, now: Now) -> Result<(), Fault> {
        let name = self.queue_name(id, number, get.queue.as_str())?;
        let (vhost, sessions) = self.vhost(id)?;
        let key = accessible(vhost, &name, id)?;
        while let Some(entry) = vhost.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
            vhost.bury(key, &entry, Death::Expired, now);
        }
        let entry = vhost.queues.get_mut(&key).and_then(|queue| {
            queue.last_used = now.instant;
            queue.pop()
        });
        let Some(entry) = entry else {
            vhost.route_dead(now, sessions);
            sessions.send(id, number, &AMQPClass::Basic(AMQPMethod::GetEmpty(GetEmpty {})));
            return Ok(());
        };
        let Some(channel) = sessions.channel_mut(id, number) else { return Ok(()) };
        let message = std::sync::Arc::clone(&entry.message);
        let redelivered = entry.redelivered;
        let delivery_tag = if get.no_ack {
            channel.tag_settled()
        } else {
            if let Some(queue) = vhost.queues.get_mut(&key) {
                queue.unacked += 1;
            }
            channel.tag_unacked(Delivered { queue: key, entry, slot: None, delivery_tag: 0 })
        };
        // Another one may have come to the head that should not be there.
        while let Some(entry) = vhost.queues.get_mut(&key).and_then(|queue| queue.pop_expired(now.instant)) {
            vhost.bury(key, &entry, Death::Expired, now);
        }
        let left = vhost.queues.get(&key).map_or(0, super::queue::Queue::ready_count);
        let ok = AMQPMethod::GetOk(GetOk {
            delivery_tag,
            redelivered,
            exchange: name_of(&message.exchange).into(),
            routing_key: name_of(&message.routing_key).into(),
            message_count: u32::try_from(left).unwrap_or(u32::MAX),
        });
        sessions.send_content(id, number, &AMQPClass::Basic(ok), &message);
        vhost.set_timer(key);
        vhost.route_dead(now, sessions);
        Ok(())
    }

    /// Acknowledges, requeues or rejects.
    pub(super) fn settle(
        &mut self,
        id: ConnectionId,
        number: u16,
        delivery_tag: u64,
        multiple: bool,
        settle: Settle,
        now: Now,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        if let Mode::Transaction(_) = channel.mode {
            let delivered =
                channel.settle(delivery_tag, multiple).ok_or_else(|| Fault::unknown_delivery_tag(delivery_tag))?;
            if let Mode::Transaction(transaction) = &mut channel.mode {
                transaction.settlements.extend(delivered.into_iter().map(|delivered| (delivered, settle)));
            }
            return Ok(());
        }
        if !multiple {
            let delivered =
                channel.settle_one(delivery_tag).ok_or_else(|| Fault::unknown_delivery_tag(delivery_tag))?;
            self.apply(id, number, std::iter::once((delivered, settle)), now);
            return Ok(());
        }
        let delivered = channel.settle(delivery_tag, true).ok_or_else(|| Fault::unknown_delivery_tag(delivery_tag))?;
        self.apply(id, number, delivered.into_iter().map(|delivered| (delivered, settle)), now);
        Ok(())
    }

    /// Does to the queues what was decided on deliveries, and delivers what that made room for.
    pub(super) fn apply(
        &mut self,
        id: ConnectionId,
        number: u16,
        settlements: impl Iterator<Item = (Delivered, Settle)>,
        now: Now,
    ) {
        let name = self.sessions.vhost_of(id);
        let Some(vhost) = self.vhosts.get_mut(&name) else { return };
        let mut last = None;
        let mut more = Vec::new();
        for (Delivered { queue: key, entry, .. }, settle) in settlements {
            match settle {
                Settle::Requeue => vhost.requeue(key, entry),
                Settle::Ack | Settle::Reject => {
                    if let Some(queue) = vhost.queues.get_mut(&key) {
                        queue.unacked = queue.unacked.saturating_sub(1);
                    }
                    if settle == Settle::Reject {
                        vhost.bury(key, &entry, Death::Rejected, now);
                    }
                }
            }
            // Mostly one queue: a list only when there are more.
            if let Some(last) = last.replace(key).filter(|last| *last != key) {
                more.push(last);
            }
        }
        // A freed window shared by the channel may serve any of its consumers.
        if let Some(channel) = self.sessions.channel_mut(id, number)
            && channel.global_prefetch_count != 0
        {
            more.extend(channel.consumers.iter().flatten().map(|consumer| consumer.queue));
            more.sort_unstable();
            more.dedup();
        }
        for key in more.into_iter().chain(last) {
            vhost.deliver(key, now, &mut self.sessions);
            // What was requeued may be too much.
            vhost.drop_over_full(key, now);
        }
        vhost.route_dead(now, &mut self.sessions);
    }

    fn recover(
        &mut self,
        id: ConnectionId,
        number: u16,
        requeue: bool,
        ok: Option<AMQPMethod>,
        now: Now,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::not_implemented("requeue=false"));
        }
        // The reply comes before what it causes.
        if let Some(ok) = ok {
            self.sessions.send(id, number, &AMQPClass::Basic(ok));
        }
        let delivered = self.channel_mut(id, number)?.settle_all();
        self.apply(id, number, delivered.into_iter().map(|delivered| (delivered, Settle::Requeue)), now);
        Ok(())
    }

    pub(super) fn send_confirm(&mut self, id: ConnectionId, number: u16, confirm: Confirm) {
        let Confirm { delivery_tag, multiple, is_ack } = confirm;
        if is_ack {
            if let Some(out) = self.sessions.out(id) {
                out.confirm(number, delivery_tag, multiple);
            }
            return;
        }
        // RabbitMQ sets `requeue` in the nacks it sends; it means nothing to a publisher.
        let nack = amq_protocol::protocol::basic::Nack { delivery_tag, multiple, requeue: true };
        self.sessions.send(id, number, &AMQPClass::Basic(AMQPMethod::Nack(nack)));
    }
}

/// `x-priority`, 0 by default.
fn priority_of(arguments: &FieldTable, queue: &str, vhost: &str) -> Result<i64, Fault> {
    let Some(value) = arguments.inner().get("x-priority") else {
        return Ok(0);
    };
    integer_of(value).ok_or_else(|| {
        let why = format!("\"expected integer, got {}\"", type_name(value));
        Fault::invalid_argument("x-priority", queue, vhost, &why)
    })
}

fn short(text: String) -> amq_protocol::types::ShortString {
    // Tags come from short strings or are generated: they fit.
    amq_protocol::types::ShortString::try_new(text).unwrap_or_default()
}

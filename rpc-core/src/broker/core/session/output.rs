//! The output of sessions: methods, deliveries, returns and confirms.

use std::{borrow::Cow, sync::Arc};

use amq_protocol::protocol::{AMQPClass, basic};

use crate::{
    broker::core::{
        interface::{ConnectionId, Now},
        names::{short, text_of},
        profile::StreamFacts,
        session::{Stage, confirms::Confirm, reply_address::ReplyAddress, sessions::Sessions, unacked::Delivered},
        vhost::{
            arguments::QueueArguments,
            consumers::Consumer,
            message::{Entry, Message},
        },
    },
    routing::QueueId,
    wire::{
        Delivery, OutBuffer, PropertyReader, PropertyWriter, ReplyCode,
        table::{self, TableWriter},
    },
};

/// The message that answers a `basic.get`.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) entry: Entry,
    pub(crate) delivery_tag: u64,
    pub(crate) message_count: u32,
    pub(crate) extra: Extra,
}

/// A header that the broker adds to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// `x-delivery-count`, from a quorum queue: how often the message was delivered before.
    DeliveryCount,
    /// `x-acquired-count`, the same in RabbitMQ 4.3, and `x-delivery-count`: how often that failed.
    Counts,
    /// `x-stream-offset`: the message's place in its stream.
    StreamOffset,
}

impl Extra {
    /// The header of a delivery to a consumer. RabbitMQ omits it on the first one.
    pub(crate) fn of_delivery(arguments: &QueueArguments, entry: &Entry) -> Self {
        match arguments.is_quorum && entry.is_redelivered() {
            false => Self::Nothing,
            true if arguments.counts_failures_apart => Self::Counts,
            true => Self::DeliveryCount,
        }
    }

    /// The header of a message that answers a `basic.get`. RabbitMQ 3.10 omits it on none.
    pub(crate) fn of_got(arguments: &QueueArguments, entry: &Entry) -> Self {
        let is_counted = arguments.is_quorum && !arguments.counts_failures_apart;
        if is_counted { Self::DeliveryCount } else { Self::of_delivery(arguments, entry) }
    }
}

impl Sessions {
    /// The output of a connection.
    pub(crate) fn out(&mut self, id: ConnectionId) -> Option<&mut OutBuffer> {
        Some(&mut self.touch(id)?.out)
    }

    /// Sends a method.
    pub(crate) fn send(&mut self, id: ConnectionId, channel: u16, class: &AMQPClass) {
        if let Some(out) = self.out(id) {
            out.method(channel, class);
        }
    }

    /// Sends `basic.get-ok` and its message.
    pub(crate) fn send_got(&mut self, id: ConnectionId, channel: u16, got: &Got) {
        let facts = &self.facts.queues.streams;
        if let Some(session) = self.touch(id) {
            let message = &*got.entry.message;
            let delivery = delivery(message, got.delivery_tag, got.entry.is_redelivered());
            let properties = properties_of(&got.entry, got.extra, facts);
            let content = message.content(&properties);
            session.out.get_ok(channel, got.message_count, &delivery, &content, session.frame_max);
        }
    }

    /// Sends `basic.return`, behind the confirms of earlier publishes.
    pub(crate) fn send_return(&mut self, id: ConnectionId, channel: u16, message: &Message, now: Now) {
        self.send_confirms(id, channel, now);
        if let Some(session) = self.touch(id) {
            let names = (message.exchange(), message.routing_key());
            let content = message.content(message.properties());
            session.out.returned(channel, ReplyCode::NoRoute, names, &content, session.frame_max);
        }
    }

    /// Whether a consumer may be sent another delivery.
    #[inline]
    pub(crate) fn has_credit(&self, consumer: &Consumer) -> bool {
        let Some(session) = self.get(consumer.connection) else {
            return false;
        };
        session.stage == Stage::Open
            // A client that does not read gets no more deliveries.
            && session.backlog_bytes() < self.outbox_max_bytes
            && session
                .channels
                .get(consumer.channel)
                .is_some_and(|channel| !channel.is_closing && channel.has_credit(consumer.slot))
    }

    /// Sends an entry to a consumer. Returns whether it is unacknowledged now.
    pub(crate) fn deliver(
        &mut self,
        consumer: &Consumer,
        queue: QueueId,
        entry: Entry,
        extra: Extra,
        now: Now,
    ) -> bool {
        let facts = &self.facts.queues.streams;
        let Some(session) = self.touch(consumer.connection) else {
            return false;
        };
        let Some(channel) = session.channels.get_mut(consumer.channel) else {
            return false;
        };
        let known = channel.consumer(consumer.slot);
        let no_ack = known.is_some_and(|consumer| consumer.no_ack);
        let due = known.and_then(|consumer| now.instant.checked_add(consumer.timeout?));
        let message = Arc::clone(&entry.message);
        let redelivered = entry.is_redelivered();
        let own = (extra != Extra::Nothing).then(|| properties_of(&entry, extra, facts).into_owned());
        let delivery_tag = if no_ack {
            channel.tag_settled()
        } else {
            channel.tag_unacked(Delivered { queue, entry: Some(entry), slot: Some(consumer.slot), delivery_tag: 0 })
        };
        let delivery = delivery(&message, delivery_tag, redelivered);
        let properties = own.as_deref().unwrap_or_else(|| message.properties());
        let content = message.content(properties);
        session.out.deliver(consumer.channel, &consumer.tag, &delivery, &content, session.frame_max);
        if let Some(due) = due {
            self.set_due((consumer.connection, consumer.channel), due, delivery_tag);
        }
        !no_ack
    }

    /// Sends a direct reply to the consumer of `amq.rabbitmq.reply-to` on a channel. Returns false if that consumer is
    /// cancelled, or does not read its deliveries.
    pub(crate) fn deliver_reply(&mut self, to: &ReplyAddress, message: &Message) -> bool {
        let counts = self.facts.counts_direct_replies;
        let backlog_max_bytes = self.outbox_max_bytes.saturating_mul(REPLY_OUTBOXES_MAX);
        let Some(session) = self.get_mut(to.connection).filter(|session| session.nonce == to.nonce) else {
            return false;
        };
        let has_room = session.backlog_bytes() < backlog_max_bytes;
        let Some(channel) = session.channels.get_mut(to.channel) else {
            return false;
        };
        let Some(tag) = channel.direct_replies.clone().filter(|_| has_room) else {
            return false;
        };
        // RabbitMQ 3.10 does not count direct replies: their tag is given out again.
        let delivery_tag = if counts { channel.tag_settled() } else { channel.next_tag() };
        let frame_max = session.frame_max;
        if let Some(out) = self.out(to.connection) {
            let delivery = delivery(message, delivery_tag, false);
            out.deliver(to.channel, &tag, &delivery, &message.content(message.properties()), frame_max);
        }
        true
    }

    /// Whether a channel has a consumer of direct replies.
    pub(crate) fn has_reply_consumer(&self, to: &ReplyAddress) -> bool {
        self.get(to.connection).filter(|session| session.nonce == to.nonce).is_some_and(|session| {
            session.channels.get(to.channel).is_some_and(|channel| channel.direct_replies.is_some())
        })
    }

    /// Cancels a consumer of a queue that was deleted, unless its channel has gone since.
    pub(crate) fn cancel(&mut self, queue: QueueId, consumer: &Consumer) {
        self.work += 1;
        let channel = self.channel_mut(consumer.connection, consumer.channel);
        // Another connection may have the number of one that has ended.
        if let Some(channel) = channel
            && channel.consumer(consumer.slot).is_some_and(|known| known.queue == queue)
        {
            channel.remove_consumer(consumer.slot);
            self.cancel_notify(consumer);
        }
    }

    /// Sends `basic.cancel` for a consumer that the broker cancelled, if the client supports it.
    pub(crate) fn cancel_notify(&mut self, consumer: &Consumer) {
        let wants = self.get(consumer.connection).is_some_and(|session| session.capabilities.consumer_cancel_notify);
        if wants {
            self.send_cancel((consumer.connection, consumer.channel), &consumer.tag);
        }
    }

    /// Sends `basic.cancel`.
    pub(crate) fn send_cancel(&mut self, (id, channel): (ConnectionId, u16), tag: &[u8]) {
        let cancel = basic::Cancel { consumer_tag: short(&text_of(tag)), nowait: true };
        self.send(id, channel, &AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
    }

    /// Confirms a publish on a channel in confirm mode: at the end of the batch, merged with its neighbours.
    pub(crate) fn confirm(&mut self, id: ConnectionId, number: u16, is_ack: bool, now: Now) {
        let ended = self.get_mut(id).and_then(|session| session.note_confirm(number, is_ack));
        for confirm in ended.into_iter().flatten() {
            self.send_confirm(id, number, confirm, now);
        }
    }

    /// Sends the merged confirms of all channels of a connection.
    pub(crate) fn flush_confirms(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.get_mut(id).filter(|session| !session.confirming.is_empty()) else { return };
        for number in std::mem::take(&mut session.confirming) {
            self.send_confirms(id, number, now);
        }
    }

    fn send_confirms(&mut self, id: ConnectionId, number: u16, now: Now) {
        let due = self.channel_mut(id, number).map(|channel| channel.confirms.flush());
        for confirm in due.into_iter().flatten() {
            self.send_confirm(id, number, confirm, now);
        }
    }

    fn send_confirm(&mut self, id: ConnectionId, number: u16, confirm: Confirm, now: Now) {
        if let Some(injected) = self.injected.as_deref_mut()
            && injected.hold(id, number, confirm, now)
        {
            return;
        }
        self.write_confirm(id, number, confirm);
    }

    /// Sends the confirms that an injected fault has held back long enough.
    pub(crate) fn send_held_confirms(&mut self, now: Now) {
        while let Some(held) = self.injected.as_deref_mut().and_then(|injected| injected.pop_due(now)) {
            self.write_confirm(held.connection, held.channel, held.confirm);
        }
    }

    fn write_confirm(&mut self, id: ConnectionId, number: u16, confirm: Confirm) {
        let Confirm { delivery_tag, multiple, is_ack } = confirm;
        if let Some(out) = self.out(id) {
            match is_ack {
                true => out.ack(number, delivery_tag, multiple),
                false => out.nack(number, delivery_tag, multiple),
            }
        }
    }
}

fn delivery(message: &Message, delivery_tag: u64, redelivered: bool) -> Delivery<'_> {
    Delivery { delivery_tag, redelivered, exchange: message.exchange(), routing_key: message.routing_key() }
}

/// A message's properties, with the header that the delivery adds.
fn properties_of<'a>(entry: &'a Entry, extra: Extra, streams: &StreamFacts) -> Cow<'a, [u8]> {
    let properties = entry.message.properties();
    let added: [Option<(&str, i64)>; 2] = match extra {
        Extra::Nothing => return Cow::Borrowed(properties),
        Extra::DeliveryCount => [Some(("x-delivery-count", entry.delivery_count.into())), None],
        Extra::Counts => {
            let (delivery_count, failed_count) = entry.counts();
            let failed = (failed_count > 0).then_some(("x-delivery-count", failed_count));
            [Some(("x-acquired-count", delivery_count)), failed]
        }
        Extra::StreamOffset => [Some(("x-stream-offset", i64::try_from(entry.place).unwrap_or(i64::MAX))), None],
    };
    let added = || added.into_iter().flatten();
    let mut headers = TableWriter::new();
    let reader = PropertyReader::new(properties);
    let old = reader.raw_headers().unwrap_or_default();
    for field in table::fields(old).filter(|field| added().all(|(name, _)| name.as_bytes() != field.key)) {
        headers.raw(field);
    }
    for (name, value) in added() {
        headers.integer(name, value);
    }
    let headers = headers.finish();
    let mut writer = PropertyWriter::new(properties).headers(&headers);
    if extra == Extra::StreamOffset && streams.sends_delivery_mode && reader.delivery_mode().is_none() {
        writer = writer.delivery_mode(TRANSIENT);
    }
    Cow::Owned(writer.write())
}

/// The `delivery_mode` of a message that is not persistent.
const TRANSIENT: u8 = 1;

/// Direct replies wait in no queue: one is dropped once the client's backlog is this many times the limit that stops
/// deliveries.
const REPLY_OUTBOXES_MAX: usize = 16;

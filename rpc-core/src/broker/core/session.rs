//! What the broker knows of one connection, and all connections together.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    ConnectionId, Now, Peer, Traffic,
    access::Access,
    channel::{Channel, Delivered},
    channels::Channels,
    injected::Injected,
    memory::{Alarm, Memory},
    message::{Entry, Message},
    queue::Consumer,
    reply_address::ReplyAddress,
    vhost::QueueKey,
};
use crate::wire::{
    Delivery, OutBuffer, PropertyReader, PropertyWriter, ReplyCode,
    table::{self, TableWriter},
};

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    AwaitStartOk,
    AwaitTuneOk,
    AwaitOpen,
    Open,
    /// We sent `connection.close`: only its answer is read.
    Closing,
    /// We answered the client's `connection.close`: nothing is left of the connection but its socket.
    Closed,
}

/// What the client can do, from its `start-ok`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capabilities {
    pub(super) consumer_cancel_notify: bool,
    pub(super) authentication_failure_close: bool,
    pub(super) connection_blocked: bool,
}

impl Capabilities {
    pub(super) fn read(client_properties: &FieldTable) -> Self {
        let Some(AMQPValue::FieldTable(table)) = client_properties.inner().get("capabilities") else {
            return Self::default();
        };
        let has = |name: &str| matches!(table.inner().get(name), Some(AMQPValue::Boolean(true)));
        Self {
            consumer_cancel_notify: has("consumer_cancel_notify"),
            authentication_failure_close: has("authentication_failure_close"),
            connection_blocked: has("connection.blocked"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stage: Stage,
    pub(super) capabilities: Capabilities,
    pub(super) peer: Peer,
    /// Empty until the login.
    pub(super) user: String,
    /// What the client calls the connection; empty when it did not say.
    pub(super) client_name: String,
    /// Whether it may send messages in other users' names.
    pub(super) is_impersonator: bool,
    /// On its vhost.
    pub(super) access: Access,
    /// Its index, once the connection is open on it.
    pub(super) vhost: Option<usize>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) heartbeat_s: u16,
    pub(super) channels: Channels,
    /// They go with it.
    pub(super) exclusive_queues: BTreeSet<QueueKey>,
    /// Channels with confirms to send at the end of the batch.
    pub(super) confirming: Vec<u16>,
    /// Only those who publish are blocked.
    pub(super) has_published: bool,
    /// Tells this connection from a later one with the same id.
    pub(super) nonce: u128,
    out: OutBuffer,
    is_touched: bool,
    traffic: Arc<Traffic>,
}

impl Session {
    pub(super) fn backlog_bytes(&self) -> usize {
        self.out.bytes() + self.traffic.backlog.load(Ordering::Relaxed)
    }

    /// Whether what the client sends is left unread.
    pub(super) fn is_held(&self) -> bool {
        self.traffic.is_held.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, is_held: bool) {
        self.traffic.is_held.store(is_held, Ordering::Relaxed);
    }
}

/// Every connection of the broker.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Where what it holds is counted.
    pub(super) memory: Arc<Memory>,
    /// What may wait for a client before it gets no more deliveries.
    outbox_max_bytes: usize,
    /// What the batch at hand has cost so far, in messages moved; more than all, when the rest of it has to wait.
    pub(super) work: usize,
    /// What was in queues that were purged or deleted.
    pub(super) garbage: Vec<VecDeque<Entry>>,
    slots: Vec<Option<Session>>,
    free: Vec<usize>,
    touched: Vec<ConnectionId>,
    /// Who is owed a `connection.close-ok`, when, and its nonce.
    pub(super) farewells: VecDeque<(Instant, ConnectionId, u128)>,
    pub(super) alarm: Alarm,
    /// Faults that tests asked for.
    pub(super) injected: Option<Box<Injected>>,
}

impl Sessions {
    pub(super) fn new(memory: Arc<Memory>, outbox_max_bytes: usize) -> Self {
        Self {
            memory,
            outbox_max_bytes,
            work: 0,
            garbage: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            farewells: VecDeque::new(),
            alarm: Alarm::default(),
            injected: None,
        }
    }

    pub(super) fn add(&mut self, peer: Peer, traffic: Arc<Traffic>, nonce: u128, frame_max: u32) -> ConnectionId {
        let session = Session {
            stage: Stage::AwaitStartOk,
            capabilities: Capabilities::default(),
            peer,
            user: String::new(),
            client_name: String::new(),
            is_impersonator: false,
            access: Access::default(),
            vhost: None,
            frame_max,
            channel_max: 0,
            heartbeat_s: 0,
            channels: Channels::default(),
            exclusive_queues: BTreeSet::new(),
            confirming: Vec::new(),
            has_published: false,
            nonce,
            out: OutBuffer::default(),
            is_touched: false,
            traffic,
        };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(session);
                ConnectionId(slot)
            }
            None => {
                self.slots.push(Some(session));
                ConnectionId(self.slots.len() - 1)
            }
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.slots.get_mut(id.0).and_then(Option::take).is_some() {
            self.free.push(id.0);
            self.touched.retain(|touched| *touched != id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Those that are there.
    #[cfg(any(test, fuzzing))]
    pub(super) fn all(&self) -> impl Iterator<Item = (ConnectionId, &Session)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, session)| Some((ConnectionId(slot), session.as_ref()?)))
    }

    /// As `all`, to change them.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Session)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, session)| Some((ConnectionId(slot), session.as_mut()?)))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(at, _)| ConnectionId(at))
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Session> {
        self.slots.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.slots.get_mut(id.0)?.as_mut()
    }

    pub(super) fn channel_mut(&mut self, id: ConnectionId, channel: u16) -> Option<&mut Channel> {
        self.get_mut(id)?.channels.get_mut(channel)
    }

    /// The output of a connection, noted as having something to write.
    pub(super) fn out(&mut self, id: ConnectionId) -> Option<&mut OutBuffer> {
        let session = self.slots.get_mut(id.0)?.as_mut()?;
        if !session.is_touched {
            session.is_touched = true;
            self.touched.push(id);
        }
        Some(&mut session.out)
    }

    /// A method to a client.
    pub(super) fn send(&mut self, id: ConnectionId, channel: u16, class: &AMQPClass) {
        if let Some(out) = self.out(id) {
            out.method(channel, class);
        }
    }

    /// `basic.get-ok` and its message.
    pub(super) fn send_got(&mut self, id: ConnectionId, channel: u16, got: &Got<'_>) {
        let Some(frame_max) = self.get(id).map(|session| session.frame_max) else { return };
        if let Some(out) = self.out(id) {
            let message = &*got.entry.message;
            let delivery = delivery(message, got.delivery_tag, got.entry.is_redelivered());
            let properties = properties_of(got.entry, got.extra);
            out.get_ok(channel, got.message_count, &delivery, &message.content(&properties), frame_max);
        }
    }

    /// `basic.return`, behind the confirms of what was published before.
    pub(super) fn send_return(&mut self, id: ConnectionId, channel: u16, message: &Message, now: Now) {
        self.send_confirms(id, channel, now);
        let Some(frame_max) = self.get(id).map(|session| session.frame_max) else { return };
        if let Some(out) = self.out(id) {
            let names = (message.exchange(), message.routing_key());
            out.returned(channel, ReplyCode::NoRoute, names, &message.content(message.properties()), frame_max);
        }
    }

    #[inline]
    pub(super) fn has_credit(&self, consumer: &Consumer) -> bool {
        let Some(session) = self.get(consumer.connection) else {
            return false;
        };
        session.stage == Stage::Open
            // Who does not read gets no more.
            && session.backlog_bytes() < self.outbox_max_bytes
            && session
                .channels
                .get(consumer.channel)
                .is_some_and(|channel| !channel.is_closing && channel.has_credit(consumer.slot))
    }

    /// Sends an entry to a consumer; true when it now waits for an acknowledgement.
    pub(super) fn deliver(&mut self, consumer: &Consumer, queue: QueueKey, entry: Entry, extra: Extra) -> bool {
        let Some(session) = self.slots.get_mut(consumer.connection.0).and_then(Option::as_mut) else {
            return false;
        };
        let frame_max = session.frame_max;
        let Some(channel) = session.channels.get_mut(consumer.channel) else {
            return false;
        };
        let no_ack = channel.consumer(consumer.slot).is_some_and(|consumer| consumer.no_ack);
        let message = Arc::clone(&entry.message);
        let redelivered = entry.is_redelivered();
        let own = (extra != Extra::Nothing).then(|| properties_of(&entry, extra).into_owned());
        let delivery_tag = if no_ack {
            channel.tag_settled()
        } else {
            channel.tag_unacked(Delivered { queue, entry, slot: Some(consumer.slot), delivery_tag: 0 })
        };
        if let Some(out) = self.out(consumer.connection) {
            let delivery = delivery(&message, delivery_tag, redelivered);
            let properties = own.as_deref().unwrap_or_else(|| message.properties());
            out.deliver(consumer.channel, &consumer.tag, &delivery, &message.content(properties), frame_max);
        }
        !no_ack
    }

    /// Sends a direct reply to the consumer of `amq.rabbitmq.reply-to` on a channel; false when it is gone, or does not
    /// read what it is sent.
    pub(super) fn deliver_reply(&mut self, to: &ReplyAddress, message: &Message) -> bool {
        let backlog_max_bytes = self.outbox_max_bytes.saturating_mul(REPLY_OUTBOXES_MAX);
        let Some(session) = self.get_mut(to.connection).filter(|session| session.nonce == to.nonce) else {
            return false;
        };
        let frame_max = session.frame_max;
        let has_room = session.backlog_bytes() < backlog_max_bytes;
        let Some(channel) = session.channels.get_mut(to.channel) else {
            return false;
        };
        let Some(tag) = channel.direct_replies.clone().filter(|_| has_room) else {
            return false;
        };
        // RabbitMQ does not count direct replies.
        let delivery_tag = channel.next_tag();
        if let Some(out) = self.out(to.connection) {
            let delivery = delivery(message, delivery_tag, false);
            out.deliver(to.channel, &tag, &delivery, &message.content(message.properties()), frame_max);
        }
        true
    }

    /// Whether somebody waits for direct replies there.
    pub(super) fn has_reply_consumer(&self, to: &ReplyAddress) -> bool {
        self.get(to.connection).filter(|session| session.nonce == to.nonce).is_some_and(|session| {
            session.channels.get(to.channel).is_some_and(|channel| channel.direct_replies.is_some())
        })
    }

    /// Tells a client that its consumer is gone, when it wants to know.
    pub(super) fn cancel_notify(&mut self, consumer: &Consumer) {
        let wants = self.get(consumer.connection).is_some_and(|session| session.capabilities.consumer_cancel_notify);
        if wants {
            let consumer_tag = short(&text_of(&consumer.tag));
            let cancel = basic::Cancel { consumer_tag, nowait: true };
            let class = AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel));
            self.send(consumer.connection, consumer.channel, &class);
        }
    }

    /// The connections with something to write, and what.
    pub(super) fn take_output(&mut self, mut write: impl FnMut(ConnectionId, &mut OutBuffer)) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(session) = self.slots.get_mut(id.0).and_then(Option::as_mut) {
                session.is_touched = false;
                write(id, &mut session.out);
            }
        }
    }
}

/// What `basic.get` found.
#[derive(Debug)]
pub(super) struct Got<'a> {
    pub(super) entry: &'a Entry,
    pub(super) delivery_tag: u64,
    pub(super) message_count: u32,
    pub(super) extra: Extra,
}

/// What a delivery tells in a header of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    Nothing,
    /// How often it was delivered before, from a quorum queue.
    DeliveryCount,
    /// Its place in a stream.
    StreamOffset,
}

fn delivery(message: &Message, delivery_tag: u64, redelivered: bool) -> Delivery<'_> {
    Delivery { delivery_tag, redelivered, exchange: message.exchange(), routing_key: message.routing_key() }
}

/// A message's properties as this delivery shows them.
fn properties_of(entry: &Entry, extra: Extra) -> Cow<'_, [u8]> {
    let properties = entry.message.properties();
    let (name, value) = match extra {
        Extra::Nothing => return Cow::Borrowed(properties),
        Extra::DeliveryCount => ("x-delivery-count", entry.delivery_count.into()),
        Extra::StreamOffset => ("x-stream-offset", i64::try_from(entry.place).unwrap_or(i64::MAX)),
    };
    let mut headers = TableWriter::new();
    let old = PropertyReader::new(properties).raw_headers().unwrap_or_default();
    for field in table::fields(old).filter(|field| field.key != name.as_bytes()) {
        headers.raw(field);
    }
    headers.integer(name, value);
    Cow::Owned(PropertyWriter::new(properties).headers(&headers.finish()).write())
}

/// Names as text. Routing keys need not be UTF-8, all others are.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    // Looking for what is no text costs several times as much as finding that all of it is.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// A short string of what came from one, or was generated to fit.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

/// RabbitMQ takes line breaks out of the names of what is declared, bound and deleted, not of what is published to,
/// consumed from or purged.
pub(super) fn drop_line_breaks(name: &mut ShortString) {
    if name.as_str().contains(['\r', '\n']) {
        *name = short(&name.as_str().replace(['\r', '\n'], ""));
    }
}

/// Direct replies wait in no queue: beyond so many times what stops deliveries they are lost.
const REPLY_OUTBOXES_MAX: usize = 16;

//! What the broker knows of one connection, and all connections together.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::{AMQPValue, FieldTable},
};
use bytes::Bytes;

use super::{
    ConnectionId,
    channel::{Channel, Delivered},
    message::{Entry, Message},
    publish::{DIRECT_REPLY_TO, parse_reply_token},
    queue::Consumer,
    vhost::QueueKey,
};
use crate::wire::OutBuffer;

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    AwaitStartOk,
    AwaitTuneOk,
    AwaitOpen,
    Open,
    /// We sent `connection.close`: only its answer is read.
    Closing,
}

/// What the client can do, from its `start-ok`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capabilities {
    pub(super) consumer_cancel_notify: bool,
    pub(super) authentication_failure_close: bool,
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
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stage: Stage,
    pub(super) capabilities: Capabilities,
    pub(super) user: String,
    pub(super) vhost: Arc<str>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) heartbeat_s: u16,
    pub(super) channels: HashMap<u16, Channel, foldhash::fast::RandomState>,
    /// Tells this connection from a later one with the same id.
    pub(super) nonce: u64,
    out: OutBuffer,
    is_touched: bool,
    /// Bytes handed to the writer and not written yet.
    backlog: Arc<AtomicUsize>,
}

impl Session {
    /// Whether the client reads what it is sent: deliveries stop while too much is waiting for it.
    fn has_room(&self) -> bool {
        self.out.bytes() + self.backlog.load(Ordering::Relaxed) < BACKLOG_MAX_BYTES
    }
}

/// Every connection of the broker.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<usize>,
    touched: Vec<ConnectionId>,
}

impl Sessions {
    pub(super) fn add(&mut self, backlog: Arc<AtomicUsize>, nonce: u64, frame_max: u32) -> ConnectionId {
        let session = Session {
            stage: Stage::AwaitStartOk,
            capabilities: Capabilities::default(),
            user: String::new(),
            vhost: "/".into(),
            frame_max,
            channel_max: 0,
            heartbeat_s: 0,
            channels: HashMap::default(),
            nonce,
            out: OutBuffer::default(),
            is_touched: false,
            backlog,
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

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Session> {
        let session = self.slots.get_mut(id.0)?.take()?;
        self.free.push(id.0);
        self.touched.retain(|touched| *touched != id);
        Some(session)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Session> {
        self.slots.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.slots.get_mut(id.0)?.as_mut()
    }

    pub(super) fn channel_mut(&mut self, id: ConnectionId, channel: u16) -> Option<&mut Channel> {
        self.get_mut(id)?.channels.get_mut(&channel)
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

    /// A method and a message.
    pub(super) fn send_content(&mut self, id: ConnectionId, channel: u16, class: &AMQPClass, message: &Message) {
        let Some(frame_max) = self.get(id).map(|session| session.frame_max) else { return };
        if let Some(out) = self.out(id) {
            out.method(channel, class);
            out.content(channel, &message.properties, message.body.parts(), frame_max);
        }
    }

    /// `basic.return`.
    pub(super) fn send_return(&mut self, id: ConnectionId, channel: u16, message: &Message) {
        let class = AMQPClass::Basic(basic::AMQPMethod::Return(basic::Return {
            reply_code: crate::wire::ReplyCode::NoRoute.number(),
            reply_text: crate::wire::ReplyCode::NoRoute.name().into(),
            exchange: name_of(&message.exchange).into(),
            routing_key: name_of(&message.routing_key).into(),
        }));
        self.send_content(id, channel, &class, message);
    }

    pub(super) fn has_credit(&self, consumer: &Consumer) -> bool {
        let Some(session) = self.get(consumer.connection) else {
            return false;
        };
        session.stage == Stage::Open
            && session.has_room()
            && session
                .channels
                .get(&consumer.channel)
                .is_some_and(|channel| !channel.is_closing && channel.has_credit(consumer.slot))
    }

    /// Sends an entry to a consumer; true when it now waits for an acknowledgement.
    pub(super) fn deliver(&mut self, consumer: &Consumer, queue: QueueKey, entry: Entry) -> bool {
        let message = Arc::clone(&entry.message);
        let redelivered = entry.redelivered;
        let Some(session) = self.get_mut(consumer.connection) else {
            return false;
        };
        let frame_max = session.frame_max;
        let Some(channel) = session.channels.get_mut(&consumer.channel) else {
            return false;
        };
        let no_ack = matches!(channel.consumers.get(consumer.slot), Some(Some(consumer)) if consumer.no_ack);
        let delivery_tag = if no_ack {
            channel.tag_settled()
        } else {
            channel.tag_unacked(Delivered { queue, entry, slot: Some(consumer.slot), delivery_tag: 0 })
        };
        if let Some(out) = self.out(consumer.connection) {
            let Message { exchange, routing_key, properties, body, .. } = &*message;
            out.deliver(consumer.channel, &consumer.tag, delivery_tag, redelivered, exchange, routing_key);
            out.content(consumer.channel, properties, body.parts(), frame_max);
        }
        !no_ack
    }

    /// Sends a direct reply to the consumer of `amq.rabbitmq.reply-to` on a channel; false when it is gone.
    pub(super) fn deliver_reply(&mut self, id: ConnectionId, nonce: u64, channel: u16, message: &Message) -> bool {
        let Some(session) = self.get_mut(id).filter(|session| session.nonce == nonce) else {
            return false;
        };
        let frame_max = session.frame_max;
        let Some(open) = session.channels.get_mut(&channel) else {
            return false;
        };
        let Some(tag) = open.direct_replies.clone() else {
            return false;
        };
        // Nobody can acknowledge a reply: RabbitMQ gives them all the same delivery tag.
        if let Some(out) = self.out(id) {
            out.deliver(channel, &tag, REPLY_DELIVERY_TAG, false, &message.exchange, &message.routing_key);
            out.content(channel, &message.properties, message.body.parts(), frame_max);
        }
        true
    }

    /// Whether a name is the token of a requester that still waits for direct replies.
    pub(super) fn is_reply_token(&self, name: &str) -> bool {
        let token = name.strip_prefix(DIRECT_REPLY_TO).and_then(|rest| rest.strip_prefix('.'));
        let Some((id, nonce, channel)) = token.and_then(parse_reply_token) else {
            return false;
        };
        let session = self.get(id).filter(|session| session.nonce == nonce);
        session
            .and_then(|session| session.channels.get(&channel))
            .is_some_and(|channel| channel.direct_replies.is_some())
    }

    /// Tells a client that its consumer is gone, when it wants to know.
    pub(super) fn cancel_notify(&mut self, consumer: &Consumer) {
        let wants = self.get(consumer.connection).is_some_and(|session| session.capabilities.consumer_cancel_notify);
        if wants {
            let consumer_tag = name_of(&consumer.tag).into();
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

    pub(super) fn vhost_of(&self, id: ConnectionId) -> Arc<str> {
        self.get(id).map_or_else(|| "/".into(), |session| Arc::clone(&session.vhost))
    }
}

/// Names were checked to be UTF-8 when they came in.
pub(super) fn name_of(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A client that does not read gets no deliveries beyond this much.
const BACKLOG_MAX_BYTES: usize = 4 << 20;

const REPLY_DELIVERY_TAG: u64 = 1;

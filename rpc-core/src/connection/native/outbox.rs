//! The frames that are queued for one connection.

use std::{collections::VecDeque, task::Waker};

use amq_protocol::protocol::AMQPClass;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    failure::Failure,
    message::{self, Message},
};
use crate::{
    connection::amqp::{HeaderValue, Publish, Settlement, overlong},
    error::Error,
    wire::{self, Content, OutBuffer},
};

/// Notified once the connection is closed.
pub(super) type Closed = oneshot::Sender<Result<(), Failure>>;

/// The event that wakes the io task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Frames that are queued.
    ForFrames,
    /// The socket, which takes nothing at present. A close wakes it as well, because a close has a time limit.
    ForSocket,
}

/// Frames in the order of their queueing.
#[derive(Debug)]
pub(super) struct Outbox {
    buffer: OutBuffer,
    /// The properties of the message being written; the buffer is reused.
    properties: Vec<u8>,
    frame_max: u32,
    /// Bytes that may be queued before requests wait. As many may be on their way to the socket.
    max_bytes: usize,
    /// The io task, while it waits.
    writer: Option<Waker>,
    waits: Waits,
    /// Why nothing can be queued any more.
    ended: Option<Failure>,
    /// Set once our `connection.close` is queued, with the waiter for its answer if there is one.
    closing: Option<Option<Closed>>,
    /// Whether a publisher waits for room.
    is_awaited: bool,
}

impl Outbox {
    pub(super) fn new(frame_max: u32, max_bytes: usize) -> Self {
        Self {
            buffer: OutBuffer::default(),
            properties: Vec::new(),
            frame_max,
            max_bytes,
            writer: None,
            waits: Waits::ForFrames,
            ended: None,
            closing: None,
            is_awaited: false,
        }
    }

    /// Why nothing can be queued any more, if so.
    #[inline]
    pub(super) fn ended(&self) -> Option<Failure> {
        match self.closing {
            Some(_) if self.ended.is_none() => Some(Failure::closed_by_us()),
            _ => self.ended.clone(),
        }
    }

    pub(super) fn method(&mut self, channel: u16, class: &AMQPClass) {
        self.buffer.method(channel, class);
    }

    pub(super) fn heartbeat(&mut self) {
        self.buffer.heartbeat();
    }

    pub(super) fn publish(&mut self, channel: u16, publish: &Publish<'_>) -> Result<(), Error> {
        let &Publish { exchange, routing_key, mandatory, ref properties, body } = publish;
        self.properties.clear();
        message::write_properties(&mut self.properties, properties)?;
        self.content(channel, (exchange, routing_key), mandatory, body)
    }

    /// Publishes a received message once more, to a queue.
    pub(super) fn republish(
        &mut self,
        channel: u16,
        message: &Message,
        queue: &str,
        headers: &[(std::borrow::Cow<'static, str>, HeaderValue)],
    ) -> Result<(), Error> {
        self.properties = message.persistent_properties(headers)?;
        self.content(channel, ("", queue.as_bytes()), true, message.body())
    }

    fn content(
        &mut self,
        channel: u16,
        (exchange, routing_key): (&str, &[u8]),
        mandatory: bool,
        body: &[u8],
    ) -> Result<(), Error> {
        let exchange = exchange.as_bytes();
        if let Some(name) = [exchange, routing_key].into_iter().find(|name| name.len() > 255) {
            return Err(overlong(name.len()));
        }
        let publish = wire::Publish { exchange, routing_key, mandatory, immediate: false };
        // A content header cannot be split, and the broker closes the connection for one beyond the limit.
        if self.properties.len() + HEADER_BYTES > self.frame_max as usize {
            let limit_bytes = self.frame_max as usize - HEADER_BYTES;
            return Err(Error::PropertiesTooLarge { bytes: self.properties.len(), limit_bytes });
        }
        let content = Content { properties: &self.properties, small: body, parts: &[] };
        self.buffer.publish(channel, publish, &content, self.frame_max);
        Ok(())
    }

    pub(super) fn settle(&mut self, channel: u16, settlement: Settlement) {
        match settlement {
            Settlement::Ack { delivery_tag, multiple } => self.buffer.ack(channel, delivery_tag, multiple),
            Settlement::Requeue { delivery_tag } => self.buffer.nack(channel, delivery_tag, false),
        }
    }

    /// Our `connection.close` is queued: nothing may follow it.
    pub(super) fn close(&mut self, closed: Option<Closed>) {
        self.closing = Some(closed);
    }

    /// Lets nothing more be queued. Queued frames may still be written. The first reason counts.
    pub(super) fn end(&mut self, failure: Failure) -> Option<Closed> {
        self.ended.get_or_insert(failure);
        self.closing.as_mut()?.take()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether our close is queued without a waiter for its answer.
    pub(super) fn is_left(&self) -> bool {
        matches!(self.closing, Some(None))
    }

    /// The io task, if it must wake.
    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        let is_news = match self.waits {
            Waits::ForFrames => !self.buffer.is_empty(),
            Waits::ForSocket => self.is_closing(),
        };
        if is_news { self.writer.take() } else { None }
    }

    /// Whether requests must wait: the socket takes less than is published.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.bytes() >= self.max_bytes
    }

    /// Asks for a sign once there is room; false if there is some, or never will be.
    pub(super) fn await_room(&mut self) -> bool {
        self.is_awaited = self.is_full() && self.ended.is_none() && self.closing.is_none();
        self.is_awaited
    }

    /// Whether a publisher waits for the room that there is now.
    pub(super) fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.is_awaited)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Moves the queued frames to the end of `segments`.
    pub(super) fn take_into(&mut self, segments: &mut VecDeque<Bytes>) {
        self.buffer.take_into(segments);
    }

    /// Puts frames back that were taken, before those that were queued since.
    pub(super) fn put_back(&mut self, mut taken: OutBuffer) {
        taken.append(&mut self.buffer);
        self.buffer = taken;
    }

    /// Registers `writer` to be woken.
    pub(super) fn wait(&mut self, writer: &Waker, waits: Waits) {
        self.waits = waits;
        if !self.writer.as_ref().is_some_and(|known| known.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
    }
}

/// The bytes of a content header's frame besides the properties.
const HEADER_BYTES: usize = 20;

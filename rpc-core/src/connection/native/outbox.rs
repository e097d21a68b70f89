//! What waits to be written to one connection.

use std::{collections::VecDeque, task::Waker};

use amq_protocol::protocol::AMQPClass;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    message::{self, Message},
    shared::Failure,
};
use crate::{
    connection::transport::{HeaderValue, Publish, Settlement, overlong},
    error::Error,
    wire::{self, Content, OutBuffer},
};

/// Hears when the connection is closed.
pub(super) type Closed = oneshot::Sender<Result<(), Failure>>;

/// What the io task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// What is queued next.
    ForFrames,
    /// The socket, which takes nothing at present; a close is to be heard of all the same.
    ForSocket,
}

/// Frames in the order of their queueing.
#[derive(Debug)]
pub(super) struct Outbox {
    buffer: OutBuffer,
    /// Of the message being written; kept for its room.
    properties: Vec<u8>,
    frame_max: u32,
    /// The io task, while it waits, and what for.
    writer: Option<Waker>,
    waits: Waits,
    /// Why nothing can be queued any more.
    ended: Option<Failure>,
    /// Our `connection.close` is queued, and who waits for its answer, if anybody does.
    closing: Option<Option<Closed>>,
}

impl Outbox {
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            buffer: OutBuffer::default(),
            properties: Vec::new(),
            frame_max,
            writer: None,
            waits: Waits::ForFrames,
            ended: None,
            closing: None,
        }
    }

    /// Why nothing can be queued any more, if so.
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

    /// Sends a message once more, straight to a queue.
    pub(super) fn republish(
        &mut self,
        channel: u16,
        message: &Message,
        queue: &str,
        headers: &[(std::borrow::Cow<'static, str>, HeaderValue)],
    ) -> Result<(), Error> {
        self.properties = message.persistent_properties(headers)?;
        self.content(channel, ("", queue), true, message.body())
    }

    fn content(
        &mut self,
        channel: u16,
        (exchange, routing_key): (&str, &str),
        mandatory: bool,
        body: &[u8],
    ) -> Result<(), Error> {
        if let Some(name) = [exchange, routing_key].into_iter().find(|name| name.len() > 255) {
            return Err(overlong(name.len()));
        }
        let (exchange, routing_key) = (exchange.as_bytes(), routing_key.as_bytes());
        let publish = wire::Publish { exchange, routing_key, mandatory, immediate: false };
        // The broker would close the connection for it: content headers cannot be cut.
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

    /// After `connection.close` nothing is to be sent.
    pub(super) fn close(&mut self, closed: Option<Closed>) {
        self.closing = Some(closed);
    }

    /// Nothing can be queued any more; what is queued may still be written. The first reason counts.
    pub(super) fn end(&mut self, failure: Failure) -> Option<Closed> {
        self.ended.get_or_insert(failure);
        self.closing.as_mut()?.take()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether a connection was closed that nobody waits for.
    pub(super) fn is_left(&self) -> bool {
        matches!(self.closing, Some(None))
    }

    /// The io task, when something is here for it.
    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        let is_news = match self.waits {
            Waits::ForFrames => !self.buffer.is_empty(),
            Waits::ForSocket => self.is_closing(),
        };
        if is_news { self.writer.take() } else { None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Moves what waits behind `segments`.
    pub(super) fn take_into(&mut self, segments: &mut VecDeque<Bytes>) {
        self.buffer.take_into(segments);
    }

    /// Has `writer` woken by what it waits for.
    pub(super) fn wait(&mut self, writer: &Waker, waits: Waits) {
        self.waits = waits;
        if !self.writer.as_ref().is_some_and(|known| known.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
    }
}

/// What a content header's frame has besides the properties.
const HEADER_BYTES: usize = 20;

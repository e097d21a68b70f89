//! From frames to whole messages: a publish, its content header, and its body (AMQP 0-9-1 §4.2.6).
//!
//! A small message whose frames all lie in one batch is published as it lies there. All others are put together frame
//! by frame in the channel's [`Assembly`](super::message::Assembly).

use super::{ConnectionId, Core, Fault, Flow, Now, channel::Incoming, session::Stage};
use crate::wire::{COPY_MAX_BYTES, Content, ContentHeader, ContentHeaderError, FrameKind, Frames, Publish, RawFrame};

impl Core {
    /// Publishes the message that `frame` begins, when all of it is there. Otherwise, or when anything about it is not
    /// as it should be, nothing happens, and `frame` is for [`Core::frame`].
    #[inline]
    pub(super) fn whole_publish(
        &mut self,
        id: ConnectionId,
        frame: &RawFrame<'_>,
        frames: &mut Frames<'_>,
        now: Now,
    ) -> Option<Flow> {
        if frame.kind != FrameKind::Method {
            return None;
        }
        let publish = Publish::read(frame.payload)?;
        let mut ahead = frames.clone();
        let mut next = |kind| ahead.next().filter(|next| (next.kind, next.channel) == (kind, frame.channel));
        let header = ContentHeader::read(next(FrameKind::Header)?.payload, self.rules.limits.table_depth_max).ok()?;
        let is_small = header.body_size <= self.message_max_bytes().min(COPY_MAX_BYTES as u64);
        let small = match header.body_size {
            0 => &[][..],
            size => next(FrameKind::Body)?.payload.get(..).filter(|body| is_small && body.len() as u64 == size)?,
        };
        if self.sessions.alarm.is_on() {
            return None;
        }
        let session = self.sessions.get_mut(id).filter(|session| session.stage == Stage::Open)?;
        let channel = session.channels.get(frame.channel)?;
        if channel.is_closing || channel.incoming.is_some() {
            return None;
        }
        session.has_published = true;
        *frames = ahead;
        let content = Content { properties: header.properties, small, parts: &[] };
        Some(match self.publish(id, frame.channel, &publish, &content, now) {
            Ok(()) => Flow::Continue,
            Err(fault) => self.fail(id, frame.channel, &fault.at(PUBLISH), now),
        })
    }

    /// The largest message there can be.
    fn message_max_bytes(&self) -> u64 {
        self.rules.message_max_bytes.min(self.memory.message_max_bytes())
    }

    pub(super) fn begin_publish(&mut self, id: ConnectionId, number: u16, publish: &Publish<'_>) -> Result<(), Fault> {
        let &Publish { exchange, routing_key, mandatory, immediate } = publish;
        self.session_mut(id)?.has_published = true;
        if self.sessions.alarm.is_on() {
            self.sessions.block_publisher(id);
        }
        let channel = self.channel_mut(id, number)?;
        channel.assembly.begin(exchange, routing_key);
        channel.incoming = Some(Incoming { mandatory, immediate, has_header: false });
        Ok(())
    }

    pub(super) fn content_header(
        &mut self,
        id: ConnectionId,
        number: u16,
        frame: &RawFrame<'_>,
        now: Now,
    ) -> Result<(), Fault> {
        let limit = self.message_max_bytes();
        let table_depth_max = self.rules.limits.table_depth_max;
        let channel = self.channel_mut(id, number)?;
        let Some(incoming) = &mut channel.incoming else {
            return Err(Fault::expected_method());
        };
        if incoming.has_header {
            return Err(Fault::expected_body().at(PUBLISH));
        }
        let header = ContentHeader::read(frame.payload, table_depth_max).map_err(|error| match error {
            ContentHeaderError::Truncated => Fault::unknown_frame(2, frame.payload),
            ContentHeaderError::Weight => Fault::expected_header("non content header frame").at(PUBLISH),
            ContentHeaderError::Class(class_id) => {
                Fault::expected_header(&format!("one for class {class_id}")).at(PUBLISH)
            }
            ContentHeaderError::Properties { .. } => {
                Fault::syntax_error("content properties cannot be read").at(PUBLISH)
            }
        })?;
        if header.body_size > limit {
            channel.incoming = None;
            return Err(Fault::message_too_large(header.body_size, limit).at(PUBLISH));
        }
        incoming.has_header = true;
        channel.assembly.properties(header.properties, header.body_size);
        self.publish_if_whole(id, number, now)
    }

    pub(super) fn content_body(
        &mut self,
        id: ConnectionId,
        number: u16,
        frame: &RawFrame<'_>,
        now: Now,
    ) -> Result<(), Fault> {
        if self.memory.is_exhausted() {
            self.sessions.block_publisher(id);
        }
        let channel = self.channel_mut(id, number)?;
        match channel.incoming {
            None => return Err(Fault::expected_method()),
            Some(Incoming { has_header: false, .. }) => {
                return Err(Fault::expected_header("non content header frame").at(PUBLISH));
            }
            Some(_) => {}
        }
        channel
            .assembly
            .body(frame.payload, || frame.share())
            .map_err(|more| Fault::body_too_long(more).at(PUBLISH))?;
        self.publish_if_whole(id, number, now)
    }

    fn publish_if_whole(&mut self, id: ConnectionId, number: u16, now: Now) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        if !channel.assembly.is_whole() {
            return Ok(());
        }
        let Some(Incoming { mandatory, immediate, .. }) = channel.incoming.take() else { return Ok(()) };
        let assembly = std::mem::take(&mut channel.assembly);
        let (exchange, routing_key) = (assembly.exchange(), assembly.routing_key());
        let publish = Publish { exchange, routing_key, mandatory, immediate };
        let result = self.publish(id, number, &publish, &assembly.content(), now);
        if let Some(channel) = self.sessions.channel_mut(id, number) {
            channel.assembly = assembly.emptied();
        }
        result.map_err(|fault| fault.at(PUBLISH))
    }
}

const PUBLISH: (u16, u16) = (60, 40);

//! From frames to whole messages: a publish, its content header, and its body (AMQP 0-9-1 §4.2.6).
//!
//! A small message whose frames all lie in one batch is published straight from there. Any other message is assembled
//! frame by frame in the channel's [`Assembly`](super::super::vhost::message::Assembly).

use crate::{
    broker::core::{
        classes::publish::publish, context::Context, deprecations::DeprecatedFeature, fault::Fault, globals::Globals,
        names::text_of, session::channel::Incoming,
    },
    routing::Progress,
    wire::{COPY_MAX_BYTES, Content, ContentHeader, ContentHeaderError, FrameKind, Frames, Publish, RawFrame},
};

/// Reads the message that `frame` begins from the frames ahead. `None` if it is large, incomplete or malformed.
#[inline]
pub(crate) fn read_whole<'a>(
    frame: &RawFrame<'a>,
    ahead: &mut Frames<'a>,
    globals: &Globals,
) -> Option<(Publish<'a>, Content<'a>)> {
    let publish = Publish::read(frame.payload)?;
    let mut next = |kind| ahead.next().filter(|next| (next.kind, next.channel) == (kind, frame.channel));
    let header = ContentHeader::read(next(FrameKind::Header)?.payload, globals.rules.limits.table_depth_max).ok()?;
    let is_small = header.body_size <= globals.message_max_bytes().min(COPY_MAX_BYTES as u64);
    let small = match header.body_size {
        0 => &[][..],
        size => next(FrameKind::Body)?.payload.get(..).filter(|body| is_small && body.len() as u64 == size)?,
    };
    Some((publish, Content { properties: header.properties, small, parts: &[] }))
}

/// Handles `basic.publish`: its content follows.
pub(crate) fn begin(context: &mut Context<'_>, publish: &Publish<'_>) -> Result<(), Fault> {
    let &Publish { exchange, routing_key, mandatory, immediate } = publish;
    context.session_mut().has_published = true;
    if context.globals.alarm.is_on() {
        context.globals.alarm.block_publisher(context.id, context.sessions);
    }
    let channel = context.channel_mut();
    channel.assembly.begin(exchange, routing_key);
    channel.incoming = Some(Incoming { mandatory, immediate, has_header: false, is_paused: false });
    Ok(())
}

/// Handles a content header.
pub(crate) fn header(context: &mut Context<'_>, frame: &RawFrame<'_>) -> Result<Progress, Fault> {
    if is_paused(context) {
        return publish_if_whole(context);
    }
    let limit = context.globals.message_max_bytes();
    let announced_max = context.globals.rules.facts.announced_max_bytes;
    let table_depth_max = context.globals.rules.limits.table_depth_max;
    let warned_max = context.warns_of().map_or(u64::MAX, |facts| facts.message_max_bytes);
    let channel = context.channel_mut();
    let Some(incoming) = &mut channel.incoming else {
        return Err(Fault::expected_method());
    };
    if incoming.has_header {
        return Err(Fault::expected_body().at(PUBLISH));
    }
    let header = ContentHeader::read(frame.payload, table_depth_max).map_err(|error| match error {
        ContentHeaderError::Truncated => Fault::unknown_frame(2, frame.payload),
        ContentHeaderError::Weight => Fault::expected_header("non content header frame").at(PUBLISH),
        ContentHeaderError::Class(class_id) => Fault::expected_header(&format!("one for class {class_id}")).at(PUBLISH),
        // Only what its own client sends makes RabbitMQ fail, so the client is told as RabbitMQ tells it.
        ContentHeaderError::Properties { .. } => Fault::internal_error(),
    })?;
    if header.body_size > announced_max {
        return Err(Fault::announced_too_large(header.body_size, announced_max).at(PUBLISH));
    }
    if header.body_size > limit {
        channel.incoming = None;
        return Err(Fault::message_too_large(header.body_size, limit).at(PUBLISH));
    }
    incoming.has_header = true;
    channel.assembly.properties(header.properties, header.body_size);
    if header.body_size > warned_max {
        let routing_key = text_of(context.channel().assembly.routing_key()).into_owned();
        context.deprecated(DeprecatedFeature::LargeMessage, &routing_key);
    }
    publish_if_whole(context)
}

/// Handles a frame of a body.
pub(crate) fn body(context: &mut Context<'_>, frame: &RawFrame<'_>) -> Result<Progress, Fault> {
    if is_paused(context) {
        return publish_if_whole(context);
    }
    if context.globals.memory.is_exhausted() {
        context.globals.alarm.block_publisher(context.id, context.sessions);
    }
    let channel = context.channel_mut();
    match channel.incoming {
        None => return Err(Fault::expected_method()),
        Some(Incoming { has_header: false, .. }) => {
            return Err(Fault::expected_header("non content header frame").at(PUBLISH));
        }
        Some(_) => {}
    }
    channel.assembly.body(frame.payload, || frame.share()).map_err(|_| Fault::body_too_long().at(PUBLISH))?;
    publish_if_whole(context)
}

/// Whether the channel's message has arrived, and its last frame is handled again because the search for its queues has
/// paused.
fn is_paused(context: &Context<'_>) -> bool {
    context.channel().incoming.is_some_and(|incoming| incoming.is_paused)
}

fn publish_if_whole(context: &mut Context<'_>) -> Result<Progress, Fault> {
    let channel = context.channel_mut();
    let whole = channel.incoming.take_if(|_| channel.assembly.is_whole());
    let Some(incoming) = whole else { return Ok(Progress::Done) };
    let Incoming { mandatory, immediate, .. } = incoming;
    let assembly = std::mem::take(&mut channel.assembly);
    let (exchange, routing_key) = (assembly.exchange(), assembly.routing_key());
    let message = Publish { exchange, routing_key, mandatory, immediate };
    let result = publish(context, &message, &assembly.content());
    let channel = context.channel_mut();
    if let Ok(Progress::Paused) = result {
        channel.assembly = assembly;
        channel.incoming = Some(Incoming { is_paused: true, ..incoming });
    } else {
        channel.assembly = assembly.emptied();
    }
    result.map_err(|fault| fault.at_unless_set(PUBLISH))
}

pub(crate) const PUBLISH: (u16, u16) = (60, 40);

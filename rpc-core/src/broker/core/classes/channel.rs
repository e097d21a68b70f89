//! The channel class: open, flow, close.

use std::sync::Arc;

use amq_protocol::protocol::{
    AMQPClass,
    channel::{AMQPMethod, CloseOk, FlowOk, OpenOk},
};

use crate::{
    broker::core::{
        context::Context,
        ending::{Ending, Last},
        fault::Fault,
        limits::memory::Memory,
        session::{Session, channel::Channel},
    },
    wire::{FrameKind, RawFrame, method_ids},
};

/// Handles a method of this class on an open channel.
pub(crate) fn method(context: &mut Context<'_>, method: AMQPMethod) -> Result<(), Fault> {
    match method {
        AMQPMethod::Open(_) => Err(Fault::second_channel_open()),
        AMQPMethod::Flow(flow) if !flow.active => Err(Fault::not_implemented("active=false")),
        AMQPMethod::Flow(_) => {
            context.send(&AMQPClass::Channel(AMQPMethod::FlowOk(FlowOk { active: true })));
            Ok(())
        }
        AMQPMethod::Close(_) => close(context),
        AMQPMethod::CloseOk(_) | AMQPMethod::OpenOk(_) | AMQPMethod::FlowOk(_) => Err(Fault::unimplemented_method()),
    }
}

/// Opens a channel, and returns the answer.
pub(crate) fn open(session: &mut Session, number: u16, memory: &Arc<Memory>) -> Result<AMQPMethod, Fault> {
    let (open, max) = (session.channels.len(), session.channel_max);
    if open >= usize::from(max) {
        return Err(Fault::too_many_channels(open, max));
    }
    session.channels.insert(number, Channel::open(memory));
    Ok(AMQPMethod::OpenOk(OpenOk {}))
}

/// A frame of a channel that we closed over a fault: it is ignored until the client's answer. The client's own close,
/// which crossed ours, is answered all the same.
pub(crate) fn frame_of_closing(session: &mut Session, frame: &RawFrame<'_>) -> Result<Option<AMQPMethod>, Fault> {
    if frame.kind != FrameKind::Method {
        return Ok(None);
    }
    match method_ids(frame.payload) {
        Some(CLOSE) => return Ok(Some(AMQPMethod::CloseOk(CloseOk {}))),
        Some(CLOSE_OK) => drop(session.channels.remove(frame.channel)),
        Some(OPEN) => return Err(Fault::second_channel_open().at(OPEN)),
        _ => {}
    }
    Ok(None)
}

fn close(context: &mut Context<'_>) -> Result<(), Fault> {
    context.sessions.flush_confirms(context.id, context.now);
    let number = context.number;
    let channel = std::mem::take(context.channel_mut());
    let ending = Ending::of_channel(number, channel, Last::ChannelCloseOk);
    context.begin(ending)
}

pub(crate) const OPEN: (u16, u16) = (20, 10);
const CLOSE: (u16, u16) = (20, 40);
const CLOSE_OK: (u16, u16) = (20, 41);

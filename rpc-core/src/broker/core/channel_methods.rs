//! The channel class: open, flow, close.

use amq_protocol::protocol::{AMQPClass, channel as channel_class};

use super::{ConnectionId, Core, Fault, Now, channel::Channel, read};
use crate::wire::{FrameKind, RawFrame, method_ids};

impl Core {
    pub(super) fn unopened_channel(&mut self, id: ConnectionId, frame: &RawFrame) -> Result<(), Fault> {
        if frame.kind != FrameKind::Method {
            return Err(Fault::unexpected_frame("expected method frame, got non method frame instead"));
        }
        let ids = method_ids(&frame.payload).unwrap_or_default();
        if ids != CHANNEL_OPEN {
            return Err(Fault::channel_error("expected 'channel.open'").at(ids));
        }
        read(frame)?;
        let Some(session) = self.sessions.get_mut(id) else { return Ok(()) };
        let max = session.channel_max;
        if session.channels.len() >= usize::from(max) {
            return Err(Fault::not_allowed(format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({max})",
                session.channels.len()
            )));
        }
        session.channels.insert(frame.channel, Channel::default());
        let open_ok = channel_class::AMQPMethod::OpenOk(channel_class::OpenOk {});
        self.sessions.send(id, frame.channel, &AMQPClass::Channel(open_ok));
        Ok(())
    }

    /// After our `channel.close` everything is ignored until its answer; the client's own close is answered.
    pub(super) fn closing_channel_frame(&mut self, id: ConnectionId, frame: &RawFrame) {
        if frame.kind != FrameKind::Method {
            return;
        }
        let ids = method_ids(&frame.payload);
        if ids == Some(CHANNEL_CLOSE) {
            let close_ok = channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {});
            self.sessions.send(id, frame.channel, &AMQPClass::Channel(close_ok));
        }
        // Both sides closed it at once: the answer to our close is still on its way.
        if ids == Some(CHANNEL_CLOSE_OK)
            && let Some(session) = self.sessions.get_mut(id)
        {
            session.channels.remove(&frame.channel);
        }
    }

    pub(super) fn channel_class(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: channel_class::AMQPMethod,
        now: Now,
    ) -> Result<(), Fault> {
        use channel_class::{AMQPMethod, CloseOk, FlowOk};
        match method {
            AMQPMethod::Open(_) => Err(Fault::channel_error("second 'channel.open' seen")),
            AMQPMethod::Flow(flow) if !flow.active => Err(Fault::not_implemented("active=false")),
            AMQPMethod::Flow(_) => {
                let ok = AMQPMethod::FlowOk(FlowOk { active: true });
                self.sessions.send(id, number, &AMQPClass::Channel(ok));
                Ok(())
            }
            AMQPMethod::Close(_) => {
                self.end_batch(id);
                let freed = self.end_channel(id, number, now);
                self.sessions.send(id, number, &AMQPClass::Channel(AMQPMethod::CloseOk(CloseOk {})));
                if let Some(session) = self.sessions.get_mut(id) {
                    session.channels.remove(&number);
                }
                self.deliver_all(id, freed, now);
                Ok(())
            }
            AMQPMethod::FlowOk(_) | AMQPMethod::CloseOk(_) | AMQPMethod::OpenOk(_) => Err(Fault::unimplemented()),
        }
    }
}

const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);

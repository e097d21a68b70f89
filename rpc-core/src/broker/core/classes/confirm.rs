//! The confirm class.

use amq_protocol::protocol::{
    AMQPClass,
    confirm::{AMQPMethod, SelectOk},
};

use crate::broker::core::{context::Context, fault::Fault, session::channel::Mode};

/// Handles a method of this class.
pub(crate) fn method(context: &mut Context<'_>, method: &AMQPMethod) -> Result<(), Fault> {
    let AMQPMethod::Select(select) = method else {
        return Err(Fault::unimplemented_method());
    };
    let channel = context.channel_mut();
    match channel.mode {
        Mode::Transaction(_) => return Err(Fault::precondition("cannot switch from tx to confirm mode")),
        Mode::Plain | Mode::Confirm => channel.mode = Mode::Confirm,
    }
    if !select.nowait {
        context.send(&AMQPClass::Confirm(AMQPMethod::SelectOk(SelectOk {})));
    }
    Ok(())
}

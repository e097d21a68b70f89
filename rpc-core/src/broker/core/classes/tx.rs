//! The tx class: publishes and acknowledgements that wait for their commit.

use amq_protocol::protocol::{
    AMQPClass,
    tx::{AMQPMethod, CommitOk, RollbackOk, SelectOk},
};

use crate::broker::core::{
    classes::{publish::queue_up, settle::apply_settlements},
    context::Context,
    fault::Fault,
    session::channel::{Mode, Transaction},
};

/// Handles a method of this class.
pub(crate) fn method(context: &mut Context<'_>, method: &AMQPMethod) -> Result<(), Fault> {
    match method {
        AMQPMethod::Select(_) => select(context),
        AMQPMethod::Commit(_) => commit(context),
        AMQPMethod::Rollback(_) => {
            let transaction = take_transaction(context)?;
            context.channel_mut().restore(transaction.settlements);
            send(context, AMQPMethod::RollbackOk(RollbackOk {}));
            Ok(())
        }
        _ => Err(Fault::unimplemented_method()),
    }
}

fn select(context: &mut Context<'_>) -> Result<(), Fault> {
    let mode = &mut context.channel_mut().mode;
    match mode {
        Mode::Confirm => return Err(Fault::precondition("cannot switch from confirm to tx mode")),
        Mode::Plain => *mode = Mode::Transaction(Transaction::default()),
        Mode::Transaction(_) => {}
    }
    send(context, AMQPMethod::SelectOk(SelectOk {}));
    Ok(())
}

fn commit(context: &mut Context<'_>) -> Result<(), Fault> {
    let transaction = take_transaction(context)?;
    let mut is_taken = true;
    for routable in &transaction.publishes {
        is_taken &= queue_up(context, routable);
    }
    let freed = apply_settlements(context, transaction.settlements);
    if is_taken {
        send(context, AMQPMethod::CommitOk(CommitOk {}));
    }
    context.deliver_all(freed, context.regained());
    if is_taken { Ok(()) } else { Err(Fault::precondition("partial tx completion")) }
}

/// Takes out the transaction and begins the next one.
fn take_transaction(context: &mut Context<'_>) -> Result<Transaction, Fault> {
    match &mut context.channel_mut().mode {
        Mode::Transaction(transaction) => Ok(std::mem::take(transaction)),
        Mode::Plain | Mode::Confirm => Err(Fault::precondition("channel is not transactional")),
    }
}

fn send(context: &mut Context<'_>, method: AMQPMethod) {
    context.send(&AMQPClass::Tx(method));
}

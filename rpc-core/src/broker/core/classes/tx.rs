//! The tx class: publishes and acknowledgements that wait for their commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use amq_protocol::protocol::{
    AMQPClass,
    tx::{AMQPMethod, CommitOk, RollbackOk, SelectOk},
};

use crate::{
    broker::core::{
        classes::{
            publish::Queueing,
            settle::{apply_settlements, with_shared_window},
        },
        context::{Context, Unfinished},
        deprecations::DeprecatedFeature,
        fault::Fault,
        names::text_of,
        session::{
            channel::{Mode, Routable, Settle, Transaction},
            unacked::Delivered,
        },
    },
    routing::{Progress, QueueId},
};

/// Handles a method of this class.
pub(crate) fn method(context: &mut Context<'_>, method: &AMQPMethod) -> Result<(), Fault> {
    match method {
        AMQPMethod::Select(_) => select(context),
        AMQPMethod::Commit(_) => {
            let commit = Commit::new(take_transaction(context)?);
            context.begin(commit)
        }
        AMQPMethod::Rollback(_) => {
            let settlements = take_transaction(context)?.settlements;
            context.begin(Rollback { settlements })
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

/// A transaction is committed: its messages are queued in their order, then its acknowledgements applied.
#[derive(Debug)]
pub(crate) struct Commit {
    publishes: std::vec::IntoIter<Routable>,
    /// The message that is being put into its queues.
    queueing: Option<Queueing>,
    settlements: std::vec::IntoIter<(Delivered, Settle)>,
    names: BTreeMap<QueueId, Arc<str>>,
    is_taken: bool,
    /// The queues of the settled deliveries.
    freed: Vec<QueueId>,
    /// Those that serve no consumer until all is settled.
    held: BTreeSet<QueueId>,
}

impl Commit {
    fn new(transaction: Transaction) -> Self {
        let Transaction { publishes, settlements, names, .. } = transaction;
        let (publishes, settlements) = (publishes.into_iter(), settlements.into_iter());
        Self { publishes, queueing: None, settlements, names, is_taken: true, freed: Vec::new(), held: BTreeSet::new() }
    }
}

impl Commit {
    /// The message to put into its queues next.
    fn next_message(&mut self, context: &mut Context<'_>) -> Result<Option<Queueing>, Fault> {
        if self.queueing.is_some() {
            return Ok(self.queueing.take());
        }
        let Some(routable) = self.publishes.next() else { return Ok(None) };
        let vhost = &*context.vhost;
        let is_missing = |key: &&QueueId| !vhost.queues.contains_key(key);
        if context.globals.deprecations.is_some() && routable.queues.iter().any(|key| is_missing(&key)) {
            let routing_key = text_of(routable.message.routing_key()).into_owned();
            context.deprecated(DeprecatedFeature::QueueDeletedInTransaction, &routing_key);
            return Ok(Some(Queueing::new(routable)));
        }
        if vhost.facts.commit_needs_queues
            && let Some(name) = routable.queues.iter().find(is_missing).and_then(|key| self.names.get(key))
        {
            return Err(Fault::undelivered(name, &vhost.name).at(COMMIT));
        }
        Ok(Some(Queueing::new(routable)))
    }
}

impl Unfinished for Commit {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        while let Some(mut queueing) = self.next_message(context)? {
            if queueing.go_on(context) == Progress::Paused {
                self.queueing = Some(queueing);
                return Ok(Progress::Paused);
            }
            self.is_taken &= queueing.is_taken;
        }
        while self.settlements.len() > 0 {
            let piece: Vec<_> = self.settlements.by_ref().take(context.sessions.work_left()).collect();
            self.freed.extend(apply_settlements(context, piece.into_iter()));
            if context.sessions.has_worked_enough() {
                context.vhost.hold(&mut self.freed, &mut self.held);
                return Ok(Progress::Paused);
            }
        }
        context.vhost.resume_all(&mut self.held, &mut self.freed);
        context.channel_mut().end_transaction();
        if self.is_taken {
            send(context, AMQPMethod::CommitOk(CommitOk {}));
        }
        let freed = with_shared_window(context, std::mem::take(&mut self.freed));
        context.deliver_all(freed, context.regained());
        if self.is_taken { Ok(Progress::Done) } else { Err(Fault::precondition("partial tx completion").at(COMMIT)) }
    }
}

/// A transaction is rolled back: its deliveries are unacknowledged again.
#[derive(Debug)]
pub(crate) struct Rollback {
    settlements: Vec<(Delivered, Settle)>,
}

impl Unfinished for Rollback {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        while !context.sessions.has_worked_enough() {
            let Some((delivered, _)) = self.settlements.pop() else {
                context.channel_mut().end_transaction();
                send(context, AMQPMethod::RollbackOk(RollbackOk {}));
                return Ok(Progress::Done);
            };
            context.channel_mut().restore(delivered);
            context.sessions.work += 1;
        }
        Ok(Progress::Paused)
    }
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

const COMMIT: (u16, u16) = (90, 20);

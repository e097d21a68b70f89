//! `basic.ack`, `basic.nack`, `basic.reject` and `basic.recover`: deliveries are acknowledged, rejected or requeued.
//!
//! One frame may settle all deliveries of a channel. That takes a single pass over them, however many there are and
//! however full the queues are.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use amq_protocol::protocol::AMQPClass;

use crate::{
    broker::core::{
        context::{Context, Unfinished},
        deprecations::DeprecatedFeature,
        fault::{Fault, STREAMS},
        session::{
            channel::{Mode, Settle},
            unacked::Delivered,
        },
        vhost::{
            Vhost,
            consumers::Regained,
            dead_letter::Death,
            queue::{Line, RequeueReason},
        },
    },
    routing::{Progress, QueueId},
};

/// Acknowledges, rejects or requeues the delivery with a tag, or with `multiple` all deliveries up to it.
pub(crate) fn settle(
    context: &mut Context<'_>,
    delivery_tag: u64,
    multiple: bool,
    settle: Settle,
) -> Result<(), Fault> {
    let channel = context.channel_mut();
    let unknown = || Fault::unknown_delivery_tag(delivery_tag);
    let is_transaction = matches!(channel.mode, Mode::Transaction(_));
    if multiple {
        let through = channel.last_through(delivery_tag).ok_or_else(unknown)?;
        return match is_transaction {
            true => context.begin(HoldingBack { from: 0, through, settle }),
            false => context.begin(Settling::new(through, settle, NACK)),
        };
    }
    if is_transaction {
        return if channel.hold_back(delivery_tag, settle) { Ok(()) } else { Err(unknown()) };
    }
    let delivered = channel.take_one(delivery_tag).ok_or_else(unknown)?;
    let key = delivered.queue;
    let is_shared = channel.global_prefetch_count != 0;
    // The usual case: only consumers of this channel can have got credit.
    if !is_shared && settle == Settle::Ack && delivered.entry.is_some() {
        channel.release(&delivered);
        let regained = consumer_of(context, delivered.slot);
        context.vhost.acknowledged(key, regained, context.now, context.sessions);
        context.vhost.route_dead(context.now, context.sessions);
        return Ok(());
    }
    let refusal = refuse_of_streams(context.vhost, [key], settle, NACK);
    let regained = if is_shared { context.regained() } else { consumer_of(context, delivered.slot) };
    let freed = apply(context, [delivered], settle);
    let freed = with_shared_window(context, freed);
    refusal?;
    context.deliver_all(freed, regained);
    Ok(())
}

/// The consumer that a delivery was sent to. One of `basic.get` had none.
#[inline]
fn consumer_of(context: &Context<'_>, slot: Option<usize>) -> Regained {
    slot.map_or(Regained::Nobody, |slot| Regained::Consumer((context.id, context.number, slot)))
}

/// Requeues all deliveries of the channel, then sends the answer.
pub(crate) fn recover(context: &mut Context<'_>, requeue: bool, answer: Option<AMQPClass>) -> Result<(), Fault> {
    if !requeue {
        return Err(Fault::not_implemented("requeue=false"));
    }
    // None has a tag beyond the last one.
    let through = context.channel().next_tag();
    let settling = Settling { answer, ..Settling::new(through, Settle::Requeue, RECOVER) };
    context.begin(settling)
}

/// Acknowledgements that a transaction holds back until its commit.
#[derive(Debug)]
pub(crate) struct HoldingBack {
    from: u64,
    through: u64,
    settle: Settle,
}

impl Unfinished for HoldingBack {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        let max = context.sessions.work_left();
        let Some(next) = context.channel_mut().hold_back_some(self.from, self.through, self.settle, max) else {
            return Ok(Progress::Done);
        };
        context.sessions.work += max;
        self.from = next;
        Ok(Progress::Paused)
    }
}

/// All deliveries up to a tag are settled.
#[derive(Debug)]
pub(crate) struct Settling {
    from: u64,
    through: u64,
    settle: Settle,
    /// The method, in the words of a refusal.
    method: &'static str,
    /// The refusal of a stream. The deliveries are settled all the same.
    refusal: Option<Fault>,
    /// The queues to which messages were requeued.
    freed: Vec<QueueId>,
    /// Those that serve no consumer until all are requeued.
    held: BTreeSet<QueueId>,
    answer: Option<AMQPClass>,
}

impl Settling {
    fn new(through: u64, settle: Settle, method: &'static str) -> Self {
        let (freed, held) = Default::default();
        Self { from: 0, through, settle, method, refusal: None, freed, held, answer: None }
    }

    /// Delivers what the settled messages have made room for. Requeued ones are delivered in their order, so all of them
    /// have to be there.
    fn finish(&mut self, context: &mut Context<'_>) {
        context.vhost.resume_all(&mut self.held, &mut self.freed);
        if let Some(answer) = self.answer.take_if(|_| self.refusal.is_none()) {
            context.send(&answer);
        }
        let freed = with_shared_window(context, std::mem::take(&mut self.freed));
        context.deliver_all(freed, context.regained());
    }
}

impl Unfinished for Settling {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        loop {
            let max = context.sessions.work_left();
            let (taken, next) = context.channel_mut().take_some(self.from, self.through, max);
            if let Err(fault) = refuse_of_streams(context.vhost, taken.queues(), self.settle, self.method) {
                self.refusal.get_or_insert_with(|| fault.at_unless_set(NACK_IDS));
            }
            let freed = apply(context, taken.into_deliveries(), self.settle);
            self.freed.extend(freed);
            if !self.settle.requeues() || next.is_none() {
                self.finish(context);
            }
            let Some(next) = next else { break };
            self.from = next;
            if context.sessions.has_worked_enough() {
                context.vhost.hold(&mut self.freed, &mut self.held);
                return Ok(Progress::Paused);
            }
        }
        self.refusal.take().map_or(Ok(Progress::Done), Err)
    }
}

/// Settles deliveries as a committed transaction demands. Returns their queues, some of them several times.
pub(crate) fn apply_settlements(
    context: &mut Context<'_>,
    settlements: impl Iterator<Item = (Delivered, Settle)>,
) -> Vec<QueueId> {
    let mut freed = Vec::new();
    let mut rest = settlements.peekable();
    while let Some(&(_, settle)) = rest.peek() {
        let alike = std::iter::from_fn(|| Some(rest.next_if(|(_, other)| *other == settle)?.0));
        freed.extend(apply(context, alike, settle));
    }
    freed
}

/// Settles deliveries. Returns their queues, some of them several times.
fn apply(context: &mut Context<'_>, delivered: impl IntoIterator<Item = Delivered>, settle: Settle) -> Vec<QueueId> {
    let now = context.now;
    let delivered = delivered.into_iter();
    let count_max = delivered.size_hint().1.unwrap_or_default();
    let mut work = 0;
    let is_watched = settle == Settle::Requeue && context.globals.deprecations.is_some();
    let mut watched = Vec::new();
    let (vhost, channel) = context.vhost_and_channel();
    let released = delivered.inspect(|delivered| {
        work += 1;
        if is_watched {
            watched.push(delivered.queue);
        }
        channel.release(delivered);
    });
    let mut garbage = VecDeque::with_capacity(if settle.requeues() { 0 } else { count_max });
    let settled = match settle {
        Settle::Requeue => vhost.requeue_all(released, RequeueReason::Requested, now),
        Settle::RequeueFailed => vhost.requeue_all(released, RequeueReason::Rejected, now),
        Settle::Ack => vhost.settle_all(released, |_, entry| garbage.push_back(entry)),
        Settle::Reject | Settle::RejectFailed => vhost.settle_all(released, |live, mut entry| {
            entry.note_failure(settle == Settle::RejectFailed);
            if let Some(mut live) = live {
                live.bury(&entry, Death::Rejected, now);
            }
            garbage.push_back(entry);
        }),
    };
    context.sessions.work += work;
    for key in watched {
        let quorum = context.vhost.queues.get(&key).filter(|queue| queue.arguments.is_quorum);
        if let Some(name) = quorum.map(|queue| Arc::clone(&queue.name)) {
            context.deprecated(DeprecatedFeature::CountedNack, &name);
        }
    }
    // Dropping a few entries here is cheaper than moving them to the garbage.
    if garbage.len() > GARBAGE_MIN {
        context.sessions.garbage.push(Line::from(garbage));
    }
    settled
}

/// Sorts the queues of settled deliveries, and adds those that share the channel's window, which has room again.
pub(crate) fn with_shared_window(context: &mut Context<'_>, mut settled: Vec<QueueId>) -> Vec<QueueId> {
    let channel = context.channel_mut();
    if channel.global_prefetch_count == 0 {
        settled.sort_unstable();
        settled.dedup();
        return settled;
    }
    let shared = channel.consumed_queues();
    let mut others: BTreeSet<_> = settled.into_iter().collect();
    for key in &shared {
        others.remove(key);
    }
    others.into_iter().chain(shared).collect()
}

/// Refuses to reject or requeue a stream's deliveries.
fn refuse_of_streams(
    vhost: &Vhost,
    keys: impl IntoIterator<Item = QueueId>,
    settle: Settle,
    method: &str,
) -> Result<(), Fault> {
    if settle == Settle::Ack || !vhost.facts.queues.streams.refuses_requeue {
        return Ok(());
    }
    let mut last = None;
    for key in keys {
        if last.replace(key) != Some(key)
            && let Some(queue) = vhost.queues.get(&key).filter(|queue| queue.stream.is_some())
        {
            return Err(match method {
                NACK => Fault::no_stream_method(method, STREAMS, &queue.name, &vhost.name),
                _ => Fault::internal_error(),
            });
        }
    }
    Ok(())
}

/// RabbitMQ's name of the methods that streams refuse.
const NACK: &str = "basic.nack and basic.reject";
const NACK_IDS: (u16, u16) = (60, 120);
const RECOVER: &str = "basic.recover";
/// Up to this many messages are dropped under the lock.
const GARBAGE_MIN: usize = 1_000;

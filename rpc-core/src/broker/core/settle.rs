//! What becomes of deliveries: acknowledged, requeued, rejected, recovered.
//!
//! One frame may settle all that a channel holds. That is one pass over it, however much it is and whatever else is in
//! the queues.

use std::collections::VecDeque;

use super::{
    ConnectionId, Core, Fault, Now,
    channel::{Delivered, Mode, Settle},
    dead_letter::Death,
    queue::Comeback,
    vhost::QueueKey,
};

impl Core {
    /// Acknowledges, requeues or rejects.
    pub(super) fn settle(
        &mut self,
        id: ConnectionId,
        number: u16,
        delivery_tag: u64,
        multiple: bool,
        settle: Settle,
        now: Now,
    ) -> Result<(), Fault> {
        let (vhost, sessions) = self.vhost(id)?;
        let Some(channel) = sessions.channel_mut(id, number) else { return Ok(()) };
        let unknown = || Fault::unknown_delivery_tag(delivery_tag);
        if let Mode::Transaction(_) = channel.mode {
            return if channel.hold_back(delivery_tag, multiple, settle) { Ok(()) } else { Err(unknown()) };
        }
        if !multiple {
            let delivered = channel.take_one(delivery_tag).ok_or_else(unknown)?;
            let key = delivered.queue;
            let is_shared = channel.global_prefetch_count != 0;
            // The usual case: only consumers of this channel can have got credit.
            if !is_shared && settle == Settle::Ack {
                channel.release(&delivered);
                vhost.acknowledged(key, (id, number), now, sessions);
                vhost.route_dead(now, sessions);
                return Ok(());
            }
            let refusal = self.refusal(id, [key], settle, NACK);
            let freed = self.apply_all(id, number, [delivered], settle, now);
            refusal?;
            self.deliver_all(id, freed, now);
            return Ok(());
        }
        let taken = channel.take_through(delivery_tag).ok_or_else(unknown)?;
        let refusal = self.refusal(id, taken.queues(), settle, NACK);
        let freed = self.apply_all(id, number, taken.into_deliveries(), settle, now);
        self.deliver_all(id, freed, now);
        refusal
    }

    /// Streams take nothing back.
    fn refusal(
        &mut self,
        id: ConnectionId,
        keys: impl IntoIterator<Item = QueueKey>,
        settle: Settle,
        method: &str,
    ) -> Result<(), Fault> {
        if settle == Settle::Ack {
            return Ok(());
        }
        let (vhost, _) = self.vhost(id)?;
        let mut last = None;
        for key in keys {
            if last.replace(key) != Some(key)
                && let Some(queue) = vhost.queues.get(&key).filter(|queue| queue.stream.is_some())
            {
                return Err(Fault::no_stream_method(method, &queue.name, &vhost.name));
            }
        }
        Ok(())
    }

    /// Does to the queues what a transaction decided on deliveries. Returns the queues that may have something to deliver
    /// now.
    pub(super) fn apply(
        &mut self,
        id: ConnectionId,
        number: u16,
        settlements: Vec<(Delivered, Settle)>,
        now: Now,
    ) -> Vec<QueueKey> {
        let mut freed = Vec::new();
        let mut rest = settlements.into_iter().peekable();
        while let Some(&(_, settle)) = rest.peek() {
            let alike = std::iter::from_fn(|| Some(rest.next_if(|(_, other)| *other == settle)?.0));
            freed.extend(self.apply_alike(id, number, alike, settle, now));
        }
        self.freed(id, number, freed)
    }

    /// As [`Core::apply`], the same to all of them.
    fn apply_all(
        &mut self,
        id: ConnectionId,
        number: u16,
        delivered: impl IntoIterator<Item = Delivered>,
        settle: Settle,
        now: Now,
    ) -> Vec<QueueKey> {
        let freed = self.apply_alike(id, number, delivered, settle, now);
        self.freed(id, number, freed)
    }

    /// The queues that were settled for, and those that a freed window shared by the channel may serve.
    fn freed(&mut self, id: ConnectionId, number: u16, mut settled: Vec<QueueKey>) -> Vec<QueueKey> {
        settled.sort_unstable();
        settled.dedup();
        if let Some(channel) = self.sessions.channel_mut(id, number)
            && channel.global_prefetch_count != 0
        {
            let shared = channel.consumed_queues();
            settled.retain(|key| !shared.contains(key));
            settled.extend(shared);
        }
        settled
    }

    /// Returns the queues that were settled for, more or less often.
    fn apply_alike(
        &mut self,
        id: ConnectionId,
        number: u16,
        delivered: impl IntoIterator<Item = Delivered>,
        settle: Settle,
        now: Now,
    ) -> Vec<QueueKey> {
        let Ok((vhost, sessions)) = self.vhost(id) else { return Vec::new() };
        let delivered = delivered.into_iter();
        let count_max = delivered.size_hint().1.unwrap_or_default();
        let mut work = 0;
        let mut channel = sessions.channel_mut(id, number);
        let released = delivered.inspect(|delivered| {
            work += 1;
            if let Some(channel) = &mut channel {
                channel.release(delivered);
            }
        });
        let mut garbage = VecDeque::with_capacity(if settle == Settle::Requeue { 0 } else { count_max });
        let settled = match settle {
            Settle::Requeue => vhost.requeue_all(released, Comeback::Asked, now),
            Settle::Ack => vhost.settle_all(released, |_, _, entry| garbage.push_back(entry)),
            Settle::Reject => vhost.settle_all(released, |vhost, key, entry| {
                vhost.bury(key, &entry, Death::Rejected, now);
                garbage.push_back(entry);
            }),
        };
        sessions.work += work;
        // Few are dropped sooner than they are put aside.
        if garbage.len() > GARBAGE_MIN {
            sessions.garbage.push(garbage);
        }
        settled
    }

    pub(super) fn recover(
        &mut self,
        id: ConnectionId,
        number: u16,
        requeue: bool,
        now: Now,
    ) -> Result<Vec<QueueKey>, Fault> {
        if !requeue {
            return Err(Fault::not_implemented("requeue=false"));
        }
        let taken = self.channel_mut(id, number)?.take_all();
        let refusal = self.refusal(id, taken.queues(), Settle::Requeue, "basic.recover");
        let freed = self.apply_all(id, number, taken.into_deliveries(), Settle::Requeue, now);
        match refusal {
            Ok(()) => Ok(freed),
            Err(fault) => {
                self.deliver_all(id, freed, now);
                Err(fault)
            }
        }
    }
}

/// How RabbitMQ calls what streams refuse.
const NACK: &str = "basic.nack and basic.reject";
/// So many messages are dropped before others notice.
const GARBAGE_MIN: usize = 1_000;

//! RabbitMQ 4.3's `consumer_timeout`: a message of a quorum queue is taken back from a consumer that keeps it for too long.
//!
//! The consumer is sent `basic.cancel`, but stays: it is sent nothing until the client has settled all that was taken back
//! from it, or answers with `basic.cancel-ok`. Its other deliveries are left to it. The channel is closed if the client could
//! not be told otherwise: it does not know `basic.cancel`, has cancelled the consumer itself, or got the message by
//! `basic.get`.
//!
//! ```text
//!  channel: timer ──due──► deliveries that are due ──message──► their queue
//!                                   └─ an empty one stays for each, until it is settled
//! ```
//!
//! RabbitMQ sets a timer for the very millisecond, too. A channel has one timer at most, so a delivery costs an entry in a
//! heap, and one from another type of queue costs nothing.

use std::{collections::BTreeSet, time::Duration};

use crate::broker::core::{
    fault::Fault,
    interface::{ConnectionId, Now},
    session::unacked::Delivered,
    state::Core,
    vhost::{consumers::Regained, queue::RequeueReason},
};

impl Core {
    /// Takes back the messages that are due. After some work the rest stays due, so that others get the lock.
    pub(crate) fn take_back_overdue(&mut self, now: Now) {
        while !self.sessions.has_worked_enough()
            && let Some(&(at, id, number)) = self.sessions.dues.first()
            && at <= now.instant
        {
            self.sessions.work += 1;
            // A method that is done in part still needs its channel.
            if self.unfinished.get(&id).is_some_and(|busy| busy.has_rest(number)) {
                self.sessions.dues.pop_first();
                self.sessions.set_timer(id, number, now.instant.checked_add(BUSY_PAUSE));
                continue;
            }
            self.take_back(id, number, now);
        }
    }

    fn take_back(&mut self, id: ConnectionId, number: u16, now: Now) {
        let max = self.sessions.work_left();
        let Some(channel) = self.sessions.channel_mut(id, number) else {
            self.sessions.dues.pop_first();
            return;
        };
        let (taken, next) = channel.take_back(now.instant, max);
        self.sessions.dues.pop_first();
        self.sessions.set_timer(id, number, next);
        self.sessions.work += taken.len();
        let is_told = self.tell(id, number, &taken);
        self.requeue(id, number, taken, now);
        if !is_told {
            self.fail(id, number, &Fault::overdue(number, None), now);
        }
    }

    /// Sends `basic.cancel` for each consumer. Returns false if the client does not learn so of all messages.
    fn tell(&mut self, id: ConnectionId, number: u16, taken: &[Delivered]) -> bool {
        let slots: BTreeSet<_> = taken.iter().map(|delivered| delivered.slot).collect();
        let wants = self.sessions.get(id).is_some_and(|session| session.capabilities.consumer_cancel_notify);
        let mut is_told = wants || slots.is_empty();
        for slot in slots {
            let channel = self.sessions.channel_mut(id, number);
            let consumer = channel.and_then(|channel| Some(channel.consumer(slot?)?.tag.clone()));
            match consumer.filter(|_| wants) {
                Some(tag) => self.sessions.send_cancel((id, number), &tag),
                None => is_told = false,
            }
            tracing::warn!(connection = id.0, channel = number, "a delivery was not acknowledged in time");
        }
        is_told
    }

    /// Returns messages to their queues, which deliver them to others.
    fn requeue(&mut self, id: ConnectionId, number: u16, taken: Vec<Delivered>, now: Now) {
        let Some(vhost) = self.sessions.get(id).and_then(|session| self.vhosts.get_mut(session.vhost?)) else { return };
        for delivered in &taken {
            if let (Some(live), Some(slot)) = (vhost.live(delivered.queue), delivered.slot) {
                live.queue.consumers.pass_over((id, number, slot));
            }
        }
        let keys = vhost.requeue_all(taken.into_iter(), RequeueReason::Requested, now);
        vhost.deliver_all(keys, Regained::Nobody, now, &mut self.sessions);
    }
}

/// When to look again at a channel that is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

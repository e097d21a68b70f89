//! The handlers of one consumer: tasks that end by themselves, or are stopped.

use std::{collections::HashSet, future::Future, sync::Arc};

use tokio::{task::JoinHandle, time::Instant};

use super::{
    AckPolicy, Counters,
    cancel::{Cancel, Tombstones},
    consume::Desk,
    reply::{Finished, Verdict},
};
use crate::connection::{Delivery, WeakDelivery};

/// The handlers under way; dropping it aborts them.
///
/// Not a `JoinSet`: that costs an allocation, two locks and a wake-up for each task to tell which one has ended, and
/// nobody here asks.
#[derive(Default)]
pub(super) struct Handlers {
    tasks: Vec<Task>,
    /// How many tasks there may be before the ended ones are dropped.
    sweep_at: usize,
}

struct Task {
    handle: JoinHandle<()>,
    /// What it handles, by which a cancel finds it.
    delivery: WeakDelivery,
}

impl Handlers {
    pub(super) fn spawn(&mut self, delivery: WeakDelivery, handler: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() >= self.sweep_at {
            self.tasks.retain(|task| !task.handle.is_finished());
            self.sweep_at = 2 * self.tasks.len() + ENDED_HANDLERS_KEPT;
        }
        self.tasks.push(Task { handle: tokio::spawn(handler), delivery });
    }

    /// Stops the handlers of calls that were given up, and notes those whose requests are not here.
    pub(super) fn cancel(&mut self, desk: &Arc<Desk>, cancel: &Arc<Cancel>, tombstones: &mut Tombstones) {
        let mut missing: HashSet<_> = cancel.correlation_ids.iter().map(String::as_str).collect();
        for task in std::mem::take(&mut self.tasks) {
            let meant = task.delivery.upgrade().filter(|delivery| {
                delivery.reply_to() == Some(&cancel.reply_to)
                    && delivery.correlation_id().is_some_and(|id| missing.remove(id))
            });
            self.tasks.push(match meant {
                Some(delivery) => task.stop(desk, &delivery),
                None => task,
            });
        }
        let now = Instant::now();
        for correlation_id in missing {
            tombstones.bury(cancel, correlation_id, now);
        }
    }

    /// Waits for all of them. Dropping the future loses none.
    pub(super) async fn finish(&mut self) {
        while let Some(task) = self.tasks.last_mut() {
            // A handler's panic was answered; what is left is that it was aborted.
            drop((&mut task.handle).await);
            self.tasks.pop();
        }
    }

    /// Aborts all of them and waits until they are gone; says how many were still running.
    pub(super) async fn abort(&mut self) -> usize {
        let running = self.tasks.iter().filter(|task| !task.handle.is_finished()).count();
        self.tasks.iter().for_each(|task| task.handle.abort());
        self.finish().await;
        running
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.handle.abort());
    }
}

impl Task {
    /// Stops a handler whose caller has given up, unless its method forbids that; then its request is done.
    fn stop(self, desk: &Arc<Desk>, delivery: &Delivery) -> Self {
        let method = desk.lane.service.descriptor().method_for(delivery.routing_key());
        if method.is_none_or(|method| method.no_cancel) {
            return self;
        }
        let has_begun = !delivery.claim();
        if has_begun && method.is_some_and(|method| method.blocking) {
            // A thread cannot be stopped.
            return self;
        }
        self.handle.abort();
        let Self { handle, delivery: weak } = self;
        let (desk, delivery_tag) = (Arc::clone(desk), delivery.delivery_tag());
        // What it computes may go on until its next `.await`: the lane must not wait for that.
        let stopped = async move {
            if !handle.await.is_err_and(|error| error.is_cancelled()) {
                // It was done before, and is settled.
                return;
            }
            let counters = &desk.lane.counters;
            Counters::add(if has_begun { &counters.cancelled } else { &counters.expired });
            let is_settled = desk.lane.source.ack_policy == AckPolicy::BeforeHandler;
            let verdict = if is_settled { Verdict::Settled } else { Verdict::Ack };
            // Without the replier the channel is gone, and the broker redelivers.
            drop(desk.finished.send(Finished { delivery_tag, verdict, reply: None }));
        };
        Self { handle: tokio::spawn(stopped), delivery: weak }
    }
}

/// Ended handlers that may be held before they are swept.
const ENDED_HANDLERS_KEPT: usize = 64;

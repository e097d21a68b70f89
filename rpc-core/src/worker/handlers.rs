//! The handlers of one consumer: tasks that end by themselves, or are stopped.

use std::{future::Future, sync::Arc};

use tokio::task::JoinHandle;

use super::{cancel::Cancel, finished::Outcome, job::Shared, policy::AckPolicy};
use crate::{
    connection::{Delivery, WeakDelivery},
    meter::Event,
};

/// The running handlers of one consumer; dropping it aborts them.
///
/// Not a `JoinSet`: that costs an allocation, two locks and a wake-up for each task to tell which one has ended, which is
/// not needed here.
pub(super) struct Handlers {
    tasks: Vec<Task>,
    /// How many tasks there may be before the ended ones are dropped.
    sweep_at: usize,
    /// How many may not have ended.
    tasks_max: usize,
    are_too_many: bool,
}

struct Task {
    handle: JoinHandle<()>,
    /// The request, by which a cancel finds its handler.
    delivery: WeakDelivery,
}

impl Handlers {
    /// None, and room for that many at once.
    pub(super) fn new(tasks_max: usize) -> Self {
        Self { tasks: Vec::new(), sweep_at: 0, tasks_max, are_too_many: false }
    }

    pub(super) fn spawn(&mut self, delivery: WeakDelivery, handler: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() >= self.sweep_at {
            self.tasks.retain(|task| !task.handle.is_finished());
            self.sweep_at = 2 * self.tasks.len() + ENDED_HANDLERS_KEPT;
            self.are_too_many = self.tasks.len() > self.tasks_max;
        }
        self.tasks.push(Task { handle: tokio::spawn(handler), delivery });
    }

    /// Whether there were more than there may be at the last count, which is made after at most twice as many and some.
    pub(super) fn are_too_many(&self) -> bool {
        self.are_too_many
    }

    /// Stops the handlers of cancelled calls.
    pub(super) fn cancel(&mut self, shared: &Arc<Shared>, cancel: &Cancel) {
        for task in std::mem::take(&mut self.tasks) {
            let cancelled = task.delivery.upgrade().filter(|delivery| {
                delivery.reply_to() == Some(cancel.reply_to.as_bytes())
                    && cancel.is_of_user(delivery)
                    && delivery.correlation_id_bytes().is_some_and(|id| cancel.correlation_ids.contains(id))
            });
            self.tasks.push(match cancelled {
                Some(delivery) => task.stop(shared, &delivery),
                None => task,
            });
        }
    }

    /// Waits for all of them. Dropping the future loses none.
    pub(super) async fn finish(&mut self) {
        while let Some(task) = self.tasks.last_mut() {
            // An error can only mean that the task was aborted: a handler's panic is caught and answered.
            drop((&mut task.handle).await);
            self.tasks.pop();
        }
    }

    /// Aborts all of them, waits until they are gone, and returns how many were still running.
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
    /// Stops a handler whose caller has given up and settles its request, unless its method forbids that.
    fn stop(self, shared: &Arc<Shared>, delivery: &Delivery) -> Self {
        let method = shared.lane.service.descriptor().method_for(delivery.routing_key());
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
        let (shared, delivery_tag) = (Arc::clone(shared), delivery.delivery_tag());
        // In a task of its own, because a handler that computes ends at its next `.await` only, and the lane must not wait.
        let stopped = async move {
            if !handle.await.is_err_and(|error| error.is_cancelled()) {
                // The handler ended first, and has settled its request.
                return;
            }
            shared.lane.note(if has_begun { Event::Cancelled } else { Event::Expired });
            let is_acked = has_begun && shared.lane.source.ack_policy == AckPolicy::BeforeHandler;
            shared.settle(delivery_tag, if is_acked { Outcome::Settled } else { Outcome::Ack });
        };
        Self { handle: tokio::spawn(stopped), delivery: weak }
    }
}

/// Tasks of ended handlers that are kept before they are swept.
const ENDED_HANDLERS_KEPT: usize = 64;

//! One lane's consume loop: opens the consumer again when it is lost, takes deliveries, and drains at a shutdown.
//!
//! ```text
//!  queue ──deliver──► consume loop ──spawn──► handler task ──Finished──► replier
//!                          └──────────quick methods, here──────────►┘
//! ```
//!
//! The loop never waits for a handler. It runs handlers of quick methods itself (`pace.rs`), because a task would cost more
//! than the handler. When the consumer is lost (a dead connection, a deleted queue), the lane declares its queue and consumes
//! again, for ever, with backoff.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    callers::Callers,
    cancel::Cancels,
    execute::Taker,
    finished::Outcome,
    handlers::Handlers,
    job::Shared,
    lane::{Lane, LaneEnd, Phase},
    policy::AckPolicy,
    reply::send_replies,
    returns::ReturnsTask,
    source::Intake,
    stats::Counters,
};
use crate::{connection::open_again, error::Error, printable::printable, task::AbortOnDrop};

/// Serves one queue until the pool shuts down or the connection is closed for good.
pub(super) async fn run(
    lane: Lane,
    mut intake: Intake,
    mut cancels: Cancels,
    mut phase: watch::Receiver<Phase>,
) -> LaneEnd {
    let lane = Arc::new(lane);
    let mut callers = Callers::new(Instant::now());
    loop {
        let end = serve(&lane, intake, &mut cancels, &mut callers, &mut phase).await;
        let LaneEnd::Lost { reason } = end else {
            return end;
        };
        if *phase.borrow() > Phase::Serving {
            return LaneEnd::Lost { reason };
        }
        tracing::warn!(reason = %printable(&reason), "consumer lost");
        intake = tokio::select! {
            reopened = reopen(&lane) => match reopened {
                Ok(intake) => intake,
                Err(error) => return LaneEnd::Lost { reason: error.to_string() },
            },
            // A lane without a consumer holds no request that a shutdown would have to wait for.
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => return LaneEnd::Drained,
        };
        Counters::subtract(&lane.counters.lost_lanes);
        tracing::info!(queue = intake.queue, "consuming again");
    }
}

/// Declares and consumes again until it works; fails only when the connection is closed for good.
async fn reopen(lane: &Lane) -> Result<Intake, Error> {
    open_again("the consumer", || lane.source.open()).await
}

/// Serves one queue until the pool shuts down or the consumer is lost.
async fn serve(
    lane: &Arc<Lane>,
    mut intake: Intake,
    cancels: &mut Cancels,
    callers: &mut Callers,
    phase: &mut watch::Receiver<Phase>,
) -> LaneEnd {
    let (finished, inbox) = mpsc::unbounded_channel();
    let replier = AbortOnDrop::spawn(send_replies(intake.channel.clone(), Arc::clone(lane), inbox));
    let shared = Arc::new(Shared::new(Arc::clone(lane), &intake.channel, finished, phase.clone()));
    let mut handlers = Handlers::new(lane.source.tasks_max());
    // With confirms, a reply's confirm says whether the reply was returned.
    let returns = (lane.source.ack_policy != AckPolicy::AfterConfirmedReply)
        .then(|| ReturnsTask::spawn(intake.channel.returned(), Arc::clone(lane)));
    let lost = loop {
        let delivery = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break None,
            // Before deliveries, which may arrive without a pause.
            Some(cancel) = cancels.inbox.recv() => {
                handlers.cancel(&shared, &cancel);
                continue;
            }
            delivery = intake.consumer.next() => delivery,
        };
        match delivery {
            Ok(Some(delivery)) => {
                let (intake, handlers, callers) = (&mut intake, &mut handlers, &mut *callers);
                let tombstones = &*cancels.tombstones;
                Taker { shared: &shared, intake, handlers, tombstones, callers }.take_ready(delivery).await;
                if handlers.are_too_many() {
                    break Some("the broker delivers more requests than the prefetch count allows".to_owned());
                }
            }
            Ok(None) => break Some("the broker cancelled the consumer".to_owned()),
            Err(error) => {
                lane.caution.note_loss(&error);
                break Some(error.to_string());
            }
        }
    };
    let end = match lost {
        Some(reason) => {
            shared.note_loss();
            Counters::add(&lane.counters.lost_lanes);
            // The broker requeues their requests, so answers from here on could be second ones.
            handlers.abort().await;
            LaneEnd::Lost { reason }
        }
        None => drain(&shared, &mut intake, &mut handlers, phase).await,
    };
    drop(shared);
    // The replier ends with its last sender and the last reply that travels apart; it waits for nothing that outlives the channel.
    replier.join().await;
    if let Some(returns) = returns {
        returns.finish().await;
    }
    if !matches!(end, LaneEnd::Lost { .. })
        && let Err(error) = intake.channel.close().await
    {
        // `channel.close-ok` follows the replies and acks: without it the broker may not have received them.
        return LaneEnd::Lost { reason: error.to_string() };
    }
    end
}

/// Cancels the consumer, requeues the requests not begun, and waits for the handlers, until the pool aborts them.
async fn drain(
    shared: &Shared,
    intake: &mut Intake,
    handlers: &mut Handlers,
    phase: &mut watch::Receiver<Phase>,
) -> LaneEnd {
    let aborting = async {
        // An error means that the pool is gone, which aborts the lane anyway.
        drop(phase.wait_for(|phase| *phase == Phase::Aborting).await);
    };
    tokio::pin!(aborting);
    let cancelled = tokio::select! {
        cancelled = intake.channel.cancel(&intake.consumer_tag) => cancelled,
        // The broker has not answered; it requeues the requests that it still delivers when the channel closes.
        () = &mut aborting => return LaneEnd::Aborted { handlers: handlers.abort().await },
    };
    if let Err(error) = cancelled {
        return LaneEnd::Lost { reason: error.to_string() };
    }
    // No delivery follows cancel-ok, and those still in the buffer were never begun.
    while let Some(delivery) = intake.consumer.next_ready() {
        Counters::add(&shared.lane.counters.requeued);
        shared.settle(delivery.delivery_tag(), Outcome::Requeue);
    }
    tokio::select! {
        () = handlers.finish() => LaneEnd::Drained,
        () = &mut aborting => LaneEnd::Aborted { handlers: handlers.abort().await },
    }
}

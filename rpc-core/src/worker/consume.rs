//! One consumer: deliveries in, a task for each, bounded by the prefetch count.
//!
//! ```text
//!  queue ──deliver──► consume loop ──spawn──► handler task ──Finished──► replier
//!                          └─────────quick methods, here─────────►┘
//! ```
//!
//! The loop never waits for a handler. A method whose handlers end within microseconds, without waiting, is served in the
//! loop itself: a task would cost more than the handler (`pace.rs`). When the consumer is lost (a dead connection, a deleted queue), queue and
//! consumer are declared again, for ever, with the connection's backoff.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tracing::Instrument;

use super::{
    AckPolicy, Counters, Source,
    cancel::{Cancels, Tombstones},
    dedupe::Dedupe,
    dispatch::{self, Dispatch, Request, Response, Running},
    handlers::Handlers,
    pace::Pace,
    poison::{self, Sentence},
    reply::{Finished, Reply, Verdict, send_replies},
    returns::{ReturnsTask, take_returned},
    slots::{NoSlot, Slots},
};
use crate::{
    connection::{Backoff, Channel, Consumer, Delivery, WeakDelivery, transport::Settlement},
    context::Context,
    envelope::Code,
    error::Error,
};

/// What a lane is, whatever channel it runs on.
pub(super) struct Lane {
    pub(super) source: Source,
    pub(super) service: Arc<dyn Dispatch>,
    /// Handlers that may run at once, over all lanes of the pool; `None` when the prefetch counts bound them already.
    pub(super) slots: Option<Arc<Slots>>,
    pub(super) counters: Arc<Counters>,
    /// What it has answered, when it is to remember.
    pub(super) dedupe: Option<Arc<Dedupe>>,
}

impl Lane {
    /// Why a redelivered request is not to be executed.
    fn judge(&self, request: &Request) -> Option<Sentence> {
        let is_remembered = self.dedupe.as_ref().is_some_and(|dedupe| dedupe.remembers(request));
        let method = self.service.descriptor().methods.get(request.method()).filter(|_| !is_remembered)?;
        poison::judge(&self.source, method, request.context().delivery())
    }
}

/// A lane's consumer, for as long as its channel lives.
pub(super) struct Intake {
    pub(super) queue: String,
    pub(super) consumer_tag: String,
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
}

/// How far a shutdown has got, seen by every lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Take nothing new, finish what runs.
    Draining,
    /// Stop waiting for handlers.
    Aborting,
}

/// How a lane ended.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// Everything it had begun was answered and acknowledged.
    Drained,
    /// Handlers were aborted; their requests go back to the queue.
    Aborted { handlers: usize },
    /// The consumer or its channel was lost.
    Lost { reason: String },
}

/// Serves one queue until the pool shuts down or the connection is closed for good.
pub(super) async fn run(
    lane: Lane,
    mut intake: Intake,
    mut cancels: Cancels,
    mut phase: watch::Receiver<Phase>,
) -> LaneEnd {
    let lane = Arc::new(lane);
    loop {
        let end = serve(&lane, intake, &mut cancels, &mut phase).await;
        let LaneEnd::Lost { reason } = end else {
            return end;
        };
        if *phase.borrow() > Phase::Serving {
            return LaneEnd::Lost { reason };
        }
        tracing::warn!(reason, "consumer lost");
        intake = tokio::select! {
            reopened = reopen(&lane) => match reopened {
                Ok(intake) => intake,
                Err(error) => return LaneEnd::Lost { reason: error.to_string() },
            },
            // Nothing is held without a consumer: the shutdown has nothing to wait for.
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => return LaneEnd::Drained,
        };
        tracing::info!(queue = intake.queue, "consuming again");
    }
}

/// Declares and consumes again until it works; an error says that it never will.
async fn reopen(lane: &Lane) -> Result<Intake, Error> {
    let mut backoff = Backoff::new(REOPEN_DELAY_MIN, REOPEN_DELAY_MAX);
    loop {
        sleep(backoff.pause()).await;
        match lane.source.open().await {
            Ok(intake) => return Ok(intake),
            Err(error @ Error::Closed { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "could not consume again"),
        }
    }
}

/// Serves one queue until the pool shuts down or the consumer is lost.
async fn serve(
    lane: &Arc<Lane>,
    mut intake: Intake,
    cancels: &mut Cancels,
    phase: &mut watch::Receiver<Phase>,
) -> LaneEnd {
    let (finished, inbox) = mpsc::unbounded_channel();
    let replier =
        tokio::spawn(send_replies(intake.channel.clone(), lane.source.ack_policy, inbox, Arc::clone(&lane.counters)));
    let paces = lane.service.descriptor().methods.iter().map(|_| Pace::default()).collect();
    let desk = Arc::new(Desk { lane: Arc::clone(lane), finished, phase: phase.clone(), paces });
    let mut handlers = Handlers::default();
    // With confirms, what comes back comes with them.
    let returns = (lane.source.ack_policy != AckPolicy::AfterConfirmedReply)
        .then(|| ReturnsTask::spawn(intake.channel.clone(), Arc::clone(&lane.counters)));
    let lost = loop {
        let delivery = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break None,
            // Before deliveries, which may never cease.
            Some(cancel) = cancels.inbox.recv() => {
                handlers.cancel(&desk, &cancel, &mut cancels.tombstones);
                continue;
            }
            delivery = intake.consumer.next() => delivery,
        };
        match delivery {
            Ok(Some(delivery)) => {
                take_ready(&desk, &mut intake, &mut handlers, &mut cancels.tombstones, delivery).await;
            }
            Ok(None) => break Some("the broker cancelled the consumer".to_owned()),
            Err(error) => break Some(error.to_string()),
        }
    };
    let end = match lost {
        Some(reason) => {
            // Their requests are the broker's again; what they answer now may be answered twice.
            handlers.abort().await;
            LaneEnd::Lost { reason }
        }
        None => drain(&desk, &mut intake, &mut handlers, phase).await,
    };
    drop(desk);
    // Ends with the last sender: nothing in it waits longer than the channel lives.
    drop(replier.await);
    if returns.is_some() {
        take_returned(&intake.channel, &lane.counters);
    }
    if !matches!(end, LaneEnd::Lost { .. })
        && let Err(error) = intake.channel.close().await
    {
        // `channel.close-ok` comes after the replies and acks: without it they may not have arrived.
        return LaneEnd::Lost { reason: error.to_string() };
    }
    end
}

/// What the handlers of one consumer share.
pub(super) struct Desk {
    pub(super) lane: Arc<Lane>,
    /// To the replier, which ends with the desk.
    pub(super) finished: mpsc::UnboundedSender<Finished>,
    phase: watch::Receiver<Phase>,
    /// Of each method.
    paces: Box<[Pace]>,
}

/// Takes a delivery and those that came with it, which need no wake-ups of their own.
async fn take_ready(
    desk: &Arc<Desk>,
    intake: &mut Intake,
    handlers: &mut Handlers,
    tombstones: &mut Tombstones,
    first: Delivery,
) {
    let turn = Instant::now();
    let mut now = turn;
    let mut delivery = first;
    loop {
        let served = take(desk, intake, handlers, tombstones, delivery, now);
        // The clock is read once for each delivery: when it is taken, the one before has been served.
        let began = std::mem::replace(&mut now, Instant::now());
        if let Some(Served { method, has_ended }) = served {
            desk.paces[method].note(has_ended, now.saturating_duration_since(began));
        }
        if now.saturating_duration_since(turn) > TURN_MAX {
            // Replies wait, and a shutdown may.
            return tokio::task::yield_now().await;
        }
        match intake.consumer.next_ready() {
            Some(next) => delivery = next,
            None => return,
        }
    }
}

/// A handler that was begun in the consume loop.
struct Served {
    method: usize,
    has_ended: bool,
}

/// Starts the handler of a delivery, or answers it at once; says so when it was begun here.
fn take(
    desk: &Arc<Desk>,
    intake: &Intake,
    handlers: &mut Handlers,
    tombstones: &mut Tombstones,
    delivery: Delivery,
    now: Instant,
) -> Option<Served> {
    let lane = &*desk.lane;
    Counters::add(&lane.counters.received);
    let mut job = Job { delivery: delivery.clone(), ack: Verdict::Ack, desk: Arc::clone(desk) };
    if lane.source.ack_policy == AckPolicy::BeforeHandler {
        let ack = Settlement::Ack { delivery_tag: delivery.delivery_tag(), multiple: false };
        if let Err(error) = intake.channel.settle(ack) {
            tracing::debug!(%error, "could not acknowledge before the handler: it does not run");
            return None;
        }
        job.ack = Verdict::Settled;
    }
    let is_given_up = tombstones.is_given_up(&delivery, now);
    let context = Context::new(delivery, now);
    let request = match dispatch::open(&*lane.service, context) {
        Ok(request) => request,
        Err(response) => {
            job.finish(response);
            return None;
        }
    };
    if is_given_up && !lane.service.descriptor().methods[request.method()].no_cancel {
        Counters::add(&lane.counters.expired);
        job.finish(Response::NOTHING);
        return None;
    }
    if request.context().redelivered()
        && let Some(sentence) = lane.judge(&request)
    {
        // No cancel stops it: a dead letter is for others than the caller.
        handlers.spawn(WeakDelivery::default(), async move {
            let response = sentence.execute(Arc::clone(&job.desk.lane), job.delivery.clone()).await;
            job.finish(response);
        });
        return None;
    }
    let span = tracing::debug_span!(
        "handle",
        service = lane.service.descriptor().name,
        method = dispatch::method_name(&*lane.service, &request),
        redelivered = request.context().redelivered(),
    );
    let method = request.method();
    // Where handlers queue for slots, or for one another's answers, each needs a task to wait in.
    let pace = &desk.paces[method];
    if lane.slots.is_none() && lane.dedupe.is_none() && pace.is_quick() {
        // Nobody else has the delivery yet.
        job.delivery.claim();
        let here = begin_here(desk, request, &span, now);
        let has_ended = matches!(here, Here::Ended(_));
        match here {
            Here::Ended(response) => span.in_scope(|| job.finish(response)),
            Here::Waits(running) => {
                let weak = job.delivery.downgrade();
                handlers.spawn(weak, async move { job.finish(running.await) }.instrument(span));
            }
            Here::TooLate => job.requeue(),
        }
        return Some(Served { method, has_ended });
    }
    pace.calibrate(now.elapsed());
    let weak = job.delivery.downgrade();
    let handler = async move {
        // One block, with nothing kept twice: its size is the task's.
        let response = 'begun: {
            let lane = &*job.desk.lane;
            let _slot = match lane.slots.as_deref().map(|slots| (slots, slots.free())) {
                None => None,
                Some((_, Some(slot))) => Some(slot),
                Some((slots, None)) => match Box::pin(slots.wait(request.context().remaining())).await {
                    Ok(slot) => Some(slot),
                    Err(NoSlot::TooLate { estimate }) => {
                        Counters::add(&lane.counters.shed);
                        let message = format!("its turn at this worker would come in {estimate:?}, too late");
                        break 'begun Some(Response::failed(Code::Overloaded, message));
                    }
                    Err(NoSlot::Closed) => break 'begun None,
                },
            };
            if *job.desk.phase.borrow() > Phase::Serving {
                break 'begun None;
            }
            if request.context().is_expired(Instant::now()) {
                Counters::add(&lane.counters.expired);
                break 'begun Some(Response::NOTHING);
            }
            if !job.delivery.claim() {
                // A cancel was first, and counted it.
                break 'begun Some(Response::NOTHING);
            }
            if let Some(dedupe) = &lane.dedupe {
                break 'begun Some(Box::pin(dedupe.answer(&*lane.service, request, &lane.counters)).await);
            }
            Some(match dispatch::start(&*lane.service, request) {
                Ok(mut running) => {
                    let mut began = Some(Instant::now());
                    poll_fn(|cx| {
                        let polled = Pin::new(&mut running).poll(cx);
                        if let Some(began) = began.take() {
                            job.desk.paces[method].note(polled.is_ready(), began.elapsed());
                        }
                        polled
                    })
                    .await
                }
                Err(response) => response,
            })
        };
        match response {
            Some(response) => job.finish(response),
            None => job.requeue(),
        }
    };
    handlers.spawn(weak, handler.instrument(span));
    None
}

/// How far a handler came without a task.
enum Here {
    Ended(Response),
    Waits(Running),
    /// The pool is shutting down.
    TooLate,
}

/// Begins the handler of a quick method in the consume loop.
fn begin_here(desk: &Desk, request: Request, span: &tracing::Span, now: Instant) -> Here {
    let lane = &*desk.lane;
    if *desk.phase.borrow() > Phase::Serving {
        return Here::TooLate;
    }
    if request.context().is_expired(now) {
        Counters::add(&lane.counters.expired);
        return Here::Ended(Response::NOTHING);
    }
    span.in_scope(|| {
        let mut running = match dispatch::start(&*lane.service, request) {
            Ok(running) => running,
            Err(response) => return Here::Ended(response),
        };
        // If it waits after all, its task polls it again at once, and with a waker of its own.
        match Pin::new(&mut running).poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => Here::Ended(response),
            Poll::Pending => Here::Waits(running),
        }
    })
}

/// Finishes what runs and gives the rest back, in the order of guarantee 9.
async fn drain(
    desk: &Desk,
    intake: &mut Intake,
    handlers: &mut Handlers,
    phase: &mut watch::Receiver<Phase>,
) -> LaneEnd {
    let aborting = async {
        // The sender outlives the lanes; if not, nobody is left to wait for them.
        drop(phase.wait_for(|phase| *phase == Phase::Aborting).await);
    };
    tokio::pin!(aborting);
    let cancelled = tokio::select! {
        cancelled = intake.channel.cancel(&intake.consumer_tag) => cancelled,
        // The broker does not answer; what it may still deliver is its own again when the channel closes.
        () = &mut aborting => return LaneEnd::Aborted { handlers: handlers.abort().await },
    };
    if let Err(error) = cancelled {
        return LaneEnd::Lost { reason: error.to_string() };
    }
    // After cancel-ok nothing more comes; what is here was never begun.
    while let Some(delivery) = intake.consumer.next_ready() {
        Counters::add(&desk.lane.counters.requeued);
        let delivery_tag = delivery.delivery_tag();
        drop(desk.finished.send(Finished { delivery_tag, verdict: Verdict::Requeue, reply: None }));
    }
    tokio::select! {
        () = handlers.finish() => LaneEnd::Drained,
        () = &mut aborting => LaneEnd::Aborted { handlers: handlers.abort().await },
    }
}

/// A delivery on its way through a handler. Dropped unfinished (aborted), it stays unacknowledged: the broker gives
/// it to somebody else when the channel closes.
struct Job {
    delivery: Delivery,
    ack: Verdict,
    desk: Arc<Desk>,
}

impl Job {
    fn finish(self, response: Response) {
        if let Some(code) = response.error_code() {
            tracing::debug!(code, "answered with an error");
        }
        let Self { delivery, ack, desk } = self;
        let delivery_tag = delivery.delivery_tag();
        // A one-way request has no reply_to: nobody is answered, whatever happens.
        let is_wanted = delivery.reply_to().is_some_and(|reply_to| !reply_to.is_empty());
        let answer = if is_wanted { response.into_answer() } else { None };
        let reply = answer.map(|answer| Reply { delivery, answer });
        // The replier outlives the handlers; without it the channel is gone and the broker redelivers.
        drop(desk.finished.send(Finished { delivery_tag, verdict: ack, reply }));
    }

    /// Gives back what was not begun. What was acknowledged before its handler is lost: at most once means that.
    fn requeue(self) {
        let verdict = match self.ack {
            Verdict::Settled => Verdict::Settled,
            Verdict::Ack | Verdict::Requeue => Verdict::Requeue,
        };
        Counters::add(&self.desk.lane.counters.requeued);
        let delivery_tag = self.delivery.delivery_tag();
        drop(self.desk.finished.send(Finished { delivery_tag, verdict, reply: None }));
    }
}

/// How long deliveries are taken without a pause, while quick methods are served along the way.
const TURN_MAX: Duration = Duration::from_micros(500);

/// Pauses before a lost consumer is declared again.
pub(super) const REOPEN_DELAY_MIN: Duration = Duration::from_millis(50);
pub(super) const REOPEN_DELAY_MAX: Duration = Duration::from_secs(30);

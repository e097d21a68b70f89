//! Executes what `decide.rs` has decided about a delivery: in the consume loop, or in a task.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{
    callers::Callers,
    decide::{self, Arrival, Facts, Plan, Turn},
    dispatch::{Dispatch, Found, Request, Response},
    handlers::Handlers,
    job::{Job, Shared},
    lane::Lane,
    poison::Abandoned,
    running::{self, Running},
    source::Intake,
    stats::Counters,
    tombstones::Tombstones,
};
use crate::{
    connection::{Delivery, WeakDelivery},
    context::Context,
    envelope::{self, Code},
    meter::Event,
    nesting::{DEPTH_MAX, Origin, Room, Seat, Slot},
    service::ServiceDescriptor,
};

/// Takes deliveries from one consumer.
pub(super) struct Taker<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) intake: &'a mut Intake,
    pub(super) handlers: &'a mut Handlers,
    pub(super) tombstones: &'a Tombstones,
    pub(super) callers: &'a mut Callers,
}

/// A handler that was begun in the consume loop.
struct Begun {
    method: usize,
    /// Its first poll was its last.
    has_ended: bool,
}

impl Taker<'_> {
    /// Takes a delivery and those that arrived with it, which need no wake-ups of their own.
    pub(super) async fn take_ready(mut self, first: Delivery) {
        let began_at = Instant::now();
        let mut now = began_at;
        let mut delivery = first;
        loop {
            let begun = self.take(delivery, now);
            // The clock is read once for each delivery: taking it begins when the delivery before has been served.
            let began = std::mem::replace(&mut now, Instant::now());
            if let Some(Begun { method, has_ended }) = begun {
                note_pace(self.shared, method, has_ended, now.saturating_duration_since(began));
            }
            if now.saturating_duration_since(began_at) > TURN_MAX {
                // So that replies are sent, and a shutdown or a cancel is seen.
                return tokio::task::yield_now().await;
            }
            match self.intake.consumer.next_ready() {
                Some(next) => delivery = next,
                None => return,
            }
        }
    }

    /// Answers a delivery, or begins its handler; returns it if it was begun in the consume loop.
    fn take(&mut self, delivery: Delivery, now: Instant) -> Option<Begun> {
        let lane = &*self.shared.lane;
        Counters::add(&lane.counters.received);
        let losses = if delivery.redelivered() { note_redelivery(lane, &delivery) } else { 0 };
        let job = Job::new(delivery.clone(), self.shared, losses > 0);
        let is_given_up = self.tombstones.is_given_up(&delivery, now);
        let budget_ms = self.callers.budget_ms(&delivery, now);
        let context = Context::new(delivery, now, budget_ms);
        let arrival = Arrival {
            service: lane.service.descriptor(),
            redelivery: lane.source.redelivery,
            is_forbidden: !lane.source.users.takes(context.delivery()),
            context: &context,
            is_given_up,
            is_expired: context.is_expired(now),
            losses,
            dedupe: lane.dedupe.as_ref(),
            inline_paces: self.shared.inline_paces(),
        };
        match decide::on_arrival(&arrival, || self.shared.is_draining()) {
            Plan::Forbid => job.forbid(),
            Plan::Refuse(response) => job.finish(response),
            Plan::Expire => job.expire(),
            Plan::Abandon(abandoned, found) => self.abandon(job, context, abandoned, found),
            Plan::Requeue => job.requeue(),
            Plan::Inline(found) if job.try_place() => match Slot::take(&lane.room) {
                Some(slot) => return self.begin_here(job, context, found, slot),
                None => self.begin_task(job, context, found, now),
            },
            Plan::Inline(found) => self.begin_task(job, context, found, now),
            Plan::Task(found) => self.begin_task(job, context, found, now),
        }
        None
    }

    /// Answers a request that is not executed again. No cancel stops that, because its dead letter is not for the caller.
    #[cold]
    fn abandon(&mut self, job: Job, context: Context, abandoned: Abandoned, found: Found) {
        let method = found.method;
        self.handlers.spawn(WeakDelivery::default(), async move {
            let (job, context) = match answered_by_store(job, context, found).await {
                Ok(()) => return,
                Err(unanswered) => unanswered,
            };
            let lane = Arc::clone(&job.shared.lane);
            lane.note_refusal(method, Code::Abandoned);
            let response = abandoned.execute(lane, context.delivery()).await;
            job.finish(response);
        });
    }

    /// Begins the handler of a quick method in the consume loop. One that waits is moved to a task.
    fn begin_here(&mut self, job: Job, context: Context, found: Found, slot: Slot) -> Option<Begun> {
        // Always granted: no cancel can find the delivery before this.
        context.delivery().claim();
        let method = found.method;
        if !job.begin(method) {
            return None;
        }
        let span = handler_span(job.shared.lane.service.descriptor(), &context, method);
        let request = Request::new(context, found);
        let lane = &*job.shared.lane;
        let seat = seat(&lane.room, &lane.counters, slot, &request);
        match span.in_scope(|| first_poll(&*job.shared.lane.service, request, seat)) {
            FirstPoll::Ended(response) => {
                span.in_scope(|| job.finish(response));
                Some(Begun { method, has_ended: true })
            }
            FirstPoll::Waits(running) => {
                let weak = job.weak_delivery();
                self.handlers.spawn(weak, async move { job.finish(running.await) }.instrument(span));
                Some(Begun { method, has_ended: false })
            }
        }
    }

    /// Gives a request a task, in which it waits for a slot and its handler runs.
    fn begin_task(&mut self, job: Job, context: Context, found: Found, now: Instant) {
        let span = handler_span(job.shared.lane.service.descriptor(), &context, found.method);
        job.shared.paces[found.method].calibrate(now.elapsed());
        let weak = context.delivery().downgrade();
        self.handlers.spawn(weak, run_at_turn(job, Request::new(context, found)).instrument(span));
    }
}

/// Counts it; returns how often the broker has closed the lane's channel while the request was here.
#[cold]
fn note_redelivery(lane: &Lane, delivery: &Delivery) -> u32 {
    lane.note(Event::Redelivered);
    lane.caution.losses(delivery)
}

/// Answers a request from the store of answers, if that has its answer.
async fn answered_by_store(job: Job, context: Context, found: Found) -> Result<(), (Job, Context)> {
    let lane = &job.shared.lane;
    let Some(dedupe) = &lane.dedupe else { return Err((job, context)) };
    if !dedupe.is_stored(found.method, &context).await {
        return Err((job, context));
    }
    run_at_turn(job, Request::new(context, found)).await;
    Ok(())
}

#[inline]
pub(super) fn handler_span(service: &ServiceDescriptor, context: &Context, method: usize) -> Span {
    tracing::debug_span!(
        "handle",
        service = service.name,
        method = service.methods[method].name,
        redelivered = context.redelivered(),
        attempt = context.attempt(),
    )
}

/// Notes how long a handler's first poll took, and warns of one that kept its thread busy for long.
fn note_pace(shared: &Shared, method: usize, has_ended: bool, took: Duration) {
    shared.paces[method].note(has_ended, took);
    if took >= BUSY_MIN {
        let service = shared.lane.service.descriptor();
        let method = service.methods[method].name;
        tracing::warn!(
            service = service.name,
            method,
            ?took,
            "a handler kept its thread busy, and with it whatever runs there, heartbeats too: mark the method #[rpc(blocking)]"
        );
    }
}

/// A handler after its first poll.
enum FirstPoll {
    Ended(Response),
    Waits(Running),
}

#[inline]
fn first_poll(service: &dyn Dispatch, request: Request, seat: Seat) -> FirstPoll {
    let mut running = match running::start(service, request, seat) {
        Ok(running) => running,
        Err(response) => return FirstPoll::Ended(response),
    };
    // A handler that waits is polled again at once by its task, with a waker of its own.
    match Pin::new(&mut running).poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => FirstPoll::Ended(response),
        Poll::Pending => FirstPoll::Waits(running),
    }
}

/// Where the handler of this request stands among calls.
fn origin(room: &Room, request: &Request) -> Origin {
    let is_retry = request.is_retry();
    if !room.is_nested() {
        return Origin { depth: 0, is_retry };
    }
    let depth = request.context().header(envelope::DEPTH_HEADER).and_then(|depth| depth.as_i64()).unwrap_or(1);
    Origin { depth: u32::try_from(depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX), is_retry }
}

/// The seat of a handler, whose calls inherit headers of its request. Most requests have none to look at.
pub(super) fn seat(room: &Room, counters: &Counters, slot: Slot, request: &Request) -> Seat {
    let mut seat = Seat::new(slot, origin(room, request));
    if request.has_headers() {
        forward(counters, request.context(), &mut seat);
    }
    seat
}

#[cold]
fn forward(counters: &Counters, context: &Context, seat: &mut Seat) {
    seat.forward(counters.forwarding.of(context.delivery()));
}

fn overloaded(estimate: Duration) -> Response {
    let message = format!("the expected wait of {estimate:?} at this worker exceeds the call's remaining time");
    Response::failed(Code::Overloaded, message)
}

/// Waits for a slot, runs the handler and answers.
///
/// Not an `async fn`, and one block: its size is that of the task, and an argument moved by an `async fn` is held twice.
#[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice")]
fn run_at_turn(job: Job, request: Request) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let response = {
            let lane = &*job.shared.lane;
            if let Some(at_most_once) = job.lacks_place() {
                Box::pin(at_most_once.place()).await;
                job.note_place();
            }
            let (slot, denied) = match Slot::take(&lane.room) {
                Some(slot) => (Some(slot), None),
                None => match Box::pin(Slot::wait(&lane.room, request.context().remaining())).await {
                    Ok(slot) => (Some(slot), None),
                    Err(too_late) => (None, Some(too_late)),
                },
            };
            let seat = slot.map(|slot| seat(&lane.room, &lane.counters, slot, &request)).unwrap_or_default();
            let facts = Facts {
                is_draining: job.shared.is_draining(),
                is_expired: request.context().is_expired(Instant::now()),
                // Behind layers the service asks it.
                dedupe: lane.dedupe.as_ref().filter(|_| !lane.has_layers),
            };
            match decide::at_turn(denied, facts, || request.context().delivery().claim()) {
                Turn::Requeue => None,
                Turn::Shed { estimate } => {
                    lane.note(Event::Shed);
                    lane.note_refusal(request.method(), Code::Overloaded);
                    Some(overloaded(estimate))
                }
                Turn::Expire => {
                    lane.note(Event::Expired);
                    Some(Response::NONE)
                }
                Turn::Cancelled => Some(Response::NONE),
                // The channel is gone, and with it the request.
                Turn::Deduplicate(_) | Turn::Run if !job.begin(request.method()) => None,
                Turn::Deduplicate(dedupe) => {
                    let answer = |request| dedupe.dispatch(&lane.service, &lane.counters, request);
                    Some(match running::start_with(answer, request, seat) {
                        Ok(running) => running.await,
                        Err(response) => response,
                    })
                }
                Turn::Run => {
                    let method = request.method();
                    Some(match running::start(&*lane.service, request, seat) {
                        Ok(mut running) => {
                            let mut is_first = true;
                            poll_fn(|cx| {
                                // Not an `Option` of the time, which would be kept, and make the task larger.
                                let began = std::mem::take(&mut is_first).then(Instant::now);
                                let polled = Pin::new(&mut running).poll(cx);
                                if let Some(began) = began {
                                    note_pace(&job.shared, method, polled.is_ready(), began.elapsed());
                                }
                                polled
                            })
                            .await
                        }
                        Err(response) => response,
                    })
                }
            }
        };
        match response {
            Some(response) => job.finish(response),
            None => job.requeue(),
        }
    }
}

/// Half of the default heartbeat. A broker waits for two heartbeats.
const BUSY_MIN: Duration = Duration::from_secs(5);
/// How long deliveries are taken without a pause while handlers run in the consume loop.
const TURN_MAX: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size_of<A, B, F>(_: fn(A, B) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        // Every request that gets a task allocates this much, and copies it twice.
        assert!(size_of(run_at_turn) <= 320, "{} bytes", size_of(run_at_turn));
    }
}

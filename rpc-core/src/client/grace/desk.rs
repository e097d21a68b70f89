//! [`Desk`]: the board of a service, and the task that looks while its calls wait.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{sleep_until, timeout},
};
use tracing::Instrument;

use super::{
    board::{Board, Consequences, Decision, Whereabouts},
    eye::Eye,
    pace::INTERVAL_MIN,
};
use crate::{
    client::counters::Counters,
    connection::Connection,
    layer::{Latencies, LogicalCall},
    lock::lock,
    meter::{Event, Of},
    printable::printable,
    task::AbortOnDrop,
};

/// Those of a client: as many as it calls services.
#[derive(Debug)]
pub(in crate::client) struct Desks {
    connection: Connection,
    pub(super) counters: Arc<Counters>,
    /// How long the calls of each method take.
    latencies: Latencies,
    desks: Mutex<HashMap<&'static str, Arc<Desk>>>,
    /// The client is shut down: no call waits for a look.
    is_closed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Desk {
    shared: Arc<Shared>,
    /// It ends when no call waits any more.
    task: Mutex<Option<AbortOnDrop>>,
}

#[derive(Debug)]
struct Shared {
    service: &'static str,
    state: Mutex<State>,
    /// Wakes the task earlier than it meant to.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    board: Board,
    /// Until when the task sleeps.
    sleeps_until: Option<Instant>,
    /// The number of the task that runs.
    task: Option<u64>,
    tasks: u64,
}

impl Desks {
    pub(in crate::client) fn new(connection: Connection, counters: Arc<Counters>) -> Self {
        Self {
            connection,
            counters,
            latencies: Latencies::default(),
            desks: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Sends the calls that wait for a look, and all later ones at once.
    pub(in crate::client) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let desks: Vec<_> = lock(&self.desks).values().cloned().collect();
        for desk in desks {
            let wakers = lock(&desk.shared.state).board.release(clock());
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Takes a call in, which is nested if a handler makes it; `None` once the client is shut down.
    pub(super) fn enter(&self, call: &LogicalCall, grace: Duration, is_nested: bool) -> Option<Seat> {
        if self.is_closed() {
            return None;
        }
        let usual = self.latencies.p95(call.method.routing_key).unwrap_or_else(|| grace.min(USUAL));
        let whereabouts = Whereabouts { service: call.service, method_queue: call.method.queue, is_nested };
        let service = call.service.name;
        let desk = Arc::clone(lock(&self.desks).entry(service).or_insert_with(|| Arc::new(Desk::new(service))));
        let (now, mut state) = (clock(), lock(&desk.shared.state));
        let id = state.board.enter(whereabouts, grace, usual.max(INTERVAL_MIN), now);
        let due = state.board.look_for(id, now);
        let spawns = state.task.is_none() && due.is_some();
        if spawns {
            state.tasks += 1;
            state.task = Some(state.tasks);
        } else if due.zip(state.sleeps_until).is_some_and(|(due, until)| due < until) {
            desk.shared.wanted.notify_one();
        }
        let number = state.tasks;
        drop(state);
        if spawns {
            self.spawn(&desk, number);
        }
        let seat = Seat { desk, id };
        // It may have come a moment too late to be sent with the others.
        (!self.is_closed()).then_some(seat)
    }

    fn spawn(&self, desk: &Desk, number: u64) {
        let Desk { shared, task } = desk;
        let running = Running { shared: Arc::clone(shared), number };
        if Handle::try_current().is_err() {
            return;
        }
        let eye = Eye::new(self.connection.clone(), shared.service);
        let span = tracing::debug_span!("grace", service = shared.service);
        let looking = running.look_while_calls_wait(eye, Arc::clone(&self.counters)).instrument(span);
        *lock(task) = Some(AbortOnDrop::spawn(looking));
    }

    pub(super) fn note_time(&self, call: &LogicalCall, took: Duration) {
        self.latencies.note(call.method.routing_key, took);
    }
}

impl Desk {
    fn new(service: &'static str) -> Self {
        let shared = Shared { service, state: Mutex::default(), wanted: Notify::new() };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }
}

/// A call that waits; dropping it takes it out.
pub(super) struct Seat {
    desk: Arc<Desk>,
    id: u64,
}

impl Seat {
    /// Whether a look is to say first whether the call is sent.
    pub(super) fn is_held(&self) -> bool {
        self.state(|state| state.board.is_held(self.id))
    }

    /// Waits until looks have said how a call that is held goes on; it is sent when they do not.
    pub(super) async fn decided(&self) -> Decision {
        loop {
            let begun_at = clock();
            match timeout(UNHEARD_LIMIT, poll_fn(|cx| self.state(|state| state.board.poll_held(self.id, cx.waker()))))
                .await
            {
                Ok(decision) => return decision,
                // The task is another runtime's, which may stand still.
                Err(_) if self.state(|state| state.board.looked_at()) < Some(begun_at) => return Decision::Send,
                Err(_) => {}
            }
        }
    }

    /// Ready when the call, which was sent, is to be ended.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        self.state(|state| state.board.poll_sent(self.id, cx.waker()))
    }

    /// Notes that the service has replied.
    pub(super) fn note_reply(&self) {
        self.state(|state| state.board.leave(self.id, true, clock()));
    }

    fn state<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut lock(&self.desk.shared.state))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_over = self.state(|state| {
            let now = clock();
            state.board.leave(self.id, false, now);
            state.board.is_empty() && state.sleeps_until.is_some_and(|until| until > now + SLEEP_MAX)
        });
        if is_over {
            self.desk.shared.wanted.notify_one();
        }
    }
}

/// The task of a desk. However it ends, the next call that waits starts another one.
struct Running {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if state.task == Some(self.number) {
            state.task = None;
        }
    }
}

impl Running {
    async fn look_while_calls_wait(self, mut eye: Eye, counters: Arc<Counters>) {
        let shared = &self.shared;
        loop {
            let now = clock();
            let next = {
                let mut state = lock(&shared.state);
                state.sleeps_until = state.board.next_look(now);
                if state.sleeps_until.is_none() {
                    state.task = None;
                }
                state.sleeps_until
            };
            let Some(next) = next else { return };
            if next > now {
                tokio::select! {
                    () = sleep_until(next.into()) => {}
                    () = shared.wanted.notified() => {}
                }
                continue;
            }
            let queues = lock(&shared.state).board.queues();
            counters.note(Event::Looked, Of::Service(shared.service));
            let look = eye.look(queues).await;
            let consequences = lock(&shared.state).board.note(look, clock());
            shared.draw(consequences);
        }
    }
}

impl Shared {
    fn draw(&self, consequences: Consequences) {
        let (service, Consequences { wakers, deserted, served, denied }) = (self.service, consequences);
        for queues in deserted {
            tracing::warn!(service, queues, "no worker is there: calls end before their deadlines");
        }
        for queues in served {
            tracing::warn!(service, queues, "workers are there again");
        }
        if let Some(error) = denied {
            let error = error.to_string();
            tracing::warn!(
                service,
                error = %printable(&error),
                "the user may not look at the queues of the service: its calls wait until their deadlines"
            );
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// By tokio's clock, which tests pause.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The usual time of a method that was not called often enough to know it.
const USUAL: Duration = Duration::from_millis(100);
/// The task sleeps no longer for no call.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Looks are a second apart at most, and each ends after two.
const UNHEARD_LIMIT: Duration = Duration::from_secs(4);

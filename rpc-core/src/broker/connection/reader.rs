//! Reads frames, and hands them to the core in batches.

use std::{future::ready, pin::pin, sync::atomic::Ordering, time::Duration};

use tokio::{
    io::AsyncRead,
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::{input::Input, load::Load, waiting::Waiting};
use crate::{
    broker::{
        core::{ConnectionId, Core, Flow},
        seats::Seat,
        shared::{Outbox, Shared},
    },
    wire::Decoder,
};

pub(super) struct Reader<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: ConnectionId,
    pub(super) outbox: &'a Outbox,
    pub(super) seat: &'a Seat,
    pub(super) handshake_deadline: Instant,
}

/// The state of a connection, as its reader knows it.
struct State {
    decoder: Decoder,
    waiting: Waiting,
    load: Load,
    /// Whether some of its channels wait for the rest of a method.
    is_unfinished: bool,
}

impl Reader<'_> {
    /// Reads, decodes and handles until the connection ends. No frame of the handshake is larger than the least frame that a
    /// client may negotiate, which bounds the memory that unauthenticated clients can take.
    pub(super) async fn run<R: AsyncRead + Unpin>(&self, reading: &mut R, mut input: Input) -> Flow {
        let mut timed = Waiting::Handshake { deadline: self.handshake_deadline };
        let (decoder, load) = (Decoder::new(self.shared.facts.frame_min), Load::default());
        let mut state = State { decoder, waiting: timed, load, is_unfinished: false };
        let mut last_read = Instant::now();
        let mut timer = pin!(sleep_until(self.handshake_deadline));
        let mut stopping = self.shared.stopping();
        let mut stopped = pin!(stopping.wait());
        let mut is_stopping = false;
        loop {
            // A blocked publisher is not read, except for its answer to our `connection.close`.
            let is_held = || self.outbox.traffic.is_held.load(Ordering::Relaxed) && !is_stopping;
            if state.is_unfinished || !is_held() {
                match self.handle_in_turn(&mut state, &mut input).await {
                    // Frames of channels that wait for nothing are read and handled between two pieces.
                    Flow::Continue | Flow::Unfinished(_) => {}
                    Flow::Paused(_) if is_held() => {}
                    Flow::Paused(_) => continue,
                    flow => return flow,
                }
            }
            if state.waiting != timed {
                timer.as_mut().reset(state.waiting.deadline(last_read));
                timed = state.waiting;
            }
            // More input would only cause more output, which this client does not read.
            let is_choked = self.outbox.traffic.backlog.load(Ordering::Relaxed) > self.shared.outbox.choke_bytes;
            let is_held = is_held();
            let is_full = input.has_unhandled();
            tokio::select! {
                biased;
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    self.shared.with(|core, now| core.shut_down_one(self.id, now));
                    state.waiting = Waiting::Close { deadline: Instant::now() + STOPPING_TIMEOUT };
                }
                read = input.read(reading), if !is_choked && !is_held && !is_full => match read {
                    Ok(0) => return Flow::Close,
                    Ok(_) => last_read = Instant::now(),
                    Err(error) => {
                        self.end(&format!("cannot read from the client: {error}"));
                        return Flow::Close;
                    }
                },
                () = self.outbox.drained.notified(), if is_choked || is_held => {}
                // Reset only when it fires: resetting a timer costs much more than a read.
                () = &mut timer => {
                    // As in RabbitMQ, a client that is not read may be silent.
                    if is_held || is_full {
                        last_read = Instant::now();
                    }
                    let deadline = state.waiting.deadline(last_read);
                    if deadline <= Instant::now() {
                        self.end("the client was silent for too long");
                        return Flow::Close;
                    }
                    timer.as_mut().reset(deadline);
                }
                () = ready(()), if state.is_unfinished => {}
            }
            if let Waiting::Close { deadline } = state.waiting
                && deadline <= Instant::now()
            {
                return Flow::Close;
            }
        }
    }

    /// Notes for the log why the connection ends.
    fn end(&self, reason: &str) {
        self.shared.with(|core, _| core.note_end(self.id, reason));
    }

    /// Hands over whole frames, and lets others go on before the next batch: other connections need the lock, too.
    async fn handle_in_turn(&self, state: &mut State, input: &mut Input) -> Flow {
        let turn = if state.load.is_busy() { self.shared.turn().await } else { None };
        let flow = self.handle(state, input);
        state.is_unfinished = matches!(flow, Flow::Unfinished(_));
        if matches!(flow, Flow::Paused(_) | Flow::Unfinished(_)) {
            yield_now().await;
        }
        // Only now: the runtime looks for input of others when all tasks that can run have run.
        drop(turn);
        flow
    }

    /// Hands over all whole frames, in batches that take the lock once each; of a busy connection only one.
    fn handle(&self, state: &mut State, input: &mut Input) -> Flow {
        let State { decoder, waiting, load, .. } = state;
        loop {
            // `tune-ok` changes how the next frame is decoded, so the handshake is handled frame by frame.
            let frames_max = if matches!(waiting, Waiting::Handshake { .. }) { 1 } else { BATCH_FRAMES };
            let Some((batch, error)) = input.next(decoder, frames_max) else { return Flow::Continue };
            let work = |core: &mut Core, now| {
                let flow = core.batch(self.id, &batch, error.as_ref(), now);
                (flow, core.negotiated(self.id), core.work())
            };
            let (flow, negotiated, work) = match load.is_busy() {
                true => self.shared.with_in_turn(work),
                false => self.shared.with(work),
            };
            load.note(work);
            if let Flow::Paused(bytes) | Flow::Unfinished(bytes) = flow {
                input.unhandled = Some((batch.end(bytes), error));
            }
            if flow != Flow::Continue {
                return flow;
            }
            if let Some(negotiated) = negotiated {
                decoder.set_frame_max(negotiated.frame_max);
                if waiting.follow(&negotiated) {
                    self.seat.settle();
                }
            }
            if load.is_busy() {
                return Flow::Paused(0);
            }
        }
    }
}

/// Bounds the frames handled under one lock, so that no other connection waits long for it.
const BATCH_FRAMES: usize = 512;
/// How long a client has to answer our `connection.close` when the broker stops; `shutdown` waits for it.
const STOPPING_TIMEOUT: Duration = Duration::from_millis(800);

//! Methods that take longer than other connections may wait for the lock.
//!
//! Such a method is done in pieces. Its channel's further frames wait for the last piece, so that nothing overtakes it; other
//! channels and other connections have the lock in between. A method whose connection ends meanwhile is still done to its
//! end, and so are the frames behind it.
//!
//! ```text
//!  method ──► Context::begin ──all done──► answer
//!                   └─rest──► Busy ◄──a piece── batch of the connection, or tick if its socket has gone
//!  frames behind it ─────────► Busy ◄──when it is done──┘
//! ```

use std::time::Duration;

use amq_protocol::protocol::AMQPClass;

use crate::{
    broker::core::{
        busy::Busy,
        context::{Context, Unfinished},
        fault::Fault,
        interface::{ConnectionId, Flow, Now},
        session::{Session, Stage},
        state::Core,
        vhost::consumers::Leaving,
    },
    routing::{Progress, QueueId},
    wire::Batch,
};

impl Core {
    /// Whether some of a connection's channels wait for the rest of a method.
    #[inline]
    pub(crate) fn has_unfinished(&self, id: ConnectionId) -> bool {
        !self.unfinished.is_empty() && self.unfinished.contains_key(&id)
    }

    /// Whether a channel's frames have to wait. Those of a connection that ends are not for its channels any more.
    pub(crate) fn waits(&self, id: ConnectionId, number: u16) -> bool {
        self.unfinished.get(&id).is_some_and(|busy| busy.waits(number)) && self.is_open(id)
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        self.sessions.get(id).is_some_and(|session| session.stage == Stage::Open)
    }

    /// Sets frames aside until their channel goes on.
    pub(crate) fn set_aside(&mut self, id: ConnectionId, number: u16, frames: &[u8]) {
        self.unfinished.entry(id).or_default().set_aside(number, frames, &self.globals.memory);
    }

    /// Whether no more of a connection's frames are handled, because so many are set aside.
    pub(crate) fn is_full(&self, id: ConnectionId) -> bool {
        self.unfinished.get(&id).is_some_and(Busy::is_full)
    }

    /// Goes on with the channels of a connection that wait, before a batch. Returns whether the batch may be handled now.
    #[cold]
    pub(crate) fn go_on_before(&mut self, batch: &Batch, id: ConnectionId, now: Now) -> bool {
        // The share of the channels that do not wait.
        let share = if batch.is_empty() { 0 } else { self.sessions.work_max / 2 };
        self.sessions.work = share;
        self.go_on(id, now);
        self.sessions.work = self.sessions.work.saturating_sub(share).min(share);
        !self.is_full(id) && !self.sessions.get(id).is_some_and(Session::is_held)
    }

    /// Goes on with the channels of a connection that wait, one after another, until one of them pauses.
    pub(crate) fn go_on(&mut self, id: ConnectionId, now: Now) -> Progress {
        while let Some(number) = self.unfinished.get_mut(&id).and_then(Busy::next_turn) {
            let progress = self.go_on_with(id, number, now);
            self.settle(id, number);
            if progress == Progress::Paused || self.sessions.has_worked_enough() {
                break;
            }
        }
        if self.has_unfinished(id) { Progress::Paused } else { Progress::Done }
    }

    /// Goes on with a channel: with the rests of its methods, then with its frames.
    fn go_on_with(&mut self, id: ConnectionId, number: u16, now: Now) -> Progress {
        loop {
            if self.finish_methods(id, number, now) == Progress::Paused {
                return Progress::Paused;
            }
            let Some(frames) = self.unfinished.get_mut(&id).and_then(|busy| busy.take_frames(number)) else {
                return Progress::Done;
            };
            if self.handle_late(id, number, &frames, now) == Progress::Paused {
                return Progress::Paused;
            }
        }
    }

    /// Goes on with the methods of a channel, without the frames behind them.
    fn finish_methods(&mut self, id: ConnectionId, number: u16, now: Now) -> Progress {
        while let Some(mut rest) = self.unfinished.get_mut(&id).and_then(|busy| busy.take_rest(number)) {
            let vhost = self.sessions.get(id).and_then(|session| self.vhosts.get_mut(session.vhost?));
            let Some(vhost) = vhost else { continue };
            let (sessions, globals, unfinished) = (&mut self.sessions, &mut self.globals, &mut self.unfinished);
            let mut context = Context { id, number, now, vhost, sessions, globals, unfinished };
            match rest.go_on(&mut context) {
                Ok(Progress::Done) => {}
                Ok(Progress::Paused) => {
                    self.unfinished.entry(id).or_default().push_front(number, rest);
                    return Progress::Paused;
                }
                Err(fault) => self.fail(id, number, &fault, now),
            }
        }
        Progress::Done
    }

    /// Handles frames that were set aside. Those that pause are put back.
    fn handle_late(&mut self, id: ConnectionId, number: u16, batch: &Batch, now: Now) -> Progress {
        let mut frames = batch.frames();
        loop {
            let left = frames.bytes_left();
            let Some(frame) = frames.next() else { return Progress::Done };
            let was_open = self.is_open(id);
            let flow = match was_open {
                true => self.next(id, &frame, &mut frames, now),
                false => self.late_frame(id, &frame, now),
            };
            let left = match flow {
                Flow::Continue if was_open == self.is_open(id) => frames.bytes_left(),
                Flow::Paused(_) => left,
                // Nothing is handled behind a connection error, on its channel.
                flow => {
                    if let Some(session) = self.sessions.get_mut(id).filter(|_| was_open && flow == Flow::Close) {
                        session.is_silenced = true;
                    }
                    self.forget_frames(id, number);
                    return Progress::Done;
                }
            };
            if flow != Flow::Continue || self.sessions.has_worked_enough() {
                self.unfinished.entry(id).or_default().put_back(number, batch.end(left));
                return Progress::Paused;
            }
        }
    }

    /// Runs the end of a channel that was just closed, or the end of the connection when no channel waits. Both may pause.
    pub(crate) fn go_on_to_end(&mut self, id: ConnectionId, number: u16, now: Now) -> Progress {
        let may_end = self.unfinished.get(&id).is_some_and(|busy| number != 0 || busy.may_end());
        let is_done = may_end && self.finish_methods(id, number, now) == Progress::Done;
        self.settle(id, number);
        if is_done { Progress::Done } else { Progress::Paused }
    }

    fn settle(&mut self, id: ConnectionId, number: u16) {
        let Some(busy) = self.unfinished.get_mut(&id) else { return };
        busy.settle(number);
        if busy.is_empty() {
            self.unfinished.remove(&id);
        }
    }

    /// Drops the frames that a channel was to go on with.
    pub(crate) fn forget_frames(&mut self, id: ConnectionId, number: u16) {
        if let Some(busy) = self.unfinished.get_mut(&id) {
            busy.forget(number);
        }
        self.settle(id, number);
    }

    /// As [`Core::forget_frames`], for all channels of a connection.
    pub(crate) fn forget_all_frames(&mut self, id: ConnectionId) {
        if let Some(busy) = self.unfinished.get_mut(&id) {
            busy.forget_all();
        }
        self.settle(id, 0);
    }

    /// Lets time go on with what a connection has left, because no frame of its client may do so.
    pub(crate) fn leave_behind(&mut self, id: ConnectionId, now: Now) {
        if let Some(session) = self.sessions.get_mut(id)
            && !std::mem::replace(&mut session.is_behind, true)
        {
            self.sessions.behind.push_back((id, now.instant));
        }
    }

    /// Goes on with what no frame of a client drives: its socket has gone, or its channel was closed by the broker.
    pub(crate) fn go_on_behind(&mut self, now: Now) {
        while !self.sessions.has_worked_enough()
            && let Some((id, since)) = self.sessions.behind.pop_front()
        {
            let is_gone = self.sessions.get(id).is_some_and(|session| session.is_gone);
            if is_gone && now.instant.duration_since(since) >= FRAMES_OF_GONE_TIMEOUT {
                self.forget_all_frames(id);
            }
            let progress = self.go_on(id, now);
            self.sessions.flush_confirms(id, now);
            if progress == Progress::Paused {
                self.sessions.behind.push_back((id, since));
                return;
            }
            match self.sessions.get_mut(id) {
                Some(session) if !is_gone => session.is_behind = false,
                _ => self.remove(id),
            }
        }
    }

    /// Forgets a connection that has left nothing.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if let Some(vhost) = self.vhost_of(id) {
            vhost.forget_searches(id, 0..=u16::MAX);
        }
        self.sessions.remove(id);
    }
}

#[cfg(any(test, fuzzing))]
impl Core {
    /// Does all that only time would go on with.
    pub(crate) fn finish_behind(&mut self, now: Now) {
        let mut is_done = false;
        while !is_done {
            self.sessions.work = 0;
            self.go_on_behind(now);
            is_done = self.sessions.behind.is_empty();
            for vhost in &mut self.vhosts {
                is_done &= vhost.sweep(now, &mut self.sessions) == Progress::Done;
            }
        }
    }
}

/// A queue, an exchange or a binding is deleted, with all that goes with it.
#[derive(Debug)]
pub(crate) struct Deletion {
    /// Sent when the bindings are removed. A client may not expect a `basic.cancel` for its consumers before it.
    pub(crate) answer: Option<AMQPClass>,
    /// The consumers of the queue.
    pub(crate) consumers: Option<(QueueId, Leaving)>,
}

impl Unfinished for Deletion {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        if context.vhost.sweep_bindings(context.now, context.sessions) == Progress::Paused {
            return Ok(Progress::Paused);
        }
        if let Some(answer) = self.answer.take() {
            context.send(&answer);
        }
        if let Some((key, consumers)) = self.consumers.take() {
            context.vhost.cancel_all(key, consumers);
        }
        Ok(context.vhost.sweep(context.now, context.sessions))
    }
}

/// How long frames of a connection whose socket has gone are still handled. As in RabbitMQ (`channel_termination_timeout`).
const FRAMES_OF_GONE_TIMEOUT: Duration = Duration::from_secs(15);

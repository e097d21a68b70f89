//! Methods that take longer than other connections may wait for the lock.
//!
//! Such a method is done in pieces. Its connection's further frames wait for the last piece, so that nothing overtakes it;
//! others have the lock in between. A method whose connection ends meanwhile is still done to its end.
//!
//! ```text
//!  method ──► Context::begin ──all done──► answer
//!                   └─rest──► Core::unfinished ◄──a piece── batch of the connection, or tick if its socket has gone
//! ```

use amq_protocol::protocol::AMQPClass;

use crate::{
    broker::core::{
        context::{Context, Unfinished},
        fault::Fault,
        interface::{ConnectionId, Now},
        state::Core,
        vhost::consumers::Leaving,
    },
    routing::{Progress, QueueId},
};

impl Core {
    /// Goes on with the methods that a connection has left unfinished.
    #[inline]
    pub(crate) fn go_on(&mut self, id: ConnectionId, now: Now) -> Progress {
        if self.unfinished.is_empty() { Progress::Done } else { self.go_on_with_rest(id, now) }
    }

    #[cold]
    fn go_on_with_rest(&mut self, id: ConnectionId, now: Now) -> Progress {
        while let Some((number, mut rest)) = self.next_unfinished(id) {
            let vhost = self.sessions.get(id).and_then(|session| self.vhosts.get_mut(session.vhost?));
            let Some(vhost) = vhost else { continue };
            let (sessions, globals, unfinished) = (&mut self.sessions, &mut self.globals, &mut self.unfinished);
            let mut context = Context { id, number, now, vhost, sessions, globals, unfinished };
            match rest.go_on(&mut context) {
                Ok(Progress::Done) => {}
                Ok(Progress::Paused) => {
                    self.unfinished.entry(id).or_default().push_front((number, rest));
                    return Progress::Paused;
                }
                Err(fault) => self.fail(id, number, &fault, now),
            }
        }
        Progress::Done
    }

    fn next_unfinished(&mut self, id: ConnectionId) -> Option<(u16, Box<dyn Unfinished>)> {
        let all = self.unfinished.get_mut(&id)?;
        let next = all.pop_front();
        if all.is_empty() {
            self.unfinished.remove(&id);
        }
        next
    }

    /// Goes on with what no frame of a client drives: its socket has gone, or its channel was closed by the broker.
    pub(crate) fn go_on_behind(&mut self, now: Now) {
        while !self.sessions.has_worked_enough()
            && let Some(&(id, _)) = self.sessions.behind.front()
        {
            if self.go_on(id, now) == Progress::Paused {
                return;
            }
            self.sessions.behind.pop_front();
            if self.sessions.get(id).is_some_and(|session| session.is_gone) {
                self.sessions.remove(id);
            }
        }
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

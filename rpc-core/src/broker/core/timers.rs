//! Timed events of the whole broker.

use std::time::Instant;

use crate::broker::core::{classes::connection, fault::Fault, interface::Now, session::Stage, state::Core};

impl Core {
    /// Handles all due events. Returns the time of the next one, as far as it is known yet.
    pub(crate) fn tick(&mut self, now: Now) -> Option<Instant> {
        self.sessions.work = 0;
        self.go_on_behind(now);
        for vhost in &mut self.vhosts {
            vhost.tick(now, &mut self.sessions);
        }
        self.sessions.send_held_confirms(now);
        self.send_close_oks(now);
        self.send_verdicts(now);
        self.take_back_overdue(now);
        let next_scan = self.close_overdue(now);
        self.next_timer().into_iter().chain(next_scan).min()
    }

    /// Sends due `connection.close-ok`s.
    fn send_close_oks(&mut self, now: Now) {
        while let Some(&pending) = self.sessions.pending_close_oks.front()
            && pending.due <= now.instant
        {
            self.sessions.pending_close_oks.pop_front();
            let id = pending.connection;
            let is_waiting = self
                .sessions
                .get(id)
                .is_some_and(|session| session.nonce == pending.nonce && session.stage == Stage::Closed);
            if is_waiting {
                self.sessions.send(id, 0, &connection::close_ok());
            }
        }
    }

    /// Sends due answers to logins.
    fn send_verdicts(&mut self, now: Now) {
        while self.sessions.pending_verdicts.front().is_some_and(|pending| pending.due <= now.instant) {
            let Some(pending) = self.sessions.pending_verdicts.pop_front() else { return };
            let id = pending.connection;
            let is_waiting = self
                .sessions
                .get(id)
                .is_some_and(|session| session.nonce == pending.nonce && session.stage == Stage::AwaitVerdict);
            if is_waiting {
                self.send_verdict(id, pending.verdict, now);
            }
        }
    }

    /// Closes channels that have not acknowledged a delivery in time. Returns the time of the next scan.
    fn close_overdue(&mut self, now: Now) -> Option<Instant> {
        // Then consumers time out instead: only those of quorum queues, each for itself.
        if self.globals.rules.facts.queues.has_consumer_timeout {
            return None;
        }
        let limit = self.globals.rules.limits.consumer_timeout?;
        for (id, number) in self.overdue_scans.run(limit, &mut self.sessions, now) {
            // A method that is done in part still needs its channel. The next scan finds it again.
            if self.unfinished.get(&id).is_some_and(|busy| busy.has_rest(number)) {
                continue;
            }
            tracing::warn!(connection = id.0, channel = number, ?limit, "a delivery was not acknowledged in time");
            self.fail(id, number, &Fault::overdue(number, Some(limit)), now);
        }
        self.overdue_scans.next()
    }
}

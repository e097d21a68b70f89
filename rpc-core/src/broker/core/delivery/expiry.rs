//! Messages and queues expire.

use std::cmp::Reverse;

use crate::broker::core::{interface::Now, session::sessions::Sessions, vhost::Vhost};

impl Vhost {
    /// Expires due messages and queues, and goes on with what was begun. After some work the rest stays due, so that
    /// others get the lock.
    pub(crate) fn tick(&mut self, now: Now, sessions: &mut Sessions) {
        self.sweep(now, sessions);
        while !sessions.has_worked_enough()
            && let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now.instant
        {
            self.timers.pop();
            sessions.work += 1;
            let Some(mut live) = self.live(key) else { continue };
            live.queue.timer = None;
            let returned = live.queue.return_delayed(now.instant);
            let is_due = std::mem::take(&mut live.queue.is_due) || returned > 0;
            sessions.work += returned;
            let before = sessions.work_left();
            let mut left = before;
            live.drop_some_expired(&mut left, now);
            live.drop_some_over_full(&mut left, now);
            sessions.work += before - left;
            if is_due {
                live.serve(now, sessions);
            }
            if live.queue.is_unused(now.instant) {
                self.delete_queue(key, now, sessions);
            } else {
                live.set_timer();
            }
        }
        self.route_dead(now, sessions);
    }
}

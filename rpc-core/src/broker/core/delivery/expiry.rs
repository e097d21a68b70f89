//! Messages and queues expire.

use std::cmp::Reverse;

use crate::broker::core::{interface::Now, rules::WORK_MAX, session::sessions::Sessions, vhost::Vhost};

impl Vhost {
    /// Expires due messages and queues. After a bounded number of messages the rest stays due, so that others get the
    /// lock.
    pub(crate) fn tick(&mut self, now: Now, sessions: &mut Sessions) {
        let mut left = WORK_MAX;
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now.instant
        {
            self.timers.pop();
            let Some(mut live) = self.live(key) else { continue };
            live.queue.timer = None;
            if !live.drop_some_expired(&mut left, now) {
                live.set_timer();
                break;
            }
            if live.queue.is_unused(now.instant) {
                self.delete_queue(key, sessions);
            } else {
                live.set_timer();
            }
        }
        self.route_dead(now, sessions);
    }
}

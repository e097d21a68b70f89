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
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.timer = None;
            if !self.drop_some_expired(key, &mut left, now) {
                self.set_timer(key);
                break;
            }
            let is_unused = self.queues.get(&key).is_some_and(|queue| {
                queue.consumers().is_empty()
                    && queue.arguments.expires.is_some_and(|expires| queue.last_used + expires <= now.instant)
            });
            if is_unused {
                self.delete_queue(key, sessions);
            } else {
                self.set_timer(key);
            }
        }
        self.route_dead(now, sessions);
    }
}

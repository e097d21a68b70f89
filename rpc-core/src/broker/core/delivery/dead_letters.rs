//! Dead letters on their way to the queues of a dead letter exchange.

use crate::broker::core::{
    interface::Now,
    names::text_of,
    session::sessions::Sessions,
    vhost::{
        MessageHeaders, Vhost, dead_letter,
        route::{Routed, Searcher},
    },
};

impl Vhost {
    /// Routes the dead letters, which may cause further ones.
    #[inline]
    pub(crate) fn route_dead(&mut self, now: Now, sessions: &mut Sessions) {
        if !self.dead.is_empty() {
            self.route_all_dead(now, sessions);
        }
    }

    #[cold]
    fn route_all_dead(&mut self, now: Now, sessions: &mut Sessions) {
        self.dead_due = None;
        // A dead letter may push another message out of a full queue. The bound keeps a ring of full queues from
        // keeping the broker busy for ever.
        for _ in 0..DEAD_LETTERS_PER_STEP {
            let Some(message) = self.dead.pop_front() else { return };
            let exchange = text_of(message.exchange());
            let key = text_of(message.routing_key());
            let keys: Vec<_> = std::iter::once(&*key).chain(dead_letter::carbon_copies(&message)).collect();
            let headers = MessageHeaders(message.properties());
            let queues = match self.route(Searcher::DeadLetters, &exchange, &keys, &headers, &mut sessions.work) {
                Routed::Queues(queues) => queues.to_vec(),
                Routed::NoExchange => continue,
                Routed::Paused => {
                    self.dead_due = Some(now.instant);
                    self.dead.push_front(message);
                    return;
                }
            };
            for key in queues {
                let is_cycle = self.queues.get(&key).is_some_and(|queue| dead_letter::is_cycle(&message, &queue.name));
                if !is_cycle {
                    self.enqueue(key, &message, now, sessions);
                }
            }
        }
        self.dead.clear();
    }
}

/// More than any sane chain of dead letter exchanges moves at once.
const DEAD_LETTERS_PER_STEP: usize = 100_000;

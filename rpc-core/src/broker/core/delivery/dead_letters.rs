//! Dead letters on their way to the queues of a dead letter exchange.

use crate::{
    broker::core::{
        interface::Now,
        names::text_of,
        session::sessions::Sessions,
        vhost::{
            MessageHeaders, Vhost, dead_letter,
            message::Message,
            route::{Routed, Searcher},
        },
    },
    routing::QueueId,
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
        // Dead letters may push others out of full queues, so it is not known how many there are.
        let enough = sessions.work.saturating_add(DEAD_LETTERS_AT_ONCE).max(sessions.work_max);
        while let Some(message) = self.dead.pop_front() {
            sessions.work += 1;
            let Some((queues, mut at)) =
                self.dead_targets.take().or_else(|| self.route_dead_letter(&message, sessions))
            else {
                self.dead.push_front(message);
                self.dead_due = Some(now.instant);
                return;
            };
            while let Some(key) = queues.get(at).filter(|_| sessions.work < enough) {
                at += 1;
                let queue = self.queues.get(key);
                if !queue.is_some_and(|queue| dead_letter::is_cycle(&message, &queue.name)) {
                    self.enqueue(*key, &message, now, sessions);
                }
            }
            if at < queues.len() {
                self.dead_targets = Some((queues, at));
                self.dead.push_front(message);
            }
            if sessions.work >= enough && !self.dead.is_empty() {
                self.dead_due = Some(now.instant);
                return;
            }
        }
    }

    /// The queues of a dead letter, of which none has it yet; `None` if the search has paused.
    fn route_dead_letter(&mut self, message: &Message, sessions: &mut Sessions) -> Option<(Vec<QueueId>, usize)> {
        let exchange = text_of(message.exchange());
        let key = text_of(message.routing_key());
        let keys: Vec<_> = std::iter::once(&*key).chain(dead_letter::carbon_copies(message)).collect();
        let headers = MessageHeaders(message.properties());
        match self.route(Searcher::DeadLetters, &exchange, &keys, &headers, &mut sessions.work) {
            Routed::Queues(queues) => Some((queues.to_vec(), 0)),
            Routed::NoExchange => Some((Vec::new(), 0)),
            Routed::Paused => None,
        }
    }
}

/// At least this many are routed together, however much work there was before.
const DEAD_LETTERS_AT_ONCE: usize = 256;

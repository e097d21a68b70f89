//! Finding the queues of a message, a bounded number of steps at a time.
//!
//! Patterns and bindings can be made so that finding the queues of one message takes seconds. The broker has one lock, so
//! the search pauses after some steps, and the one that waits for its end tries again when others have had the lock.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{MessageHeaders, Vhost};
use crate::{
    broker::core::interface::ConnectionId,
    routing::{Progress, QueueId, Routes},
};

/// The searches of a vhost that are paused, by the one that waits.
pub(crate) type PausedSearches = BTreeMap<Searcher, Box<Paused>>;

/// The one that waits for the end of a search, and has no other meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Searcher {
    /// A channel.
    Publisher(ConnectionId, u16),
    /// The dead letters of the vhost, which are routed one after another.
    DeadLetters,
}

/// A search whose steps are used up.
#[derive(Debug)]
pub(crate) struct Paused {
    exchange: String,
    routing_keys: Vec<String>,
    routes: Routes,
}

impl Paused {
    /// Whether the search is for a message with these names. Another one has been left by a connection that has gone.
    fn is_for(&self, exchange: &str, routing_keys: &[&str]) -> bool {
        self.exchange == exchange && self.routing_keys == routing_keys
    }
}

/// The answer to the question where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed<'a> {
    Queues(&'a [QueueId]),
    NoExchange,
    /// It is not known yet: ask again after the lock was free.
    Paused,
}

impl Vhost {
    /// Finds the queues of a message. Adds the cost of the steps to `work`.
    pub(crate) fn route(
        &mut self,
        searcher: Searcher,
        exchange: &str,
        routing_keys: &[&str],
        headers: &MessageHeaders<'_>,
        work: &mut usize,
    ) -> Routed<'_> {
        match self.take_paused(searcher, exchange, routing_keys) {
            Some(routes) => self.routes = routes,
            None => self.routes.clear(),
        }
        self.routes.allow(self.route_steps_max);
        let progress = self.router.route_all(exchange, routing_keys, headers, &mut self.routes);
        *work += self.routes.looks() / LOOKS_PER_MESSAGE;
        match progress {
            Ok(Progress::Done) => Routed::Queues(self.routes.queues()),
            Err(_) => Routed::NoExchange,
            Ok(Progress::Paused) => {
                let paused = Paused {
                    exchange: exchange.to_owned(),
                    routing_keys: routing_keys.iter().map(|&key| key.to_owned()).collect(),
                    routes: std::mem::take(&mut self.routes),
                };
                self.keep(searcher, paused);
                Routed::Paused
            }
        }
    }

    #[inline]
    fn take_paused(&mut self, searcher: Searcher, exchange: &str, routing_keys: &[&str]) -> Option<Routes> {
        if self.paused.is_empty() {
            return None;
        }
        let paused = self.paused.remove(&searcher)?;
        paused.is_for(exchange, routing_keys).then_some(paused.routes)
    }

    /// Keeps a search, unless others of the same connection take enough memory: then it begins anew when it is tried again.
    fn keep(&mut self, searcher: Searcher, paused: Paused) {
        let is_one_too_many = match searcher {
            Searcher::Publisher(connection, _) => {
                self.paused.range(searches_of(connection, 0..=u16::MAX)).count() >= SEARCHES_MAX
            }
            Searcher::DeadLetters => false,
        };
        if !is_one_too_many {
            self.paused.insert(searcher, Box::new(paused));
        }
    }

    /// Forgets the searches of channels that have ended.
    pub(crate) fn forget_searches(&mut self, connection: ConnectionId, channels: RangeInclusive<u16>) {
        while let Some((&searcher, _)) = self.paused.range(searches_of(connection, channels.clone())).next() {
            self.paused.remove(&searcher);
        }
    }
}

fn searches_of(connection: ConnectionId, channels: RangeInclusive<u16>) -> RangeInclusive<Searcher> {
    let (first, last) = channels.into_inner();
    Searcher::Publisher(connection, first)..=Searcher::Publisher(connection, last)
}

/// Each takes memory for every queue and every part of a pattern that it is at.
const SEARCHES_MAX: usize = 4;
/// The most bindings that are compared, or nodes of patterns visited, for one message before others get the lock: one to
/// two milliseconds of the worst patterns.
pub(crate) const ROUTE_STEPS_MAX: usize = 8_192;
/// Comparing this many bindings costs as much as moving one message.
const LOOKS_PER_MESSAGE: usize = 16;

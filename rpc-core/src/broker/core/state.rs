//! The state of the broker, and access to it that concerns no single class.

use std::{sync::Arc, time::Instant};

use crate::{
    broker::core::{
        context::AllUnfinished,
        deprecations::{Deprecation, Deprecations},
        globals::Globals,
        interface::{ConnectionId, Negotiated, Now},
        limits::{alarm::Alarm, logins::FailedLogins, memory::Memory, overdue::OverdueScans},
        probes::injected::Injected,
        random::{Random, Seed},
        rules::Rules,
        session::sessions::Sessions,
        vhost::{Vhost, consumers::Regained, queue::Line},
    },
    wire::OutBuffer,
};

/// The broker's state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) vhosts: Vec<Vhost>,
    pub(crate) sessions: Sessions,
    pub(crate) globals: Globals,
    pub(crate) overdue_scans: OverdueScans,
    pub(crate) unfinished: AllUnfinished,
}

/// Messages that are in no queue any more, and only have to be dropped.
#[derive(Debug)]
pub(crate) struct Garbage(Vec<Line>);

impl Garbage {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Core {
    /// An empty broker. `seed`, which has to be secret, determines generated names.
    pub(crate) fn new(rules: Rules, seed: Seed) -> Self {
        let memory = Arc::new(Memory::new(rules.limits.memory_high_watermark));
        let vhosts = rules.vhosts.iter().map(|name| Vhost::new(name, rules.limits, rules.facts, &memory)).collect();
        let sessions = Sessions::new(rules.limits.outbox_max_bytes, rules.facts);
        let (random, failed_logins) = (Random::new(seed), FailedLogins::default());
        let deprecations = rules.warn_as.map(Deprecations::against).map(Box::new);
        let globals = Globals { rules, memory, alarm: Alarm::default(), random, failed_logins, deprecations };
        Self { vhosts, sessions, globals, overdue_scans: OverdueScans::default(), unfinished: AllUnfinished::new() }
    }

    pub(crate) fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.iter().any(|vhost| &*vhost.name == name)
    }

    /// The uses of deprecated features so far.
    pub(crate) fn deprecations(&self) -> Vec<Deprecation> {
        self.globals.deprecations.as_deref().map(Deprecations::all).unwrap_or_default()
    }

    pub(crate) fn negotiated(&self, id: ConnectionId) -> Option<Negotiated> {
        Some(self.sessions.get(id)?.negotiated())
    }

    /// How many messages the last batch has moved, about.
    pub(crate) const fn work(&self) -> usize {
        self.sessions.work
    }

    pub(crate) fn heartbeat(&mut self, id: ConnectionId) {
        if let Some(out) = self.sessions.out(id) {
            out.heartbeat();
        }
    }

    /// Delivers from the queues of a client that reads again.
    pub(crate) fn resume(&mut self, id: ConnectionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let mut keys: Vec<_> = session.channels.values_mut().flat_map(|channel| channel.consumed_queues()).collect();
        keys.sort_unstable();
        keys.dedup();
        if let Some(vhost) = session.vhost.and_then(|at| self.vhosts.get_mut(at)) {
            vhost.deliver_all(keys, Regained::Connection(id), now, &mut self.sessions);
        }
    }

    /// The next timed event, which may be earlier than [`Core::tick`] said.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let held = self.sessions.injected.as_deref().and_then(Injected::next_timer);
        let close_ok = self.sessions.pending_close_oks.front().map(|pending| pending.due);
        let verdict = self.sessions.pending_verdicts.front().map(|pending| pending.due);
        let behind = self.sessions.behind.front().map(|(_, due)| *due);
        let due = self.sessions.dues.first().map(|(due, ..)| *due);
        let vhosts = self.vhosts.iter().filter_map(Vhost::next_timer);
        vhosts.chain(due).chain(held).chain(close_ok).chain(verdict).chain(behind).min()
    }

    /// Takes the messages that are in no queue any more. Dropping them takes time, but no lock.
    pub(crate) fn take_garbage(&mut self) -> Garbage {
        Garbage(std::mem::take(&mut self.sessions.garbage))
    }

    /// Hands every connection's output to `write`, which takes it.
    pub(crate) fn take_output(&mut self, write: impl FnMut(ConnectionId, &mut OutBuffer)) {
        self.sessions.take_output(write);
    }

    /// The account of the broker's memory.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.globals.memory
    }

    /// Blocks publishers when memory is high, and unblocks them when it is low. Returns whether they may be read again.
    pub(crate) fn watch_memory(&mut self) -> bool {
        self.globals.alarm.watch(&self.globals.memory, &mut self.sessions)
    }

    /// Blocks publishers: connections that have published at once, and others when they publish.
    pub(crate) fn block(&mut self, reason: &str) {
        self.globals.alarm.request(reason, &mut self.sessions);
    }

    /// Unblocks publishers, unless memory is high.
    pub(crate) fn unblock(&mut self) {
        self.globals.alarm.withdraw(&mut self.sessions);
    }
}

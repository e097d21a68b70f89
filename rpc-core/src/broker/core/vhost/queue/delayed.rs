//! Requeued messages of a quorum queue that wait before they are ready: `x-delayed-retry-type`. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::Line;
use crate::broker::core::vhost::{
    arguments::{DelayedRetry, QueueArguments},
    message::{Entry, Message},
};

/// The messages of one queue that wait.
#[derive(Debug)]
pub(crate) struct Delayed {
    retry: DelayedRetry,
    /// By the time when they are ready, and their places.
    entries: BTreeMap<(Instant, u64), Entry>,
    pub(super) bytes: u64,
}

impl Delayed {
    pub(super) fn new(retry: DelayedRetry) -> Self {
        Self { retry, entries: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes over the entries that have to wait, all or none of them.
    pub(super) fn take(
        &mut self,
        entries: &mut Vec<Entry>,
        has_failed: bool,
        now: Instant,
        arguments: &QueueArguments,
    ) {
        if !self.retry.delays(has_failed) {
            return;
        }
        for entry in entries.drain(..) {
            self.bytes += arguments.bytes_of(&entry.message);
            // A delay beyond all time would lose the message.
            let due = now.checked_add(self.retry.delay(entry.failed_count)).unwrap_or(now);
            self.entries.insert((due, entry.place), entry);
        }
    }

    /// Takes out the entries that are ready.
    pub(super) fn take_ready(&mut self, now: Instant, arguments: &QueueArguments) -> Vec<Entry> {
        let mut ready = Vec::new();
        while let Some(first) = self.entries.first_entry().filter(|first| first.key().0 <= now) {
            ready.push(first.remove());
        }
        self.bytes -= ready.iter().map(|entry| arguments.bytes_of(&entry.message)).sum::<u64>();
        ready
    }

    /// When the next one is ready.
    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(&(due, _), _)| due)
    }

    pub(super) fn retain(&mut self, is_kept: &mut impl FnMut(&Message) -> bool, arguments: &QueueArguments) {
        self.entries.retain(|_, entry| is_kept(&entry.message));
        self.bytes = self.counted_bytes(arguments);
    }

    /// Takes out all of them.
    pub(super) fn purge(&mut self) -> Line {
        self.bytes = 0;
        Line::from(std::mem::take(&mut self.entries).into_values().collect::<VecDeque<_>>())
    }

    pub(super) fn counted_bytes(&self, arguments: &QueueArguments) -> u64 {
        self.entries.values().map(|entry| arguments.bytes_of(&entry.message)).sum()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }
}

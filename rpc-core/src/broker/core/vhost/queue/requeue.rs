//! Requeueing: unacknowledged entries return to their queue.

use std::time::Instant;

use super::Queue;
use crate::broker::core::vhost::message::Entry;

/// Why entries are requeued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequeueReason {
    /// A client requested it: `basic.nack` or `basic.recover`.
    Requested,
    /// A client rejected them.
    Rejected,
    /// Their channel, or its connection, is closed.
    ChannelClosed,
}

impl Queue {
    /// Requeues unacknowledged entries: at their places, or in a quorum queue at its head or its end, or after a delay.
    pub(crate) fn requeue(&mut self, mut entries: Vec<Entry>, reason: RequeueReason, now: Instant) {
        self.unacked = self.unacked.saturating_sub(entries.len());
        for entry in &mut entries {
            entry.delivery_count = entry.delivery_count.saturating_add(1);
            entry.note_failure(reason != RequeueReason::Requested);
        }
        if let Some(delayed) = &mut self.delayed {
            delayed.take(&mut entries, reason != RequeueReason::Requested, now, &self.arguments);
        }
        if self.arguments.is_quorum {
            // As in RabbitMQ: without a limit a message may be requeued for ever, so it lets the others pass.
            let is_at_head = reason == RequeueReason::ChannelClosed || self.arguments.has_delivery_limit;
            self.append(is_at_head, entries);
        } else if entries.len() <= FEW {
            entries.into_iter().for_each(|entry| self.insert(entry));
        } else if self.ready.len() == 1 {
            self.insert_all(0, entries);
        } else {
            let mut lines: Vec<Vec<Entry>> = self.ready.iter().map(|_| Vec::new()).collect();
            for entry in entries {
                lines[self.line_of(&entry.message)].push(entry);
            }
            for (line, entries) in lines.into_iter().enumerate() {
                self.insert_all(line, entries);
            }
        }
    }

    /// Returns delayed entries that are ready to the head. Returns how many.
    pub(crate) fn return_delayed(&mut self, now: Instant) -> usize {
        let ready = self.delayed.as_mut().map(|delayed| delayed.take_ready(now, &self.arguments)).unwrap_or_default();
        let count = ready.len();
        self.append(true, ready);
        count
    }

    /// Inserts entries behind all others of a line, as if they were new.
    fn append(&mut self, is_at_head: bool, entries: Vec<Entry>) {
        self.count(&entries);
        let returned = self.ready.len() - 1;
        for entry in entries {
            let line = if is_at_head { returned } else { self.line_of(&entry.message) };
            let place = self.next_place;
            self.next_place += 1;
            self.ready[line].push_back(Entry { place, ..entry });
        }
    }

    fn insert_all(&mut self, line: usize, entries: Vec<Entry>) {
        self.count(&entries);
        self.ready[line].insert_all(entries);
    }

    fn count(&mut self, entries: &[Entry]) {
        self.ready_count += entries.len();
        self.ready_bytes += entries.iter().map(|entry| self.arguments.bytes_of(&entry.message)).sum::<u64>();
    }
}

/// Up to this many entries are inserted one by one.
const FEW: usize = 4;

//! The set of targets of one routing key, one topic pattern or a whole fanout exchange.
//!
//! It counts bindings: two that differ only in arguments are one target until both are removed. Removals change the order.
//!
//! ```text
//!  entries    [ (queue 7, 1 binding) | (exchange 2, 3 bindings) | … ]
//!  positions  { queue 7 → 0, exchange 2 → 1, … }     only for long lists
//! ```

use super::{collections::Map, id::Target};

/// The longest list that is searched entry by entry.
const SCAN_LIMIT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct TargetSet {
    entries: Vec<Entry>,
    positions: Option<Box<Map<Target, usize>>>,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    bindings: usize,
}

impl TargetSet {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each target once.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Target> {
        self.entries.iter().map(|entry| entry.target)
    }

    /// Adds one binding to `target`.
    pub(super) fn insert(&mut self, target: Target) {
        if let Some(position) = self.position(target) {
            self.entries[position].bindings += 1;
            return;
        }
        let position = self.entries.len();
        if position == 0 {
            // Most sets keep a single target, but a vector that grows by itself starts with a capacity of four.
            self.entries.reserve_exact(1);
        }
        self.entries.push(Entry { target, bindings: 1 });
        match &mut self.positions {
            Some(positions) => {
                positions.insert(target, position);
            }
            None if self.entries.len() > SCAN_LIMIT => {
                let positions = self.entries.iter().enumerate().map(|(position, entry)| (entry.target, position));
                self.positions = Some(Box::new(positions.collect()));
            }
            None => {}
        }
    }

    /// Removes one binding to `target`.
    pub(super) fn remove(&mut self, target: Target) {
        let Some(position) = self.position(target) else {
            return;
        };
        self.entries[position].bindings -= 1;
        if self.entries[position].bindings > 0 {
            return;
        }
        self.entries.swap_remove(position);
        if let Some(positions) = &mut self.positions {
            positions.remove(&target);
            if let Some(moved) = self.entries.get(position) {
                positions.insert(moved.target, position);
            }
        }
    }

    fn position(&self, target: Target) -> Option<usize> {
        match &self.positions {
            Some(positions) => positions.get(&target).copied(),
            None => self.entries.iter().position(|entry| entry.target == target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::id::QueueId;

    fn queue(id: u64) -> Target {
        Target::Queue(QueueId(id))
    }

    #[test]
    fn target_stays_until_its_last_binding_is_removed() {
        let mut set = TargetSet::default();
        set.insert(queue(1));
        set.insert(queue(1));
        assert_eq!(set.iter().len(), 1);
        set.remove(queue(1));
        assert!(!set.is_empty());
        set.remove(queue(1));
        assert!(set.is_empty());
        set.remove(queue(1));
    }

    #[test]
    fn large_set_finds_its_targets_after_removals_in_any_order() {
        let mut set = TargetSet::default();
        (0..100).for_each(|id| set.insert(queue(id)));
        (0..100).filter(|id| id % 3 != 0).for_each(|id| set.remove(queue(id)));
        let mut left: Vec<_> = set.iter().collect();
        left.sort_by_key(|target| match target {
            Target::Queue(id) => id.0,
            Target::Exchange(_) => u64::MAX,
        });
        assert_eq!(left, (0..100).step_by(3).map(queue).collect::<Vec<_>>());
        (0..100).for_each(|id| set.remove(queue(id)));
        assert!(set.is_empty());
    }
}

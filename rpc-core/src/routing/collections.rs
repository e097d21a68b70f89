//! Containers of the routing engine: a hash map with a fast hash, and a list without duplicates.

use std::{collections::HashMap, hash::Hash};

/// Hash maps of this engine. Nothing observable depends on their iteration order.
pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The longest list that is searched item by item.
const SCAN_LIMIT: usize = 16;

/// A list that holds each item once. It is scanned while short, and hashed when long.
#[derive(Debug)]
pub(super) struct UniqueList<T> {
    items: Vec<T>,
    /// The first `seen.len()` items. The rest is added when a long list is searched.
    seen: Map<T, ()>,
}

impl<T: Copy + Eq + Hash> UniqueList<T> {
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.seen.clear();
    }

    /// Keeps the first items.
    pub(super) fn truncate(&mut self, length: usize) {
        self.items.truncate(length);
        self.seen.clear();
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// Appends an item unless the list has it. Returns whether it was appended.
    pub(super) fn push(&mut self, item: T) -> bool {
        let is_new = if self.items.len() <= SCAN_LIMIT {
            !self.items.contains(&item)
        } else {
            for &item in &self.items[self.seen.len()..] {
                self.seen.insert(item, ());
            }
            self.seen.insert(item, ()).is_none()
        };
        if is_new {
            self.items.push(item);
        }
        is_new
    }

    /// Appends an item that the list does not have.
    pub(super) fn push_new(&mut self, item: T) {
        self.items.push(item);
    }
}

impl<T> Default for UniqueList<T> {
    fn default() -> Self {
        Self { items: Vec::new(), seen: Map::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_holds_each_item_once_however_long_it_is() {
        let mut list = UniqueList::default();
        for _ in 0..3 {
            (0..1_000).for_each(|item| {
                list.push(item);
            });
        }
        assert_eq!(list.as_slice(), (0..1_000).collect::<Vec<_>>());
        list.truncate(500);
        assert!(list.push(500) && !list.push(499));
        list.clear();
        assert!(list.push(7));
        assert_eq!(list.as_slice(), [7]);
    }

    #[test]
    fn items_appended_unchecked_are_still_found() {
        let mut list = UniqueList::default();
        (0..100).for_each(|item| list.push_new(item));
        assert!(!list.push(99));
        assert!(list.push(100));
        list.push_new(101);
        assert!(!list.push(101));
        assert!(!list.push(0));
        assert_eq!(list.as_slice().len(), 102);
    }
}

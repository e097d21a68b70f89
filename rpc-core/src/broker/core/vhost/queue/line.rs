//! The ready messages of one priority, in the order of their places.

use std::collections::{BTreeMap, VecDeque};

use crate::broker::core::vhost::message::Entry;

/// The ready messages of one priority. Those that come in order, and those that return to the front, are in a list. The
/// others, requeued between them, are in a tree, so that none of those behind has to move.
#[derive(Debug, Default)]
pub(crate) struct Line {
    list: VecDeque<Entry>,
    between: BTreeMap<u64, Entry>,
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.between.is_empty()
    }

    /// The entry with the lowest place.
    #[inline]
    pub(crate) fn front(&self) -> Option<&Entry> {
        if self.between.is_empty() { self.list.front() } else { self.first_of_both() }
    }

    #[cold]
    fn first_of_both(&self) -> Option<&Entry> {
        let between = self.between.first_key_value().map(|(_, entry)| entry);
        between.into_iter().chain(self.list.front()).min_by_key(|entry| entry.place)
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        if self.between.is_empty() {
            let entry = self.list.pop_front();
            if self.list.is_empty() && self.list.capacity() > KEPT_MAX {
                self.list = VecDeque::new();
            }
            return entry;
        }
        self.pop_first_of_both()
    }

    #[cold]
    fn pop_first_of_both(&mut self) -> Option<Entry> {
        let (place, _) = self.between.first_key_value()?;
        match self.list.front() {
            Some(front) if front.place < *place => self.list.pop_front(),
            _ => self.between.pop_first().map(|(_, entry)| entry),
        }
    }

    /// Inserts an entry behind all others.
    pub(crate) fn push_back(&mut self, entry: Entry) {
        self.list.push_back(entry);
    }

    /// Inserts an entry at its place.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry) {
        match self.list.back() {
            Some(last) if last.place > entry.place => self.insert_before(entry),
            _ => self.list.push_back(entry),
        }
    }

    fn insert_before(&mut self, entry: Entry) {
        if self.list.front().is_some_and(|first| first.place > entry.place) {
            self.list.push_front(entry);
        } else {
            self.between.insert(entry.place, entry);
        }
    }

    /// Inserts entries at their places.
    pub(crate) fn insert_all(&mut self, mut entries: Vec<Entry>) {
        // Nearly sorted: only entries that were requeued and delivered again are out of order.
        entries.sort_by_key(|entry| entry.place);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        if self.list.is_empty() {
            self.list = entries.into();
        } else if self.list.back().is_some_and(|behind| behind.place < first.place) {
            self.list.extend(entries);
        } else if self.list.front().is_some_and(|before| before.place > last.place) {
            self.list.reserve(entries.len());
            entries.into_iter().rev().for_each(|entry| self.list.push_front(entry));
        } else {
            entries.into_iter().for_each(|entry| self.insert(entry));
        }
    }

    /// Drops the entries for which `is_kept` does not hold.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&Entry) -> bool) {
        self.list.retain(&mut is_kept);
        self.between.retain(|_, entry| is_kept(entry));
    }

    /// The entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter().chain(self.between.values())
    }

    /// Panics unless the list is in order.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self, queue: &str) {
        assert!(self.list.iter().is_sorted_by(|a, b| a.place < b.place), "'{queue}' is out of order");
        assert!(self.between.iter().all(|(place, entry)| *place == entry.place), "a place of '{queue}'");
    }
}

/// An empty line keeps room for so many entries.
const KEPT_MAX: usize = 4_096;

impl From<VecDeque<Entry>> for Line {
    fn from(list: VecDeque<Entry>) -> Self {
        Self { list, between: BTreeMap::new() }
    }
}

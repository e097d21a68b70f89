//! A set of services or methods.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    lock::lock,
    service::{MethodDescriptor, ServiceDescriptor},
};

/// A descriptor, and the name that it has in a set.
pub(super) trait Named {
    fn key(&self) -> &'static str;
}

impl Named for ServiceDescriptor {
    fn key(&self) -> &'static str {
        self.name
    }
}

impl Named for MethodDescriptor {
    fn key(&self) -> &'static str {
        self.routing_key
    }
}

/// A set of services, or of methods. Noting one, or finding it, is one look if that happened a moment ago: every call does it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The addresses of descriptors that are in the set, each at a place of its own.
    recent: Places,
    names: Mutex<HashSet<&'static str>>,
}

impl Seen {
    #[inline]
    pub(super) fn note(&self, one: &'static impl Named) {
        let (address, place) = self.place(one);
        if place.load(Ordering::Relaxed) != address {
            let mut names = lock(&self.names);
            names.insert(one.key());
            place.store(address, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, one: &impl Named) -> bool {
        let (address, place) = self.place(one);
        place.load(Ordering::Relaxed) == address || self.find(one.key(), address, place)
    }

    #[cold]
    fn find(&self, name: &str, address: usize, place: &AtomicUsize) -> bool {
        let names = lock(&self.names);
        let is_there = names.contains(name);
        if is_there {
            place.store(address, Ordering::Relaxed);
        }
        is_there
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        let mut names = lock(&self.names);
        names.clear();
        self.recent.0.iter().for_each(|place| place.store(0, Ordering::Relaxed));
    }

    /// The address of a descriptor, and its place.
    #[inline]
    fn place(&self, one: &impl Named) -> (usize, &AtomicUsize) {
        let address = std::ptr::from_ref(one).addr();
        // Descriptors are larger than 64 bytes.
        (address, &self.recent.0[(address >> 6) % RECENT])
    }
}

#[derive(Debug)]
struct Places([AtomicUsize; RECENT]);

impl Default for Places {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicUsize::new(0)))
    }
}

/// Two that share a place are looked up in the set, so there are many.
const RECENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_by_its_name_until_it_is_forgotten() {
        static FIRST: MethodDescriptor = MethodDescriptor::new("first", "s.first");
        static COPY: MethodDescriptor = MethodDescriptor::new("first", "s.first");
        static SECOND: MethodDescriptor = MethodDescriptor::new("second", "s.second");
        let seen = Seen::default();
        assert!(!seen.has(&FIRST));
        seen.note(&FIRST);
        assert!(seen.has(&FIRST) && seen.has(&COPY) && !seen.has(&SECOND));
        // More than there are places.
        let many: Vec<&'static MethodDescriptor> = (0..3 * RECENT)
            .map(|n| &*Box::leak(Box::new(MethodDescriptor::new("", &*format!("s.{n}").leak()))))
            .collect();
        many.iter().for_each(|method| seen.note(*method));
        assert!(many.iter().all(|method| seen.has(*method)) && seen.has(&FIRST));
        seen.clear();
        assert!(many.iter().all(|method| !seen.has(*method)) && !seen.has(&FIRST));
    }
}

//! The services that have answered a client.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{lock::lock, service::ServiceDescriptor};

/// A set of services. Noting one that was noted a moment ago is one look: every answered call does it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The addresses of descriptors that are in the set, each at a place of its own.
    recent: [AtomicUsize; RECENT],
    names: Mutex<HashSet<&'static str>>,
}

impl Seen {
    pub(super) fn note(&self, service: &'static ServiceDescriptor) {
        let address = std::ptr::from_ref(service).addr();
        // Descriptors are larger than 64 bytes.
        let place = &self.recent[(address >> 6) % RECENT];
        if place.load(Ordering::Relaxed) != address {
            lock(&self.names).insert(service.name);
            place.store(address, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, service: &ServiceDescriptor) -> bool {
        lock(&self.names).contains(service.name)
    }
}

const RECENT: usize = 8;

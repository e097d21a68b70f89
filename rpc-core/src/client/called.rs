//! The counts of a client's calls, by service.

use std::sync::OnceLock;

use crate::{
    service::ServiceDescriptor,
    stats::{MethodStats, ServiceCounts, merged},
};

/// Counts by the address of a descriptor. Each has the first place that was free from its own on; where all are taken, one in the next
/// table. Nearly always that is one look.
#[derive(Debug)]
pub(super) struct Services {
    places: [OnceLock<ServiceCounts>; PLACES],
    /// Whether the times of calls are counted, too.
    is_timed: bool,
    next: OnceLock<Box<Self>>,
}

impl Services {
    pub(super) fn new(is_timed: bool) -> Self {
        Self { places: std::array::from_fn(|_| OnceLock::new()), is_timed, next: OnceLock::new() }
    }

    /// The counts of a service, which are made at its first call.
    #[inline]
    pub(super) fn of(&self, service: &'static ServiceDescriptor) -> &ServiceCounts {
        let own = Self::place(service);
        match self.places[own].get() {
            Some(counts) if std::ptr::eq(counts.service, service) => counts,
            _ => self.find(service, own),
        }
    }

    #[cold]
    fn find(&self, service: &'static ServiceDescriptor, own: usize) -> &ServiceCounts {
        for at in 0..PLACES {
            let place = &self.places[(own + at) % PLACES];
            let counts = place.get_or_init(|| ServiceCounts::new(service, self.is_timed));
            if std::ptr::eq(counts.service, service) {
                return counts;
            }
        }
        self.next.get_or_init(|| Box::new(Self::new(self.is_timed))).of(service)
    }

    pub(super) fn stats(&self) -> Vec<MethodStats> {
        let mut services = Vec::new();
        self.collect(&mut services);
        merged(services.into_iter().flat_map(ServiceCounts::snapshot))
    }

    fn collect<'a>(&'a self, services: &mut Vec<&'a ServiceCounts>) {
        services.extend(self.places.iter().filter_map(OnceLock::get));
        if let Some(next) = self.next.get() {
            next.collect(services);
        }
    }

    #[inline]
    fn place(service: &'static ServiceDescriptor) -> usize {
        // Descriptors are larger than 64 bytes.
        (std::ptr::from_ref(service).addr() >> 6) % PLACES
    }
}

/// More services than most programs call.
const PLACES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Codec, service::MethodDescriptor};

    #[test]
    fn however_many_services_are_called_each_has_its_counts() {
        let service = |n: usize| -> &'static ServiceDescriptor {
            Box::leak(Box::new(ServiceDescriptor {
                name: format!("s{n}").leak(),
                version: 1,
                queue: None,
                codec: Codec::MessagePack,
                max_length: None,
                max_depth: Codec::MAX_DEPTH,
                methods: vec![MethodDescriptor::new("m", "s.m")].leak(),
            }))
        };
        let services: Vec<_> = (0..3 * PLACES).map(service).collect();
        let counts = Services::new(false);
        for (at, service) in services.iter().enumerate() {
            for _ in 0..=at {
                counts.of(service).at(0).unwrap().begin();
            }
        }
        let methods = counts.stats();
        assert_eq!(methods.len(), services.len());
        for (at, service) in services.iter().enumerate() {
            let stats = methods.iter().find(|stats| stats.service == service.name).unwrap();
            assert_eq!(stats.running, at as u64 + 1);
        }
    }
}

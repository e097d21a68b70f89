//! [`Graces`]: how long each service may be without workers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// As the options of a client say it.
#[derive(Debug, Clone, Default)]
pub(in crate::client) struct Graces {
    all: Option<Duration>,
    services: Arc<BTreeMap<Box<str>, Duration>>,
}

impl Graces {
    /// That of every service that has no other one.
    pub(in crate::client) fn all(self, grace: Duration) -> Self {
        Self { all: Some(grace), ..self }
    }

    /// That of one service.
    pub(in crate::client) fn service(mut self, service: Box<str>, grace: Duration) -> Self {
        Arc::make_mut(&mut self.services).insert(service, grace);
        self
    }

    pub(in crate::client) fn is_empty(&self) -> bool {
        self.all.is_none() && self.services.is_empty()
    }

    pub(super) fn of(&self, service: &str) -> Option<Duration> {
        self.services.get(service).copied().or(self.all).map(|grace| grace.min(GRACE_MAX))
    }
}

/// Thirty years: every clock can hold its end.
const GRACE_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_own_grace_or_that_of_all() {
        let (long, short) = (Duration::from_secs(9), Duration::from_secs(1));
        let graces = Graces::default();
        assert!(graces.is_empty());
        let graces = graces.service("stock".into(), long);
        assert_eq!((graces.is_empty(), graces.of("stock"), graces.of("other")), (false, Some(long), None));
        let graces = graces.all(short);
        assert_eq!((graces.of("stock"), graces.of("other")), (Some(long), Some(short)));
        assert_eq!(graces.all(Duration::MAX).of("other"), Some(GRACE_MAX));
    }
}

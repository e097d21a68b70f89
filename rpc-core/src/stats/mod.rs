//! Counts of calls by method: arrays of atomics, made once for each service, so that counting allocates nothing.
//!
//! ```text
//!  client: first poll ──begin──► MethodCounts ◄──end(code)── outcome known, or dropped
//!  pool:   handler    ──begin──►      │       ◄──end(code)── answered, or dropped
//!                                     └──snapshot──► MethodStats
//! ```

pub(crate) mod codes;
mod latency;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub(crate) use self::codes::{CANCELLED, OTHER};
use self::latency::Histogram;
use crate::service::ServiceDescriptor;

/// The counts of one method, in a client or in a pool.
///
/// They count from the start of the client or pool. A client counts logical calls: one, however often it is sent. A pool counts
/// requests whose method it knows, from the start of their handler, and those that it answered without it (`overloaded`,
/// `abandoned`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodStats {
    /// The service.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
    /// Calls that have ended, however they did.
    pub calls: u64,
    /// Calls under way.
    pub running: u64,
    /// Calls that ended with an error, by code; codes that did not occur are left out.
    ///
    /// The codes are those of [`CallError::code`](crate::CallError::code) and of this crate's layers, and `cancelled` of calls that were
    /// dropped. An error of the service's own counts by the code that its type declares ([`ServiceError`](crate::ServiceError)), as
    /// `service` if that declares none; any other code is `_OTHER`.
    pub errors: Vec<(&'static str, u64)>,
    /// How long the calls took, if that is asked for ([`ClientOptions::stats`](crate::ClientOptions::stats),
    /// [`WorkerPool::stats`](crate::WorkerPool::stats)) and one has ended.
    pub latency: Option<LatencyStats>,
}

impl MethodStats {
    /// How many calls ended with an error.
    pub fn failed(&self) -> u64 {
        self.errors.iter().map(|(_, calls)| calls).sum()
    }

    /// How many calls ended with this code; with `ok`, how many ended without an error.
    pub fn ended_with(&self, code: &str) -> u64 {
        match code {
            "ok" => self.calls - self.failed(),
            code => self.errors.iter().find(|(known, _)| *known == code).map_or(0, |(_, calls)| *calls),
        }
    }
}

/// How long calls took, those that failed included: a client's calls from their first poll, a pool's requests from the start of their
/// handler.
///
/// The times are those of a histogram whose classes are at most a sixteenth wide, of all calls since the start, up to 2 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// Half of the calls took no longer.
    pub p50: Duration,
    /// 99 of 100 calls took no longer.
    pub p99: Duration,
}

/// The counts of one service.
#[derive(Debug)]
pub(crate) struct ServiceCounts {
    pub(crate) service: &'static ServiceDescriptor,
    methods: Box<[MethodCounts]>,
}

impl ServiceCounts {
    /// `is_timed`: with times.
    pub(crate) fn new(service: &'static ServiceDescriptor, is_timed: bool) -> Self {
        let methods = service.methods.iter().map(|method| MethodCounts::new(method.error_codes, is_timed)).collect();
        Self { service, methods }
    }

    /// Those of the method with that index.
    #[inline]
    pub(crate) fn at(&self, method: usize) -> Option<&MethodCounts> {
        self.methods.get(method)
    }

    pub(crate) fn snapshot(&self) -> impl Iterator<Item = MethodStats> {
        let ServiceDescriptor { name, methods, .. } = self.service;
        methods.iter().zip(&self.methods).map(|(method, counts)| counts.snapshot(name, method.name))
    }
}

/// The counts of one method.
pub(crate) struct MethodCounts {
    begun: AtomicU64,
    ok: AtomicU64,
    /// The codes of its own errors.
    own_codes: &'static [&'static str],
    /// By the [place](codes::place_of) of the code.
    errors: Box<[AtomicU64]>,
    times: Option<Box<Histogram>>,
}

impl MethodCounts {
    fn new(own_codes: &'static [&'static str], is_timed: bool) -> Self {
        Self {
            begun: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            own_codes,
            errors: (0..codes::places(own_codes)).map(|_| AtomicU64::new(0)).collect(),
            times: is_timed.then(Box::default),
        }
    }

    /// Whether [`end`](Self::end) is to be followed by [`note_time`](Self::note_time).
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.times.is_some()
    }

    #[inline]
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a call that has begun; `code` is that of its error.
    #[inline]
    pub(crate) fn end(&self, code: Option<&str>) {
        // Before the beginnings are read, see `snapshot`.
        match code {
            None => self.ok.fetch_add(1, Ordering::Release),
            Some(code) => self.fail(code),
        };
    }

    #[cold]
    fn fail(&self, code: &str) -> u64 {
        self.errors[codes::place_of(code, self.own_codes)].fetch_add(1, Ordering::Release)
    }

    /// Counts a call that was answered with an error at once.
    pub(crate) fn refuse(&self, code: &str) {
        self.begin();
        self.fail(code);
    }

    pub(crate) fn note_time(&self, took: Duration) {
        if let Some(times) = &self.times {
            times.note(took);
        }
    }

    fn snapshot(&self, service: &'static str, method: &'static str) -> MethodStats {
        // The ends first: each has its beginning then, so that no call is missing.
        let ok = self.ok.load(Ordering::Acquire);
        let codes = codes::codes(self.own_codes);
        let errors = codes.zip(&self.errors).map(|(code, calls)| (code, calls.load(Ordering::Acquire)));
        let errors: Vec<_> = errors.filter(|(_, calls)| *calls > 0).collect();
        let calls = ok + errors.iter().map(|(_, calls)| calls).sum::<u64>();
        let running = self.begun.load(Ordering::Relaxed).saturating_sub(calls);
        let latency = self.times.as_ref().and_then(|times| times.stats());
        MethodStats { service, method, calls, running, errors, latency }
    }
}

impl fmt::Debug for MethodCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodCounts").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// The stats of each method once, though several descriptors may name it.
pub(crate) fn merged(stats: impl IntoIterator<Item = MethodStats>) -> Vec<MethodStats> {
    let mut merged: Vec<MethodStats> = Vec::new();
    for one in stats {
        let known = merged.iter_mut().find(|known| (known.service, known.method) == (one.service, one.method));
        let Some(known) = known else {
            merged.push(one);
            continue;
        };
        known.calls += one.calls;
        known.running += one.running;
        known.latency = known.latency.or(one.latency);
        for (code, calls) in one.errors {
            match known.errors.iter_mut().find(|(known, _)| *known == code) {
                Some((_, sum)) => *sum += calls,
                None => known.errors.push((code, calls)),
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Codec, service::MethodDescriptor};

    static METHODS: [MethodDescriptor; 2] =
        [MethodDescriptor::new("one", "s.one"), MethodDescriptor::new("two", "s.two")];
    static SERVICE: ServiceDescriptor = ServiceDescriptor {
        name: "s",
        version: 1,
        queue: None,
        codec: Codec::MessagePack,
        max_length: None,
        max_depth: Codec::MAX_DEPTH,
        methods: &METHODS,
    };

    #[test]
    fn a_call_runs_until_it_has_ended_and_counts_under_its_code() {
        let counts = ServiceCounts::new(&SERVICE, false);
        let method = counts.at(1).unwrap();
        assert!(counts.at(2).is_none());
        for code in [None, Some("timeout"), Some("timeout"), Some("made up"), None] {
            method.begin();
            method.end(code);
        }
        method.refuse("overloaded");
        method.begin();
        let stats: Vec<_> = counts.snapshot().collect();
        assert_eq!((stats[0].method, stats[0].calls, stats[0].running), ("one", 0, 0));
        let two = &stats[1];
        assert_eq!((two.service, two.method, two.calls, two.running, two.failed()), ("s", "two", 6, 1, 4));
        assert_eq!(two.errors, [("overloaded", 1), ("timeout", 2), ("_OTHER", 1)]);
        assert_eq!(["ok", "timeout", "internal"].map(|code| two.ended_with(code)), [2, 2, 0]);
        assert_eq!(two.latency, None, "it was not asked for");
    }

    #[test]
    fn two_descriptors_of_one_method_are_one_in_the_stats() {
        let [first, second] = [(); 2].map(|()| ServiceCounts::new(&SERVICE, true));
        for counts in [&first, &second, &second] {
            let method = counts.at(0).unwrap();
            method.begin();
            method.end(Some("internal"));
            method.note_time(Duration::from_millis(1));
        }
        second.at(0).unwrap().refuse("timeout");
        let stats = merged([&first, &second].into_iter().flat_map(ServiceCounts::snapshot));
        assert_eq!(stats.len(), 2);
        assert_eq!((stats[0].calls, stats[0].running), (4, 0));
        assert_eq!(stats[0].errors, [("internal", 3), ("timeout", 1)]);
        assert!(stats[0].latency.is_some() && stats[1].latency.is_none());
    }
}

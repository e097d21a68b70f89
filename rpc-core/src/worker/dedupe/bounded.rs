//! A table of requests that run or have ended; those that have ended are bounded in number and size, and the oldest goes first.
//!
//! Pure data. Requests that run are bounded by their pool.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::options::DedupeOptions;

/// The identity of a logical request.
pub(super) type Name = Arc<[u8]>;

#[derive(Debug)]
pub(super) struct Bounded<R, E> {
    // A name is hashed several times a request. The seed of the hashes is random, as std's is.
    requests: HashMap<Name, Known<R, E>, RandomState>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<Name>,
    ended_bytes: usize,
}

#[derive(Debug)]
pub(super) enum Known<R, E> {
    Running(R),
    Ended(E, Bytes),
}

/// The size of an entry.
type Bytes = usize;

impl<R, E> Default for Bounded<R, E> {
    fn default() -> Self {
        Self { requests: HashMap::default(), ended: VecDeque::new(), ended_bytes: 0 }
    }
}

impl<R, E> Bounded<R, E> {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Known<R, E>> {
        self.requests.get(name)
    }

    /// Notes that a request runs.
    pub(super) fn begin(&mut self, name: &Name, running: R) {
        self.requests.insert(Arc::clone(name), Known::Running(running));
    }

    /// The state of a request that runs.
    pub(super) fn running(&mut self, name: &[u8]) -> Option<&mut R> {
        match self.requests.get_mut(name)? {
            Known::Running(running) => Some(running),
            Known::Ended(..) => None,
        }
    }

    /// Notes the end of a request that runs, unless its entry is too large, or none is to be kept: then it is forgotten.
    pub(super) fn end(&mut self, name: &Name, ended: E, body_bytes: usize, limits: DedupeOptions) {
        let bytes = name.len() + body_bytes;
        if bytes > limits.bytes || limits.entries == 0 {
            self.forget_running(name);
            return;
        }
        self.requests.insert(Arc::clone(name), Known::Ended(ended, bytes));
        self.ended.push_back(Arc::clone(name));
        self.ended_bytes += bytes;
        while self.ended.len() > limits.entries || self.ended_bytes > limits.bytes {
            self.forget_oldest();
        }
    }

    /// Forgets a request that runs.
    pub(super) fn forget_running(&mut self, name: &[u8]) {
        if let Some(Known::Running(_)) = self.requests.get(name) {
            self.requests.remove(name);
        }
    }

    /// The request that ended first.
    pub(super) fn oldest(&self) -> Option<&E> {
        match self.requests.get(self.ended.front()?)? {
            Known::Ended(ended, _) => Some(ended),
            Known::Running(_) => None,
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        let Some(oldest) = self.ended.pop_front() else { return };
        if let Some(Known::Ended(_, bytes)) = self.requests.remove(&oldest) {
            self.ended_bytes -= bytes;
        }
    }

    /// Forgets a request that has ended.
    pub(super) fn forget_ended(&mut self, name: &[u8]) {
        if let Some(Known::Ended(_, bytes)) = self.requests.get(name) {
            self.ended_bytes -= bytes;
            self.requests.remove(name);
            self.ended.retain(|ended| **ended != *name);
        }
    }

    /// How many requests run.
    pub(super) fn running_len(&self) -> usize {
        self.requests.len() - self.ended.len()
    }

    /// Forgets the requests that run, but for those.
    pub(super) fn retain_running(&mut self, runs_on: impl Fn(&R) -> bool) {
        self.requests.retain(|_, known| match known {
            Known::Running(running) => runs_on(running),
            Known::Ended(..) => true,
        });
    }

    #[cfg(test)]
    pub(super) fn ended_bytes(&self) -> usize {
        self.ended_bytes
    }
}

//! Counts a client's calls: one at its first poll, and its end under its code.

use super::request::{FOREVER, Request};
use crate::{
    call_error::CallError,
    meter::{Event, Of},
    stats::{CANCELLED, MethodCounts, OTHER},
};

impl Request {
    /// The counts of its method.
    #[inline]
    fn counts(&self) -> Option<&MethodCounts> {
        self.client.inner.called.of(self.service).at(self.method_index)
    }

    /// Counts the beginning of a call.
    #[inline]
    pub(super) fn note_begin(&self) {
        if let Some(counts) = self.counts() {
            counts.begin();
        }
    }

    /// Counts the end of a call; `code` is that of its error.
    #[inline]
    pub(super) fn note_end(&self, code: Option<&str>) {
        let Some(counts) = self.counts() else { return };
        counts.end(code);
        if counts.is_timed() {
            self.note_time(counts);
        }
    }

    #[cold]
    fn note_time(&self, counts: &MethodCounts) {
        let Some(limits) = self.limits else { return };
        // The first poll: the budget begins with it.
        let began_at = limits.deadline.checked_sub(limits.budget).or_else(|| limits.deadline.checked_sub(FOREVER));
        if let Some(began_at) = began_at {
            counts.note_time(began_at.elapsed());
        }
    }

    pub(super) fn note_event(&self, event: Event) {
        self.client.inner.counters.note(event, Of::Method(self.service.name, self.method.name));
    }

    /// Counts that a message of it is sent again.
    pub(super) fn note_resent(&self) {
        self.note_event(Event::Resent);
    }

    /// Counts the end of a call with an error; of a timeout the stage, too.
    #[cold]
    pub(super) fn note_failure<E>(&self, error: &CallError<E>) {
        if let CallError::Timeout { stage, .. } = error {
            self.note_event(Event::TimedOut(*stage));
        }
        self.note_end(Some(error.code()));
    }

    /// Counts the end of a call that was dropped.
    #[cold]
    pub(super) fn note_dropped(&self) {
        // A panic of a layer is the caller's own.
        self.note_end(Some(if std::thread::panicking() { OTHER } else { CANCELLED }));
    }
}

//! A lane: one queue of one service, served by one pool, over all the consumers it has in its life.

use std::sync::Arc;

use super::{caution::Caution, dedupe::Dedupe, dispatch::Dispatch, source::Source, stats::Counters};
use crate::{envelope::Code, meter::Event, nesting::Room, stats::ServiceCounts};

/// The parts of a lane that outlive its consumer.
pub(super) struct Lane {
    pub(super) source: Source,
    pub(super) service: Arc<dyn Dispatch>,
    /// The slots of its handlers, which are those of the pool.
    pub(super) room: Arc<Room>,
    pub(super) counters: Arc<Counters>,
    /// The counts of the service's methods, which all its lanes share.
    pub(super) counts: Arc<ServiceCounts>,
    /// Earlier answers, if the pool remembers them.
    pub(super) dedupe: Option<Dedupe>,
    /// Whether the service stands behind layers, and the memory of answers with it.
    pub(super) has_layers: bool,
    /// Whether handlers of quick methods may run in the consume loop.
    pub(super) is_inline: bool,
    /// Its lessons from refusals of its broker.
    pub(super) caution: Caution,
}

impl Lane {
    /// Counts an event of a request.
    pub(super) fn note(&self, event: Event) {
        self.counters.note(event, self.source.descriptor.name);
    }

    /// Counts a request for a method that is answered without its handler.
    #[cold]
    pub(super) fn note_refusal(&self, method: usize, code: Code) {
        if let Some(counts) = self.counts.at(method) {
            counts.refuse(code.name());
        }
    }
}

/// How far a shutdown has come, seen by every lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Begin no further request, finish the running ones.
    Draining,
    /// Stop waiting for handlers.
    Aborting,
}

/// How a lane ended.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// Every request it had begun was answered and acknowledged.
    Drained,
    /// Handlers were aborted; the broker requeues their requests.
    Aborted { handlers: usize },
    /// The consumer or its channel was lost.
    Lost { reason: String },
}

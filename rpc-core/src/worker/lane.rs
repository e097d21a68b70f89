//! A lane: one queue of one service, served by one pool, over all the consumers it has in its life.

use std::sync::Arc;

use super::{caution::Caution, dedupe::Dedupe, dispatch::Dispatch, source::Source, stats::Counters};
use crate::nesting::Room;

/// The parts of a lane that outlive its consumer.
pub(super) struct Lane {
    pub(super) source: Source,
    pub(super) service: Arc<dyn Dispatch>,
    /// The slots of its handlers, which are those of the pool.
    pub(super) room: Arc<Room>,
    pub(super) counters: Arc<Counters>,
    /// Earlier answers, if the pool remembers them.
    pub(super) dedupe: Option<Dedupe>,
    /// Whether the service stands behind layers, and the memory of answers with it.
    pub(super) has_layers: bool,
    /// Whether handlers of quick methods may run in the consume loop.
    pub(super) is_inline: bool,
    /// Its lessons from refusals of its broker.
    pub(super) caution: Caution,
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

//! Events that the facade `metrics` counts, beside the counters of clients and pools.
//!
//! All of them are rare, and none is on the way of a call that succeeds at once. Without the feature `metrics` nothing happens here.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "metrics")]
mod table;

use std::time::Duration;

#[cfg(feature = "metrics")]
pub(crate) use self::{
    facade::{METADATA, describe},
    table::{
        CLIENT_ACTIVE, CLIENT_DURATION, Metric, PROCESS_DURATION, PUBLISH_DURATION, QUEUE_WAIT, SERVER_ACTIVE,
        SERVER_DURATION,
    },
};
use crate::call_error::TimeoutStage;

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "the facade reads it"))]
pub(crate) enum Event {
    /// A client's request was sent again by the core.
    Resent,
    /// Another attempt of a client's call, by a layer or a policy.
    Retried,
    /// No queue took a client's request.
    Returned,
    /// A reply whose call had ended without one.
    LateReply,
    /// A reply to a call that has had one.
    DuplicateReply,
    /// A reply that names no call of the client.
    ForeignReply,
    /// A call that workers are told of, because its caller has given up.
    CancelSent,
    /// A client looked for workers.
    Looked,
    /// An attempt ended because no worker is there.
    Unserved,
    /// A call timed out.
    TimedOut(TimeoutStage),
    /// A pool's request that was delivered before.
    Redelivered,
    DeadLettered,
    DeadLetterLost,
    Shed,
    /// A pool dropped a request whose caller had given up.
    Expired,
    /// A pool's handler was stopped because its caller gave up.
    Cancelled,
    Deduplicated,
    OnewayFailed,
    Forbidden,
    /// A reply was returned: its caller is gone.
    CallerGone,
    ReplyRefused,
    Reconnected,
}

/// The subject of an event, as far as it is known. All names are those of descriptors.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "the facade reads it"))]
pub(crate) enum Of {
    Method(&'static str, &'static str),
    Service(&'static str),
    Nothing,
}

/// Counts an event.
#[cold]
pub(crate) fn count(event: Event, of: Of) {
    #[cfg(feature = "metrics")]
    facade::count(event, of);
    #[cfg(not(feature = "metrics"))]
    let _ = (event, of);
}

/// Notes that the broker has blocked a connection, or, with the time that it was blocked for, that it does no longer.
#[cold]
pub(crate) fn note_blocked(ended: Option<Duration>) {
    #[cfg(feature = "metrics")]
    facade::note_blocked(ended);
    #[cfg(not(feature = "metrics"))]
    let _ = ended;
}

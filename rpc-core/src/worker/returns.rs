//! Replies that came back: their caller has gone, and its reply queue with it.
//!
//! The client library keeps returned messages until somebody asks. Nobody asks for each reply: a task looks once a
//! second, when there were replies.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::stats::Counters;
use crate::connection::Channel;

/// Counts what comes back on a channel; dropping it stops that.
#[derive(Debug)]
pub(super) struct ReturnsTask(AbortHandle);

impl ReturnsTask {
    pub(super) fn spawn(channel: Channel, counters: Arc<Counters>) -> Self {
        Self(tokio::spawn(count_returns(channel, counters)).abort_handle())
    }
}

impl Drop for ReturnsTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn count_returns(channel: Channel, counters: Arc<Counters>) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // One more look after the last reply: its return may take a moment.
    let (mut answered, mut is_quiet) = (0, true);
    loop {
        look.tick().await;
        let now_answered = counters.answered.load(Ordering::Relaxed);
        let was_quiet = std::mem::replace(&mut is_quiet, answered == now_answered);
        answered = now_answered;
        if !(was_quiet && is_quiet) {
            take_returned(&channel, &counters);
        }
    }
}

/// Counts what has come back so far.
pub(super) fn take_returned(channel: &Channel, counters: &Counters) {
    let returned = channel.drain_returned().len();
    if returned > 0 {
        tracing::debug!(returned, "replies whose callers have gone");
        counters.callers_gone.fetch_add(returned as u64, Ordering::Relaxed);
    }
}

/// What comes back within this time is held in memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

//! Keeps a connection open: turns a link's events into states, and reopens what was lost.
//!
//! ```text
//!  Connected ◄──► Blocked
//!      │ lost
//!      ▼
//!  Reconnecting ──pause (full jitter), next node──► Connected   (a new epoch: new channels, new reply queues)
//!      └──attempts spent──► Closed
//! ```
//!
//! lapin's own recovery stays off: it restores channels silently, and calls in flight would never be told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use super::{ConnectionOptions, Endpoint, Event, Link, State, open_link, transport::Events};

/// The task behind a connection.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) endpoints: Vec<Endpoint>,
    /// The endpoint of the current epoch.
    pub(super) at: usize,
    pub(super) options: ConnectionOptions,
    pub(super) link: watch::Sender<Arc<Link>>,
    pub(super) state: watch::Sender<State>,
    pub(super) closing: Arc<AtomicBool>,
}

impl Supervisor {
    /// Runs until the connection is closed for good.
    pub(super) async fn run(mut self, events: Events) {
        let mut lost = self.follow(events).await;
        while !self.closing.load(Ordering::Acquire) {
            tracing::warn!(reason = lost, "connection lost");
            self.enter(State::Reconnecting { reason: lost.clone() });
            match self.reopen(lost).await {
                Ok(link) => {
                    let events = link.events();
                    // The link first: whoever sees `Connected` must find it.
                    self.set(&self.link, Arc::new(link));
                    self.enter(State::Connected);
                    lost = self.follow(events).await;
                }
                Err(reason) => {
                    tracing::error!(reason, "connection given up");
                    self.enter(State::Closed { reason });
                    return;
                }
            }
        }
    }

    fn enter(&self, state: State) {
        self.set(&self.state, state);
    }

    /// Sets what others see, unless the application is closing the connection: it may do so at any moment, and what it
    /// sets, and closes, is the last.
    fn set<T>(&self, place: &watch::Sender<T>, value: T) {
        place.send_if_modified(|current| {
            let is_open = !self.closing.load(Ordering::Acquire);
            if is_open {
                *current = value;
            }
            is_open
        });
    }

    /// Follows one epoch to its end, and says why it ended.
    async fn follow(&self, mut events: Events) -> String {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = std::future::poll_fn(|cx| events.as_mut().poll_next(cx)) => event,
                // Should a connection ever be lost without a word, nobody waits for ever.
                _ = look.tick() => if self.link.borrow().is_connected() { continue } else { None },
            };
            match event {
                Some(Event::Blocked(reason)) => {
                    tracing::warn!(reason, "connection blocked by the broker");
                    self.enter(State::Blocked { reason });
                }
                Some(Event::Unblocked) => {
                    tracing::info!("connection unblocked");
                    self.enter(State::Connected);
                }
                Some(Event::Failed(reason)) if !self.link.borrow().is_connected() => return reason,
                // A channel's failure is for those who use it.
                Some(Event::Failed(_)) => {}
                None => return "the connection ended".to_owned(),
            }
        }
    }

    /// Tries the nodes in turn, from the one after the last.
    async fn reopen(&mut self, mut reason: String) -> Result<Link, String> {
        let mut backoff = Backoff::new(self.options.reconnect_delay_min, self.options.reconnect_delay_max);
        let mut attempt = 0;
        loop {
            if self.options.reconnect_attempts.is_some_and(|attempts| attempt >= attempts) {
                return Err(reason);
            }
            attempt += 1;
            sleep(backoff.pause()).await;
            self.at = (self.at + 1) % self.endpoints.len();
            match open_link(&self.endpoints[self.at], &self.options).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    reason = error.to_string();
                    tracing::warn!(attempt, reason, "could not reconnect");
                    self.enter(State::Reconnecting { reason: reason.clone() });
                }
            }
        }
    }
}

/// Exponential backoff with full jitter: each pause is drawn between nothing and a limit that doubles.
///
/// Full jitter keeps the clients of a restarted broker from coming back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    limit: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { limit: min.min(max), max }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        // 32 random bits of a v4 uuid: the randomness this crate has anyway.
        let random = Uuid::new_v4().as_u64_pair().1 as u32;
        let pause = self.limit.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.limit = (self.limit * 2).min(self.max);
        pause
    }
}

/// How often the connection is looked at besides listening to it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "broker")]
    #[tokio::test]
    async fn a_close_is_the_last_that_is_seen() {
        let broker = crate::broker::Broker::builder().start().await.expect("the bundled broker starts");
        let endpoint = Endpoint::parse(&format!("{}?transport=native", broker.uri())).expect("it is a good URI");
        let options = ConnectionOptions::default();
        let link = Arc::new(open_link(&endpoint, &options).await.expect("the broker is there"));
        let late = Arc::new(open_link(&endpoint, &options).await.expect("the broker is there"));
        let supervisor = Supervisor {
            endpoints: vec![endpoint],
            at: 0,
            options,
            link: watch::Sender::new(Arc::clone(&link)),
            state: watch::Sender::new(State::Connected),
            closing: Arc::new(AtomicBool::new(true)),
        };
        // As it does when it has just reopened the connection.
        supervisor.set(&supervisor.link, late);
        supervisor.enter(State::Blocked { reason: String::new() });
        assert!(Arc::ptr_eq(&supervisor.link.borrow(), &link));
        assert_eq!(*supervisor.state.borrow(), State::Connected);
        supervisor.closing.store(false, Ordering::Release);
        supervisor.enter(State::Blocked { reason: String::new() });
        assert!(matches!(*supervisor.state.borrow(), State::Blocked { .. }));
    }

    #[test]
    fn pauses_grow_to_the_maximum_and_are_spread() {
        let (min, max) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut backoff = Backoff::new(min, max);
        let mut limits = Vec::new();
        for _ in 0..5 {
            limits.push(backoff.limit.as_millis());
            assert!(backoff.pause() <= max);
        }
        assert_eq!(limits, [100, 200, 400, 400, 400]);
        let mut pauses: Vec<_> = (0..16).map(|_| backoff.pause()).collect();
        pauses.dedup();
        assert!(pauses.len() > 8, "{pauses:?}");
    }
}

//! The state of a connection, and how to follow it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    link::Link,
    stats::{ConnectionStats, Stopwatch},
};
use crate::{
    error::Error,
    meter::{self, Event, Of},
};

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Requests and replies flow.
    Connected,
    /// The broker has stopped reading from this connection (`connection.blocked`: the broker is short of memory or disk).
    Blocked {
        /// The broker's words.
        reason: String,
    },
    /// Lost, and being reopened. Calls wait, within their budget; pools serve again once it is open.
    Reconnecting {
        /// Why it was lost, or why the last attempt failed.
        reason: String,
    },
    /// Closed by the application, or given up after [`reconnect_attempts`](crate::ConnectionOptions::reconnect_attempts).
    Closed {
        /// Why.
        reason: String,
    },
}

impl ConnectionState {
    /// Whether the connection is open: channels can be opened on it.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Connected | Self::Blocked { .. })
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// The one truth about a connection: the link of the current epoch, and the state.
///
/// Both change together, so no reader can pair a state with the link of another epoch.
#[derive(Debug)]
pub(super) struct Current {
    /// While reconnecting, the one that was lost; `None` once the connection is closed.
    pub(super) link: Option<Arc<Link>>,
    pub(super) state: ConnectionState,
    /// Counts the links.
    pub(super) epoch: u64,
    /// Runs in the state `Blocked`.
    blocked: Stopwatch,
}

impl Current {
    /// The first epoch.
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link: Some(link), state: ConnectionState::Connected, epoch: 1, blocked: Stopwatch::default() }
    }

    /// One that was never open, and never will be.
    pub(super) fn closed(reason: &str) -> Self {
        let state = ConnectionState::Closed { reason: reason.to_owned() };
        Self { link: None, state, epoch: 1, blocked: Stopwatch::default() }
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        ConnectionStats { reconnects: self.epoch - 1, blocked: self.blocked.total() }
    }

    /// Changes the state within the epoch.
    pub(super) fn enter(&mut self, state: ConnectionState) {
        let is_blocked = matches!(state, ConnectionState::Blocked { .. });
        if is_blocked && !matches!(self.state, ConnectionState::Blocked { .. }) {
            meter::note_blocked(None);
        }
        if let Some(ended) = self.blocked.run(is_blocked) {
            meter::note_blocked(Some(ended));
        }
        self.state = state;
    }

    /// The link, if a channel can be opened on it. The link can have ended before the supervisor has seen that: the state
    /// alone is not enough.
    pub(super) fn usable_link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| self.state.is_open() && link.is_connected())
    }

    /// The next epoch begins.
    pub(super) fn reopen(&mut self, link: Arc<Link>) {
        self.enter(ConnectionState::Connected);
        self.link = Some(link);
        self.epoch += 1;
        meter::count(Event::Reconnected, Of::Nothing);
    }

    /// Closes for good, unless that has happened before; returns the link, which is still to be closed.
    pub(super) fn close(&mut self, reason: &str) -> Option<Arc<Link>> {
        if !self.state.is_closed() {
            self.enter(ConnectionState::Closed { reason: reason.to_owned() });
        }
        self.link.take()
    }
}

/// Follows the state of a connection; made by [`Connection::states`](crate::Connection::states).
#[derive(Debug, Clone)]
pub struct ConnectionStates {
    current: watch::Receiver<Current>,
}

impl ConnectionStates {
    pub(super) const fn new(current: watch::Receiver<Current>) -> Self {
        Self { current }
    }

    /// The state now.
    pub fn current(&self) -> ConnectionState {
        self.current.borrow().state.clone()
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        self.current.borrow().stats()
    }

    /// Waits for the next change, and returns the state after it. Of several quick changes only the last is seen.
    ///
    /// # Errors
    /// [`Error::Closed`]: the last handle of the connection is dropped, the state changes no more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn changed(&mut self) -> Result<ConnectionState, Error> {
        self.current.changed().await.map_err(|_| dropped())?;
        Ok(self.current.borrow_and_update().state.clone())
    }

    /// Waits for a state, the current one included, and returns it.
    ///
    /// # Errors
    /// As [`changed`](Self::changed).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for(
        &mut self,
        mut is_awaited: impl FnMut(&ConnectionState) -> bool,
    ) -> Result<ConnectionState, Error> {
        let reached = self.current.wait_for(|current| is_awaited(&current.state)).await;
        reached.map(|current| current.state.clone()).map_err(|_| dropped())
    }
}

fn dropped() -> Error {
    Error::Closed { reason: "the last handle of the connection was dropped".to_owned() }
}

//! [`InProcess`]: the servers of a client that has no broker. `deliver.rs` sends them its calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use uuid::Uuid;

use super::life::Life;
use crate::{
    connection::Delivery,
    error::Error,
    servers::{Servers, Serving},
};

/// Of all clones of one client.
#[derive(Debug)]
pub(super) struct InProcess {
    pub(super) servers: Arc<dyn Servers>,
    /// Names them in answers to pings.
    pub(super) id: Uuid,
    life: Life,
    in_flight: AtomicUsize,
}

impl InProcess {
    pub(super) fn new(servers: Arc<dyn Servers>) -> Self {
        Self { servers, id: Uuid::new_v4(), life: Life::default(), in_flight: AtomicUsize::new(0) }
    }

    /// # Errors
    /// [`Error::Closed`] once the client is shut down.
    pub(super) fn ready(&self) -> Result<(), Error> {
        match self.life.has_ended() {
            true => Err(Error::Closed { reason: "the client was shut down".to_owned() }),
            false => Ok(()),
        }
    }

    /// Ends the calls in flight.
    pub(super) fn end(&self) {
        self.life.end();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Waits for an answer; `None` when the client is shut down before.
    pub(super) async fn answer(&self, serving: Serving) -> Option<Option<Delivery>> {
        let _counted = Counted::new(&self.in_flight);
        tokio::select! {
            biased;
            answer = serving => Some(answer),
            () = self.life.ended() => None,
        }
    }
}

/// A call in flight.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(in_flight: &'a AtomicUsize) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self(in_flight)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

//! The places for connections: how many there are at once, and how many of them may be clients that have not logged in.
//!
//! ```text
//!  accept ─► admit ─► stranger ──connection.open──► guest, until the socket closes
//!                        └─ too many strangers, or no place left: the oldest has to leave
//! ```
//!
//! The oldest stranger leaves, and not the newest: sockets that stay silent, or stall their TLS handshake, keep no other
//! client out. A client that logs in needs its place for milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::lock::lock;

/// The places of a broker.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    strangers_max: usize,
    places: Mutex<Places>,
    /// Notified when a place is free that `admit` may wait for.
    left: Notify,
}

#[derive(Debug, Default)]
struct Places {
    /// Connections accepted and not closed, even those before their handshake.
    taken: usize,
    /// Those that have not logged in, by the order of their arrival.
    strangers: BTreeMap<u64, Arc<Notify>>,
    /// Those that have been told to leave, and have not closed yet.
    leaving: BTreeSet<u64>,
    arrived: u64,
}

impl Seats {
    pub(super) fn new(max: usize, strangers_max: usize) -> Arc<Self> {
        let (places, left) = (Mutex::default(), Notify::new());
        Arc::new(Self { max, strangers_max: strangers_max.max(1), places, left })
    }

    /// A place for an accepted connection, as soon as a stranger has left if there is no other; `None` when guests have all of them.
    pub(super) async fn admit(self: &Arc<Self>) -> Option<Seat> {
        let deadline = Instant::now() + LEAVING_TIMEOUT;
        loop {
            {
                let mut places = self.places();
                if places.taken < self.max {
                    return Some(self.seat(&mut places));
                }
                if places.leaving.is_empty() && !places.dismiss_oldest() {
                    return None;
                }
            }
            // One that leaves meanwhile leaves its notice.
            timeout_at(deadline, self.left.notified()).await.ok()?;
        }
    }

    fn seat(self: &Arc<Self>, places: &mut Places) -> Seat {
        places.taken += 1;
        places.arrived += 1;
        let (number, cut) = (places.arrived, Arc::default());
        places.strangers.insert(number, Arc::clone(&cut));
        if places.strangers.len() > self.strangers_max {
            places.dismiss_oldest();
        }
        Seat { seats: Arc::clone(self), number, cut }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }
}

impl Places {
    /// Tells the oldest stranger to leave; false when there is none.
    fn dismiss_oldest(&mut self) -> bool {
        let Some((number, oldest)) = self.strangers.pop_first() else { return false };
        tracing::info!("a client that has not logged in is disconnected: others need its place");
        oldest.notify_one();
        self.leaving.insert(number)
    }
}

/// The place of one connection. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    /// Notified when the client has to leave.
    pub(super) cut: Arc<Notify>,
}

impl Seat {
    /// Notes that the client has logged in, so that it may stay.
    pub(super) fn settle(&self) {
        self.seats.places().strangers.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.seats.places();
        places.taken -= 1;
        places.strangers.remove(&self.number);
        if places.leaving.remove(&self.number) {
            self.seats.left.notify_one();
        }
    }
}

/// A connection that is told to leave waits for nothing.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use tokio::task::yield_now;

    use super::*;

    /// A notification that was given is there at the first poll.
    fn has_to_leave(seat: &Seat) -> bool {
        pin!(seat.cut.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_oldest_stranger_leaves_when_another_comes() {
        let seats = Seats::new(10, 2);
        let guest = seats.admit().await.unwrap();
        guest.settle();
        let (first, second) = (seats.admit().await.unwrap(), seats.admit().await.unwrap());
        assert!(!has_to_leave(&first));
        let third = seats.admit().await.unwrap();
        assert!(has_to_leave(&first) && !has_to_leave(&second) && !has_to_leave(&guest));
        drop(second);
        let fourth = seats.admit().await.unwrap();
        assert!(!has_to_leave(&third) && !has_to_leave(&fourth), "there was room again");
    }

    #[tokio::test]
    async fn guests_keep_their_places() {
        let seats = Seats::new(2, 2);
        let (first, second) = (seats.admit().await.unwrap(), seats.admit().await.unwrap());
        first.settle();
        second.settle();
        assert!(seats.admit().await.is_none() && seats.admit().await.is_none());
        drop(first);
        assert!(seats.admit().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_places_are_taken_a_stranger_leaves_for_a_client() {
        let seats = Seats::new(2, 2);
        let guest = seats.admit().await.unwrap();
        guest.settle();
        let stranger = seats.admit().await.unwrap();
        let leaving = async {
            stranger.cut.notified().await;
            // Its task does not run at once.
            yield_now().await;
            drop(stranger);
        };
        let (admitted, ()) = tokio::join!(seats.admit(), leaving);
        let client = admitted.expect("the stranger's place");
        client.settle();
        assert!(!has_to_leave(&guest) && seats.admit().await.is_none());
        drop(client);
        let _held_up = seats.admit().await.unwrap();
        assert!(seats.admit().await.is_none(), "one that does not leave is not waited for without a limit");
    }
}

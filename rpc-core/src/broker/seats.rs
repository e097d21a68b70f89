//! The places for connections: how many there are at once, and how many of them may be clients that have not logged in.
//!
//! ```text
//!  accept ─► admit ─► stranger ──connection.open──► guest, until the socket closes
//!                        └─ too many strangers: the oldest has to leave
//! ```
//!
//! The oldest stranger leaves, and not the newest: sockets that stay silent, or stall their TLS handshake, keep no other
//! client out. A client that logs in needs its place for milliseconds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::lock::lock;

/// The places of a broker.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    strangers_max: usize,
    /// Connections accepted and not closed, even those before their handshake.
    taken: AtomicUsize,
    strangers: Mutex<Strangers>,
}

#[derive(Debug, Default)]
struct Strangers {
    /// By the order of their arrival.
    waiting: BTreeMap<u64, Arc<Notify>>,
    arrived: u64,
}

impl Seats {
    pub(super) fn new(max: usize, strangers_max: usize) -> Arc<Self> {
        let (taken, strangers) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { max, strangers_max: strangers_max.max(1), taken, strangers })
    }

    /// A place for an accepted connection; `None` when all are taken.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Seat> {
        // Counted by its drop, whether it is handed out or not.
        let mut seat = Seat { seats: Arc::clone(self), number: 0, cut: Arc::default() };
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.max {
            return None;
        }
        let mut strangers = self.strangers();
        strangers.arrived += 1;
        seat.number = strangers.arrived;
        strangers.waiting.insert(seat.number, Arc::clone(&seat.cut));
        if strangers.waiting.len() > self.strangers_max
            && let Some((_, oldest)) = strangers.waiting.pop_first()
        {
            tracing::info!("a client that has not logged in is disconnected: too many others wait for their login");
            oldest.notify_one();
        }
        drop(strangers);
        Some(seat)
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        lock(&self.strangers)
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
        self.seats.strangers().waiting.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.settle();
        self.seats.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    /// A notification that was given is there at the first poll.
    fn has_to_leave(seat: &Seat) -> bool {
        pin!(seat.cut.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_stranger_leaves_when_another_comes() {
        let seats = Seats::new(10, 2);
        let guest = seats.admit().unwrap();
        guest.settle();
        let (first, second) = (seats.admit().unwrap(), seats.admit().unwrap());
        assert!(!has_to_leave(&first));
        let third = seats.admit().unwrap();
        assert!(has_to_leave(&first) && !has_to_leave(&second) && !has_to_leave(&guest));
        drop(second);
        let fourth = seats.admit().unwrap();
        assert!(!has_to_leave(&third) && !has_to_leave(&fourth), "there was room again");
    }

    #[test]
    fn seats_are_counted_until_they_are_dropped() {
        let seats = Seats::new(2, 2);
        let (first, second) = (seats.admit(), seats.admit());
        assert!(seats.admit().is_none() && seats.admit().is_none());
        drop(first);
        assert!(second.is_some() && seats.admit().is_some());
        assert!(seats.strangers().waiting.len() <= 1);
    }
}

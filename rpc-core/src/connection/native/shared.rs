//! The sending side of a connection, as its handles and its io task share it.

use std::{
    pin::pin,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::failure::Failure;
use super::outbox::{Closed, Outbox};
use crate::{connection::amqp::Event, error::Error, lock::lock};

/// One connection, without its channels (`channels.rs`).
#[derive(Debug)]
pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    frame_max_bytes: usize,
    is_connected: AtomicBool,
    was_used: AtomicBool,
    events: mpsc::UnboundedSender<Event>,
    /// Wakes the publishers that wait for room in the outbox.
    room: Notify,
    /// Waits for the broker's `connection.update-secret-ok`.
    secret: Mutex<Option<oneshot::Sender<()>>>,
}

impl Shared {
    pub(super) fn new(frame_max: u32, outbox_max_bytes: usize, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(frame_max, outbox_max_bytes)),
            frame_max_bytes: frame_max as usize,
            is_connected: AtomicBool::new(true),
            was_used: AtomicBool::new(false),
            room: Notify::new(),
            secret: Mutex::default(),
            events,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Acquire)
    }

    pub(super) fn frame_max_bytes(&self) -> usize {
        self.frame_max_bytes
    }

    pub(super) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Relaxed)
    }

    pub(super) fn note_use(&self) {
        self.was_used.store(true, Ordering::Relaxed);
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    /// Queues frames, and wakes the io task for them.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Outbox) -> Result<T, Error>) -> Result<T, Error> {
        let mut outbox = self.outbox();
        if let Some(failure) = outbox.ended() {
            return Err(failure.late());
        }
        let written = write(&mut outbox)?;
        let writer = outbox.take_writer();
        drop(outbox);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(written)
    }

    /// Waits until the outbox has room for a request, or the connection has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn room(&self) {
        loop {
            let mut room = pin!(self.room.notified());
            // Before the look, so that room that is made between the two wakes this task.
            room.as_mut().enable();
            if !self.outbox().await_room() {
                return;
            }
            room.await;
        }
    }

    /// The outbox has room again.
    pub(super) fn make_room(&self) {
        self.room.notify_waiters();
    }

    /// Waits for the answer to a `connection.update-secret` that is queued next; an error says that the connection has ended.
    pub(super) fn await_secret(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *lock(&self.secret) = Some(sender);
        receiver
    }

    /// The broker has taken it.
    pub(super) fn secret_updated(&self) {
        if let Some(waiter) = lock(&self.secret).take() {
            // An error says that nobody waits any more.
            let _ = waiter.send(());
        }
    }

    pub(super) fn report(&self, event: Event) {
        // Without a listener the link is dropped.
        drop(self.events.send(event));
    }

    /// Lets nothing more be queued. The first time it returns the closer that waits for the end, if there is one.
    pub(super) fn end(&self, failure: &Failure) -> Option<Option<Closed>> {
        let closed = self.outbox().end(failure.clone());
        drop(lock(&self.secret).take());
        self.make_room();
        self.is_connected.swap(false, Ordering::AcqRel).then_some(closed)
    }
}

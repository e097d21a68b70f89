//! The channels of one connection, by number.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use amq_protocol::protocol::{
    AMQPClass,
    channel::{AMQPMethod, CloseOk},
};

use super::{channel::Inner, failure::Failure, shared::Shared, unawaited::Awaited};
use crate::{connection::amqp::Event, error::Error, lock::lock};

/// A connection's table of channels. A channel whose handles are dropped keeps its number until the broker has confirmed
/// that it is closed.
#[derive(Debug)]
pub(super) struct Channels {
    shared: Arc<Shared>,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    slots: Vec<Option<Slot>>,
    channel_max: u16,
}

#[derive(Debug)]
struct Slot {
    inner: Weak<Inner>,
    /// The channel's own: the broker may close the channel while its last handle is dropped.
    failure: Arc<OnceLock<Failure>>,
}

impl Channels {
    pub(super) fn new(shared: Arc<Shared>, channel_max: u16) -> Self {
        // Number 0 is the connection's.
        let slots = vec![Some(Slot { inner: Weak::new(), failure: Arc::default() })];
        Self { shared, table: Mutex::new(Table { slots, channel_max }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Puts a new channel on the first free number.
    pub(super) fn add(&self) -> Result<Arc<Inner>, Error> {
        let mut table = self.table();
        let number = table.slots.iter().position(Option::is_none).unwrap_or(table.slots.len());
        let channel_max = table.channel_max;
        let id = u16::try_from(number).ok().filter(|id| *id <= channel_max);
        let id = id.ok_or(Error::NoChannelLeft { channel_max })?;
        let failure = Arc::default();
        let inner = Arc::new(Inner::new(id, Arc::clone(&self.shared), Arc::clone(&failure)));
        let slot = Some(Slot { inner: Arc::downgrade(&inner), failure });
        match table.slots.get_mut(number) {
            Some(free) => *free = slot,
            None => table.slots.push(slot),
        }
        Ok(inner)
    }

    /// The channel of a frame; `None` when its handles are dropped.
    pub(super) fn find(&self, id: u16) -> Option<Arc<Inner>> {
        self.table().slots.get(usize::from(id))?.as_ref()?.inner.upgrade()
    }

    /// The open channels whose requests may leave the outbox.
    pub(super) fn awaited(&self) -> Vec<(u16, Awaited)> {
        // The last handle of a channel may be dropped here, which queues a close.
        let open: Vec<_> = self.table().slots.iter().flatten().filter_map(|slot| slot.inner.upgrade()).collect();
        open.iter().filter_map(|inner| Some((inner.id(), inner.awaited()?))).collect()
    }

    /// Confirms that the broker has closed a channel. Nothing more is sent on it, and its number is free, unless our own
    /// `channel.close` has crossed the broker's. For the io task, which needs no waking.
    pub(super) fn close_ok(&self, id: u16, failure: &Failure) {
        let known = match self.table().slots.get(usize::from(id)) {
            Some(Some(slot)) => Some(Arc::clone(&slot.failure)),
            _ => None,
        };
        let is_news = {
            let mut outbox = self.shared.outbox();
            outbox.method(id, &AMQPClass::Channel(AMQPMethod::CloseOk(CloseOk {})));
            known.is_some_and(|known| known.set(failure.clone()).is_ok())
        };
        if is_news {
            self.free(id);
        }
    }

    /// Frees the number of a channel that the broker has forgotten, too.
    pub(super) fn free(&self, id: u16) {
        if let Some(slot) = self.table().slots.get_mut(usize::from(id)).filter(|_| id > 0) {
            *slot = None;
        }
    }

    /// Ends the connection and all channels. Only the first time counts.
    pub(super) fn end(&self, failure: &Failure, is_clean: bool) {
        let Some(closed) = self.shared.end(failure) else { return };
        let slots = std::mem::take(&mut self.table().slots);
        for inner in slots.into_iter().flatten().filter_map(|slot| slot.inner.upgrade()) {
            inner.fail(failure);
        }
        if let Some(closed) = closed {
            drop(closed.send(if is_clean { Ok(()) } else { Err(failure.clone()) }));
        }
        self.shared.report(Event::Failed(failure.reason()));
    }
}

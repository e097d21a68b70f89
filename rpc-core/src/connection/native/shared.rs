//! What a connection's handles and its io task share.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use amq_protocol::protocol::{
    AMQPClass,
    channel::{AMQPMethod, CloseOk},
};
use tokio::sync::mpsc;

use super::{channel::Inner, handshake::Tuning, outbox::Outbox};
use crate::{
    connection::transport::{CONNECTION_FORCED, Event},
    error::Error,
};

/// Why a channel or a connection is of no use any more.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The broker closed it, and said why.
    Refused {
        reply_code: u16,
        reply_text: Arc<str>,
    },
    Lost {
        reason: Arc<str>,
    },
}

impl Failure {
    pub(super) fn lost(reason: impl AsRef<str>) -> Self {
        Self::Lost { reason: reason.as_ref().into() }
    }

    pub(super) fn closed_by_us() -> Self {
        Self::lost("closed by the application")
    }

    /// What the broker says when it closes.
    pub(super) fn told(reply_code: u16, reply_text: &str) -> Self {
        match reply_code {
            CONNECTION_FORCED => Self::lost(format!("{reply_code} {reply_text}")),
            _ => Self::Refused { reply_code, reply_text: reply_text.into() },
        }
    }

    /// As the error of what was under way.
    pub(super) fn error(&self, operation: &str) -> Error {
        match self {
            Self::Refused { reply_code, reply_text } => Error::Refused {
                operation: operation.to_owned(),
                reply_code: *reply_code,
                reply_text: reply_text.to_string(),
            },
            Self::Lost { reason } => Error::Disconnected { reason: reason.to_string() },
        }
    }

    /// As the error of what is attempted afterwards: it was not refused itself, and may do on another channel.
    pub(super) fn late(&self) -> Error {
        Error::Disconnected { reason: self.reason() }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused { reply_code, reply_text } => format!("{reply_code} {reply_text}"),
            Self::Lost { reason } => reason.to_string(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    channels: Mutex<Channels>,
    is_connected: AtomicBool,
    events: mpsc::UnboundedSender<Event>,
}

/// By number; a channel whose handles are gone keeps its number until the broker has confirmed that it is closed.
#[derive(Debug)]
struct Channels {
    slots: Vec<Option<Slot>>,
    channel_max: u16,
}

#[derive(Debug)]
struct Slot {
    inner: Weak<Inner>,
    /// The channel's: the broker may close it while its last handle goes.
    failure: Arc<OnceLock<Failure>>,
}

impl Shared {
    pub(super) fn new(tuning: Tuning, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(tuning.frame_max)),
            // Number 0 is the connection's.
            channels: Mutex::new(Channels {
                slots: vec![Some(Slot { inner: Weak::new(), failure: Arc::default() })],
                channel_max: tuning.channel_max,
            }),
            is_connected: AtomicBool::new(true),
            events,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Acquire)
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new channel on the first free number.
    pub(super) fn new_channel(self: &Arc<Self>) -> Result<Arc<Inner>, Error> {
        let mut channels = self.channels();
        let number = channels.slots.iter().position(Option::is_none).unwrap_or(channels.slots.len());
        let channel_max = channels.channel_max;
        let id = u16::try_from(number).ok().filter(|id| *id <= channel_max);
        let id = id.ok_or(Error::NoChannelLeft { channel_max })?;
        let failure = Arc::default();
        let inner = Arc::new(Inner::new(id, Arc::clone(self), Arc::clone(&failure)));
        let slot = Some(Slot { inner: Arc::downgrade(&inner), failure });
        match channels.slots.get_mut(number) {
            Some(free) => *free = slot,
            None => channels.slots.push(slot),
        }
        Ok(inner)
    }

    /// The channel of a frame; `None` when nobody holds it any more.
    pub(super) fn channel(&self, id: u16) -> Option<Arc<Inner>> {
        self.channels().slots.get(usize::from(id))?.as_ref()?.inner.upgrade()
    }

    /// Confirms that the broker has closed a channel: nothing more is sent on it, and its number is free, unless our own
    /// `channel.close` has crossed the broker's. For the io task, which needs no waking.
    pub(super) fn close_ok(&self, id: u16, failure: &Failure) {
        let known = match self.channels().slots.get(usize::from(id)) {
            Some(Some(slot)) => Some(Arc::clone(&slot.failure)),
            _ => None,
        };
        let is_news = {
            let mut outbox = self.outbox();
            outbox.method(id, &AMQPClass::Channel(AMQPMethod::CloseOk(CloseOk {})));
            known.is_some_and(|known| known.set(failure.clone()).is_ok())
        };
        if is_news {
            self.free_channel(id);
        }
    }

    /// The broker has forgotten it, too.
    pub(super) fn free_channel(&self, id: u16) {
        if let Some(slot) = self.channels().slots.get_mut(usize::from(id)).filter(|_| id > 0) {
            *slot = None;
        }
    }

    pub(super) fn tell(&self, event: Event) {
        // Without a listener the link is gone.
        drop(self.events.send(event));
    }

    /// Ends the connection for everyone. Only the first time counts.
    pub(super) fn end(&self, failure: &Failure, is_clean: bool) {
        let closed = self.outbox().end(failure.clone());
        if !self.is_connected.swap(false, Ordering::AcqRel) {
            return;
        }
        let slots = std::mem::take(&mut self.channels().slots);
        for inner in slots.into_iter().flatten().filter_map(|slot| slot.inner.upgrade()) {
            inner.fail(failure);
        }
        if let Some(closed) = closed {
            drop(closed.send(if is_clean { Ok(()) } else { Err(failure.clone()) }));
        }
        self.tell(Event::Failed(failure.reason()));
    }
}

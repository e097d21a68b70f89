//! What was received, whoever received it.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use super::{
    cancellation::Cancellation,
    carrier::{Carrier, either},
    lapin, native,
    transport::HeaderValue,
};

/// One received message. Properties are read where they lie; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Delivery(Carrier<Arc<Lapin>, Arc<Native>>);

type Lapin = Received<lapin::Message>;
type Native = Received<native::Message>;

/// lapin's messages are half a kilobyte: behind a pointer, everything that carries a delivery stays small.
#[derive(Debug)]
pub(super) struct Received<M> {
    message: M,
    is_claimed: AtomicBool,
    cancellation: Cancellation,
}

impl<M> Received<M> {
    fn new(message: M) -> Arc<Self> {
        Arc::new(Self { message, is_claimed: AtomicBool::new(false), cancellation: Cancellation::default() })
    }
}

/// A delivery that may be dealt with already; it holds no body in memory. The default is of none.
#[derive(Debug, Default)]
pub(crate) struct WeakDelivery(Option<Carrier<Weak<Lapin>, Weak<Native>>>);

impl WeakDelivery {
    pub(crate) fn upgrade(&self) -> Option<Delivery> {
        Some(Delivery(match self.0.as_ref()? {
            Carrier::Lapin(received) => Carrier::Lapin(received.upgrade()?),
            Carrier::Native(received) => Carrier::Native(received.upgrade()?),
        }))
    }
}

impl From<lapin::Message> for Delivery {
    fn from(message: lapin::Message) -> Self {
        Self(Carrier::Lapin(Received::new(message)))
    }
}

impl From<native::Message> for Delivery {
    fn from(message: native::Message) -> Self {
        Self(Carrier::Native(Received::new(message)))
    }
}

impl Delivery {
    /// The message as its transport has it.
    pub(super) fn message(&self) -> Carrier<&lapin::Message, &native::Message> {
        match &self.0 {
            Carrier::Lapin(received) => Carrier::Lapin(&received.message),
            Carrier::Native(received) => Carrier::Native(&received.message),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakDelivery {
        WeakDelivery(Some(match &self.0 {
            Carrier::Lapin(received) => Carrier::Lapin(Arc::downgrade(received)),
            Carrier::Native(received) => Carrier::Native(Arc::downgrade(received)),
        }))
    }

    /// True for the first who asks, of all who share the delivery: that one decides what becomes of it.
    pub(crate) fn claim(&self) -> bool {
        !either!(&self.0, received => received.is_claimed.swap(true, Ordering::AcqRel))
    }

    /// Tells those who ask that the call behind this delivery is cancelled.
    pub(crate) fn cancel(&self) {
        either!(&self.0, received => received.cancellation.cancel());
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        either!(&self.0, received => received.cancellation.is_cancelled())
    }

    /// Resolves when the call behind this delivery is cancelled.
    pub(crate) async fn cancelled(&self) {
        either!(&self.0, received => received.cancellation.cancelled().await);
    }

    pub(crate) fn delivery_tag(&self) -> u64 {
        either!(&self.0, received => received.message.delivery_tag())
    }

    pub(crate) fn redelivered(&self) -> bool {
        either!(&self.0, received => received.message.redelivered())
    }

    pub(crate) fn routing_key(&self) -> &str {
        either!(&self.0, received => received.message.routing_key())
    }

    pub(crate) fn body(&self) -> &[u8] {
        either!(&self.0, received => received.message.body())
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        either!(&self.0, received => received.message.content_type())
    }

    pub(crate) fn kind(&self) -> Option<&str> {
        either!(&self.0, received => received.message.kind())
    }

    pub(crate) fn correlation_id(&self) -> Option<&str> {
        either!(&self.0, received => received.message.correlation_id())
    }

    pub(crate) fn reply_to(&self) -> Option<&str> {
        either!(&self.0, received => received.message.reply_to())
    }

    pub(crate) fn message_id(&self) -> Option<&str> {
        either!(&self.0, received => received.message.message_id())
    }

    pub(crate) fn app_id(&self) -> Option<&str> {
        either!(&self.0, received => received.message.app_id())
    }

    pub(crate) fn priority(&self) -> Option<u8> {
        either!(&self.0, received => received.message.priority())
    }

    /// `expiration` in milliseconds; `None` when absent or not a number.
    pub(crate) fn expiration_ms(&self) -> Option<u64> {
        either!(&self.0, received => received.message.expiration())?.parse().ok()
    }

    pub(crate) fn header(&self, name: &str) -> Option<HeaderValue> {
        either!(&self.0, received => received.message.header(name))
    }
}

//! A received message, independent of the transport.

use std::{
    borrow::Cow,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

#[cfg(feature = "lapin")]
use super::lapin;
use super::{
    amqp::{HeaderValue, Urgency},
    cancellation::Cancellation,
    native::message,
};

/// One received message; clones share it. Properties are read where they lie.
#[derive(Debug, Clone)]
pub(crate) struct Delivery(Carried);

/// The message as its transport has it.
#[derive(Debug, Clone)]
enum Carried {
    #[cfg(feature = "lapin")]
    Lapin(Arc<Received<lapin::Message>>),
    Native(Arc<Received<message::Message>>),
}

/// Does the same with the message of either transport.
macro_rules! either {
    ($delivery:expr, $received:ident => $result:expr) => {
        match &$delivery.0 {
            #[cfg(feature = "lapin")]
            Carried::Lapin($received) => $result,
            Carried::Native($received) => $result,
        }
    };
}

/// Behind a pointer, because lapin's messages are half a kilobyte: everything that carries a delivery stays small.
#[derive(Debug)]
struct Received<M> {
    message: M,
    is_claimed: AtomicBool,
    cancellation: Cancellation,
}

impl<M> Received<M> {
    fn new(message: M) -> Arc<Self> {
        Arc::new(Self { message, is_claimed: AtomicBool::new(false), cancellation: Cancellation::default() })
    }
}

/// A delivery that may have been settled already; it keeps no body in memory. The default refers to none.
#[derive(Debug, Default)]
pub(crate) struct WeakDelivery(Option<WeakCarried>);

#[derive(Debug)]
enum WeakCarried {
    #[cfg(feature = "lapin")]
    Lapin(Weak<Received<lapin::Message>>),
    Native(Weak<Received<message::Message>>),
}

impl WeakDelivery {
    pub(crate) fn upgrade(&self) -> Option<Delivery> {
        Some(Delivery(match self.0.as_ref()? {
            #[cfg(feature = "lapin")]
            WeakCarried::Lapin(received) => Carried::Lapin(received.upgrade()?),
            WeakCarried::Native(received) => Carried::Native(received.upgrade()?),
        }))
    }
}

#[cfg(feature = "lapin")]
impl From<lapin::Message> for Delivery {
    fn from(message: lapin::Message) -> Self {
        Self(Carried::Lapin(Received::new(message)))
    }
}

impl From<message::Message> for Delivery {
    fn from(message: message::Message) -> Self {
        Self(Carried::Native(Received::new(message)))
    }
}

impl Delivery {
    /// The message, if it came over lapin.
    #[cfg(feature = "lapin")]
    pub(super) fn lapin(&self) -> Option<&lapin::Message> {
        match &self.0 {
            Carried::Lapin(received) => Some(&received.message),
            Carried::Native(_) => None,
        }
    }

    /// The message, if it came over the native transport.
    pub(super) fn native(&self) -> Option<&message::Message> {
        match &self.0 {
            #[cfg(feature = "lapin")]
            Carried::Lapin(_) => None,
            Carried::Native(received) => Some(&received.message),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakDelivery {
        WeakDelivery(Some(match &self.0 {
            #[cfg(feature = "lapin")]
            Carried::Lapin(received) => WeakCarried::Lapin(Arc::downgrade(received)),
            Carried::Native(received) => WeakCarried::Native(Arc::downgrade(received)),
        }))
    }

    /// True for the first caller among all that share the delivery: that one settles it.
    pub(crate) fn claim(&self) -> bool {
        !either!(self, received => received.is_claimed.swap(true, Ordering::AcqRel))
    }

    /// Marks the call behind this delivery as cancelled, and wakes the tasks that wait for that.
    pub(crate) fn cancel(&self) {
        either!(self, received => received.cancellation.cancel());
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        either!(self, received => received.cancellation.is_cancelled())
    }

    /// Resolves when the call behind this delivery is cancelled.
    pub(crate) async fn cancelled(&self) {
        either!(self, received => received.cancellation.cancelled().await);
    }

    pub(crate) fn delivery_tag(&self) -> u64 {
        either!(self, received => received.message.delivery_tag())
    }

    pub(crate) fn redelivered(&self) -> bool {
        either!(self, received => received.message.redelivered())
    }

    pub(crate) fn routing_key(&self) -> &str {
        either!(self, received => received.message.routing_key())
    }

    #[inline]
    pub(crate) fn body(&self) -> &[u8] {
        either!(self, received => received.message.body())
    }

    #[inline]
    pub(crate) fn content_type(&self) -> Option<&str> {
        either!(self, received => received.message.content_type())
    }

    #[inline]
    pub(crate) fn kind(&self) -> Option<&str> {
        either!(self, received => received.message.kind())
    }

    /// The correlation_id as it came, also one that is no text.
    #[inline]
    pub(crate) fn correlation_id_bytes(&self) -> Option<&[u8]> {
        either!(self, received => received.message.correlation_id_bytes())
    }

    #[inline]
    pub(crate) fn reply_to(&self) -> Option<&[u8]> {
        either!(self, received => received.message.reply_to())
    }

    /// `None` also when it is no text.
    pub(crate) fn reply_to_text(&self) -> Option<&str> {
        str::from_utf8(self.reply_to()?).ok()
    }

    /// Whether the sender waits for a reply.
    pub(crate) fn has_reply_to(&self) -> bool {
        either!(self, received => received.message.has_reply_to())
    }

    pub(crate) fn message_id(&self) -> Option<&[u8]> {
        either!(self, received => received.message.message_id())
    }

    /// `None` also when it is no text.
    pub(crate) fn message_id_text(&self) -> Option<&str> {
        str::from_utf8(self.message_id()?).ok()
    }

    pub(crate) fn user_id(&self) -> Option<&str> {
        either!(self, received => received.message.user_id())
    }

    pub(crate) fn app_id(&self) -> Option<&str> {
        either!(self, received => received.message.app_id())
    }

    pub(crate) fn priority(&self) -> Option<u8> {
        either!(self, received => received.message.priority())
    }

    /// `expiration` in milliseconds; `None` when absent or not a number.
    pub(crate) fn expiration_ms(&self) -> Option<u64> {
        either!(self, received => received.message.expiration_ms())
    }

    /// How long the caller waits.
    pub(crate) fn urgency(&self) -> Urgency<'_> {
        either!(self, received => received.message.urgency())
    }

    /// Whether there may be headers besides `rpc-deadline`.
    pub(crate) fn has_more_headers(&self) -> bool {
        either!(self, received => received.message.has_more_headers())
    }

    pub(crate) fn header(&self, name: &str) -> Option<HeaderValue> {
        either!(self, received => received.message.header(name))
    }

    /// All headers but `rpc-deadline`, and those of a type that [`HeaderValue`] does not have.
    pub(crate) fn headers(&self) -> Vec<(Cow<'static, str>, HeaderValue)> {
        match self.has_more_headers() {
            true => either!(self, received => received.message.headers()),
            false => Vec::new(),
        }
    }

    /// The body, which is not copied: it keeps the delivery in memory.
    #[inline]
    pub(crate) fn shared_body(&self) -> Bytes {
        struct Body(Delivery);
        impl AsRef<[u8]> for Body {
            fn as_ref(&self) -> &[u8] {
                self.0.body()
            }
        }
        Bytes::from_owner(Body(self.clone()))
    }
}

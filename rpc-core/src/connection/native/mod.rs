//! Our own transport: AMQP 0-9-1 on `wire`, one task for each connection.
//!
//! ```text
//!  Channel::publish ──► Outbox ──taken whole──► io task ──one write──► socket
//!  Consumer, Confirm, answers ◄── inbox.rs ◄──frames── io task ◄──one read──┘
//! ```
//!
//! Everything is sent in the order of its queueing, methods and messages alike. Publishing encodes frames straight into the
//! send buffer without allocating, and wakes the io task at most once per flush.
//!
//! Locks are taken in this order: a channel's state, the outbox. The table of channels is never held with another.

mod channel;
mod channels;
mod failure;
mod handshake;
mod inbox;
mod io;
pub(super) mod message;
mod outbox;
mod shared;
mod socket;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod unawaited;

use std::sync::{Arc, Mutex};

use amq_protocol::protocol::{AMQPClass, connection};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::{
    channel::{Channel, Confirm, Consumer},
    inbox::Returns,
};
use self::{channels::Channels, handshake::Opened, io::Io, shared::Shared, socket::Socket};
use super::{
    amqp::{Event, REPLY_SUCCESS, SECRET_REASON},
    options::ConnectionOptions,
    uri::{Address, Endpoint},
};
use crate::{error::Error, lock::lock};

/// One AMQP connection: a socket and its task. Dropping it closes the connection without waiting for the broker.
#[derive(Debug)]
pub(super) struct Link {
    channels: Arc<Channels>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    address: Option<Arc<Address>>,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        let socket = Socket::connect(endpoint, options).await?;
        let Opened { socket, buffer, tuning } = handshake::open(socket, endpoint, options).await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(tuning.frame_max, options.outbox_max_bytes, events));
        let channels = Arc::new(Channels::new(shared, tuning.channel_max));
        // It ends with the connection, or soon after the link is dropped.
        tokio::spawn(Io::new(socket, buffer, tuning, Arc::clone(&channels)).run());
        Ok(Self { channels, events: Mutex::new(Some(receiver)), address: endpoint.shown_address() })
    }

    /// The one stream of events; a second one would be empty.
    pub(super) fn events(&self) -> Events {
        Events(lock(&self.events).take())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.channels.shared().is_connected()
    }

    pub(super) fn address(&self) -> Option<&Arc<Address>> {
        self.address.as_ref()
    }

    pub(super) fn frame_max_bytes(&self) -> usize {
        self.channels.shared().frame_max_bytes()
    }

    pub(super) fn was_used(&self) -> bool {
        self.channels.shared().was_used()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        Channel::open(self.channels.add()?).await
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        const OPERATION: &str = "close the connection";
        let (closed, told) = oneshot::channel();
        self.channels.shared().write(|outbox| {
            outbox.method(0, &close());
            outbox.close(Some(closed));
            Ok(())
        })?;
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(failure.error(OPERATION)),
            Err(_) => Err(Error::Disconnected { reason: "its task was stopped".to_owned() }),
        }
    }
}

impl Link {
    pub(super) async fn update_secret(&self, secret: &str) -> Result<(), Error> {
        let update = connection::UpdateSecret { new_secret: secret.into(), reason: SECRET_REASON.into() };
        let method = AMQPClass::Connection(connection::AMQPMethod::UpdateSecret(update));
        let updated = self.channels.shared().await_secret();
        self.channels.shared().write(|outbox| {
            outbox.method(0, &method);
            Ok(())
        })?;
        updated.await.map_err(|_| Error::Disconnected { reason: "it ended before its secret was updated".to_owned() })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // An error says that it is closed already.
        drop(self.channels.shared().write(|outbox| {
            outbox.method(0, &close());
            outbox.close(None);
            Ok(())
        }));
    }
}

fn close() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: REPLY_SUCCESS,
        reply_text: "closed by the application".into(),
        class_id: 0,
        method_id: 0,
    }))
}

/// The events of one connection.
pub(super) struct Events(Option<mpsc::UnboundedReceiver<Event>>);

impl Events {
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.0.as_mut()?.recv().await
    }
}

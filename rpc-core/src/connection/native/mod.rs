//! Our own transport: AMQP 0-9-1 on `wire`, one task for each connection.
//!
//! ```text
//!  Channel::publish ──► Outbox ──taken whole──► io task ──one write──► socket
//!  Consumer, Confirm, answers ◄── channel.rs ◄──frames── io task ◄──one read──┘
//! ```
//!
//! Everything goes out in the order in which it was queued, methods and messages alike. Publishing writes the frames where
//! they are sent from, allocates nothing and wakes the io task once for all that is queued until it runs.
//!
//! Locks are taken in this order: a channel's state, the outbox. The table of channels is never held with another.

mod channel;
mod handshake;
mod inbox;
mod io;
mod message;
mod outbox;
mod shared;
mod socket;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

use std::sync::{Arc, Mutex, PoisonError};

use amq_protocol::protocol::{AMQPClass, connection};
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::{
    channel::{Channel, Confirm, Consumer},
    message::{Message, write_value},
};
use self::{handshake::Opened, io::Io, shared::Shared, socket::Socket};
use super::{
    ConnectionOptions,
    transport::{Event, Events, REPLY_SUCCESS},
    uri::Endpoint,
};
use crate::error::Error;

/// One AMQP connection: a socket and its task. Dropping it closes the connection without waiting for the broker.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        let socket = Socket::connect(endpoint, options).await?;
        let Opened { socket, buffer, tuning } = handshake::open(socket, endpoint, options).await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(tuning, events));
        // It ends with the connection, or soon after the link is dropped.
        tokio::spawn(Io::new(socket, buffer, tuning, Arc::clone(&shared)).run());
        Ok(Self { shared, events: Mutex::new(Some(receiver)) })
    }

    /// The one stream of events; a second one would be empty.
    pub(super) fn events(&self) -> Events {
        let receiver = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(Received(receiver))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        Channel::open(&self.shared).await
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        const OPERATION: &str = "close the connection";
        let (closed, told) = oneshot::channel();
        self.shared.write(|outbox| {
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

impl Drop for Link {
    fn drop(&mut self) {
        // An error says that it is closed already.
        drop(self.shared.write(|outbox| {
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

struct Received(Option<mpsc::UnboundedReceiver<Event>>);

impl Stream for Received {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        match &mut self.0 {
            Some(receiver) => receiver.poll_recv(cx),
            None => std::task::Poll::Ready(None),
        }
    }
}

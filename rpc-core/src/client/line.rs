//! A session and the channel that requests to one exchange take: what a call needs to be sent.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    in_flight::{NotSent, Waiter},
    opening::Exchange,
    pending::Tag,
    publisher::Publisher,
    reply_queue::Session,
};
use crate::{connection::amqp::Publish, service::MethodDescriptor};

/// Both belong to the same epoch.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) session: Arc<Session>,
    /// Where the requests go.
    pub(super) exchange: Exchange,
    publisher: Arc<Publisher>,
}

impl Line {
    pub(super) fn new(session: Arc<Session>, exchange: Exchange, publisher: Arc<Publisher>) -> Self {
        Self { session, exchange, publisher }
    }

    /// Whether another one is needed: also before the tasks behind it have noticed.
    pub(super) fn has_ended(&self) -> bool {
        let is_denied = self.session.in_flight.exchange(self.exchange) != self.exchange;
        is_denied || self.session.has_ended() || self.publisher.has_ended()
    }

    /// Whether the channel is taken to reach the method's queue: then its requests need no confirm.
    pub(super) fn reaches(&self, method: &MethodDescriptor) -> bool {
        self.session.in_flight.reach(self.exchange).methods.has(method)
    }

    /// Takes it for reached from now on.
    pub(super) fn note_reached(&self, method: &'static MethodDescriptor) {
        self.session.in_flight.reach(self.exchange).methods.note(method);
    }

    /// Takes a call in; see [`InFlight::begin`](super::in_flight::InFlight::begin).
    pub(super) fn begin(&self, deadline: Instant, tag: Tag) -> Result<Waiter, NotSent> {
        self.session.in_flight.begin(deadline, tag)
    }

    /// Sends a request on the shared channel.
    pub(super) fn publish(
        &self,
        waiter: &mut Waiter,
        publish: Publish<'_>,
        cancellable: Option<&'static str>,
    ) -> Result<(), NotSent> {
        if !self.publisher.channel.publish_if_room(publish).map_err(NotSent::from)? {
            return Err(NotSent::NoRoom);
        }
        waiter.make_cancellable(cancellable);
        Ok(())
    }

    /// Waits until the connection has room for a request, or has ended.
    pub(super) async fn room(&self) {
        self.publisher.channel.room().await;
    }

    /// Sends a request that the broker may refuse; then the call ends.
    pub(super) async fn publish_confirmed(
        &self,
        waiter: &mut Waiter,
        publish: Publish<'_>,
        method: &'static MethodDescriptor,
        cancellable: Option<&'static str>,
    ) -> Result<(), NotSent> {
        // Direct replies arrive only where the request was published.
        if self.session.is_direct() {
            self.note_reached(method);
            return self.publish(waiter, publish, cancellable);
        }
        let confirming = tokio::select! {
            confirming = self.session.confirming(self.exchange).get() => confirming.map_err(NotSent::from)?,
            () = self.session.ended() => return Err(NotSent::Ended),
        };
        // Before the publish: a future dropped during it may have sent the request.
        waiter.make_cancellable(cancellable);
        confirming.publish(waiter.number(), method, publish).await.map_err(NotSent::from)
    }
}

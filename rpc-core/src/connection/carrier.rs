//! The AMQP operations that everything above the connection uses, and who carries them out: lapin or our own transport.

use std::{
    borrow::Cow,
    future::poll_fn,
    task::{self, Poll, Waker},
};

use super::{
    ConnectionOptions, Transport,
    delivery::Delivery,
    lapin, native,
    transport::{Arguments, Events, ExchangeKind, HeaderValue, Publish, QueueDeclaration, Returned, Settlement},
    uri::Endpoint,
};
use crate::{error::Error, topology};

/// Either transport's version of a thing.
#[derive(Debug, Clone)]
pub(super) enum Carrier<L, N> {
    Lapin(L),
    Native(N),
}

/// The same to either.
macro_rules! either {
    ($carrier:expr, $inner:ident => $result:expr) => {
        match $carrier {
            Carrier::Lapin($inner) => $result,
            Carrier::Native($inner) => $result,
        }
    };
}
pub(super) use either;

/// One AMQP connection, for as long as its socket lives.
#[derive(Debug)]
pub(super) struct Link(Carrier<lapin::Link, native::Link>);

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        Ok(Self(match endpoint.transport.unwrap_or(options.transport) {
            Transport::Lapin => Carrier::Lapin(lapin::Link::open(endpoint, options).await?),
            Transport::Native => Carrier::Native(native::Link::open(endpoint, options).await?),
        }))
    }

    /// The one stream of events; a second one would compete with it.
    pub(super) fn events(&self) -> Events {
        either!(&self.0, link => link.events())
    }

    pub(super) fn is_connected(&self) -> bool {
        either!(&self.0, link => link.is_connected())
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        Ok(Channel(match &self.0 {
            Carrier::Lapin(link) => Carrier::Lapin(link.channel().await?),
            Carrier::Native(link) => Carrier::Native(link.channel().await?),
        }))
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        either!(&self.0, link => link.close().await)
    }
}

/// One AMQP channel. The last clone to go closes it.
#[derive(Debug, Clone)]
pub(crate) struct Channel(Carrier<lapin::Channel, native::Channel>);

impl Channel {
    /// Queues the message for sending; nobody waits for the socket.
    ///
    /// An error says that it was certainly not sent.
    pub(crate) fn publish(&self, publish: Publish<'_>) -> Result<(), Error> {
        match &self.0 {
            Carrier::Lapin(channel) => channel.publish(publish),
            Carrier::Native(channel) => channel.publish(&publish),
        }
    }

    /// Publishes and resolves when what is sent afterwards, an ack above all, really goes out after it, and after every
    /// message published before it.
    pub(crate) async fn publish_written(&self, publish: Publish<'_>) -> Result<(), Error> {
        match &self.0 {
            Carrier::Lapin(channel) => channel.publish_written(publish).await,
            // It sends everything in order.
            Carrier::Native(channel) => channel.publish(&publish),
        }
    }

    /// Publishes on a channel in confirm mode.
    pub(crate) async fn publish_for_confirm(&self, publish: Publish<'_>) -> Result<Confirm, Error> {
        Ok(Confirm(match &self.0 {
            Carrier::Lapin(channel) => Carrier::Lapin(channel.publish_for_confirm(publish).await?),
            Carrier::Native(channel) => Carrier::Native(channel.publish_for_confirm(&publish)?),
        }))
    }

    /// Queues a publish on a channel in confirm mode: others can be queued behind it before it is on the socket.
    pub(crate) fn queue_for_confirm(&self, publish: Publish<'_>) -> Result<Queued, Error> {
        Ok(Queued(match &self.0 {
            Carrier::Lapin(channel) => Carrier::Lapin(channel.queue_for_confirm(publish)?),
            Carrier::Native(channel) => Carrier::Native(channel.publish_for_confirm(&publish)?),
        }))
    }

    /// Publishes what was received once more, to a queue, persistent, with further headers; on a channel in confirm mode
    /// of the connection that received it.
    ///
    /// Left out are `expiration`, by which the copy would go as the original did, and `user_id`, which only that user
    /// may set.
    pub(crate) async fn republish(
        &self,
        delivery: &Delivery,
        queue: &str,
        headers: Vec<(Cow<'static, str>, HeaderValue)>,
    ) -> Result<Confirm, Error> {
        Ok(Confirm(match (&self.0, delivery.message()) {
            (Carrier::Lapin(channel), Carrier::Lapin(message)) => {
                Carrier::Lapin(channel.republish(message, queue, headers).await?)
            }
            (Carrier::Native(channel), Carrier::Native(message)) => {
                Carrier::Native(channel.republish(message, queue, &headers)?)
            }
            (Carrier::Lapin(_), Carrier::Native(_)) | (Carrier::Native(_), Carrier::Lapin(_)) => {
                return Err(Error::ForeignConnection);
            }
        }))
    }

    /// Queues an ack, a requeue or a discard for sending.
    pub(crate) fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        either!(&self.0, channel => channel.settle(settlement))
    }

    /// The messages returned so far on this channel outside confirm mode.
    pub(crate) fn drain_returned(&self) -> Vec<Returned> {
        either!(&self.0, channel => channel.drain_returned())
    }

    pub(crate) async fn confirm_select(&self) -> Result<(), Error> {
        either!(&self.0, channel => channel.confirm_select().await)
    }

    /// Declares the exchanges of `topology`.
    pub(crate) async fn declare_request_exchanges(&self) -> Result<(), Error> {
        self.declare_exchange(topology::OTHER_EXCHANGE, ExchangeKind::Topic, &[]).await?;
        let arguments = [("alternate-exchange", HeaderValue::from(topology::OTHER_EXCHANGE))];
        self.declare_exchange(topology::EXCHANGE, ExchangeKind::Direct, &arguments).await
    }

    /// Declares the exchange for cancels.
    pub(crate) async fn declare_cancel_exchange(&self) -> Result<(), Error> {
        self.declare_exchange(topology::CANCEL_EXCHANGE, ExchangeKind::Direct, &[]).await
    }

    /// Declares the exchange for dead letters.
    pub(crate) async fn declare_dead_exchange(&self) -> Result<(), Error> {
        self.declare_exchange(topology::DEAD_EXCHANGE, ExchangeKind::Headers, &[]).await
    }

    async fn declare_exchange(&self, name: &str, kind: ExchangeKind, arguments: Arguments<'_>) -> Result<(), Error> {
        either!(&self.0, channel => channel.declare_exchange(name, kind, arguments).await)
    }

    pub(crate) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
        either!(&self.0, channel => channel.declare_queue(queue).await)
    }

    /// Whether the queue exists. When it does not, the broker closes this channel: use one made for the question.
    pub(crate) async fn queue_exists(&self, queue: &str) -> Result<bool, Error> {
        either!(&self.0, channel => channel.queue_exists(queue).await)
    }

    pub(crate) async fn bind_queue(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        either!(&self.0, channel => channel.bind(queue, exchange, routing_key, &[]).await)
    }

    pub(crate) async fn bind_queue_by_headers(
        &self,
        queue: &str,
        exchange: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        either!(&self.0, channel => channel.bind(queue, exchange, "", arguments).await)
    }

    /// Bounds the unacknowledged deliveries of consumers started afterwards.
    pub(crate) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        either!(&self.0, channel => channel.qos(prefetch_count).await)
    }

    pub(crate) async fn consume(&self, queue: &str, consumer_tag: &str, no_ack: bool) -> Result<Consumer, Error> {
        Ok(Consumer(match &self.0 {
            Carrier::Lapin(channel) => Carrier::Lapin(channel.consume(queue, consumer_tag, no_ack).await?),
            Carrier::Native(channel) => Carrier::Native(channel.consume(queue, consumer_tag, no_ack).await?),
        }))
    }

    pub(crate) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        either!(&self.0, channel => channel.cancel(consumer_tag).await)
    }

    /// Closes the channel. The broker answers after it handled everything sent on it before.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        either!(&self.0, channel => channel.close().await)
    }
}

/// A publish on its way to the socket.
pub(crate) struct Queued(Carrier<lapin::Queued, native::Confirm>);

impl Queued {
    /// Resolves when it is on the socket, or is certain to get there in order.
    pub(crate) async fn written(self) -> Result<Confirm, Error> {
        Ok(Confirm(match self.0 {
            Carrier::Lapin(queued) => Carrier::Lapin(queued.written().await?),
            Carrier::Native(confirm) => Carrier::Native(confirm),
        }))
    }
}

/// A publish that waits for the broker's word.
#[derive(Debug)]
pub(crate) struct Confirm(Carrier<lapin::Confirm, native::Confirm>);

impl Confirm {
    /// Acked or not, and the returned message that came inside this confirm, which may be another publish's.
    pub(crate) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        either!(self.0, confirm => confirm.wait().await)
    }
}

/// The deliveries of one consumer. Bounded by the prefetch count; unbounded without acks.
#[derive(Debug)]
pub(crate) struct Consumer(Carrier<lapin::Consumer, native::Consumer>);

impl Consumer {
    /// The next delivery; `Ok(None)` when the broker cancelled the consumer.
    ///
    /// # Cancel safety
    /// Dropping the future loses no delivery.
    pub(crate) async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        match &mut self.0 {
            Carrier::Lapin(consumer) => consumer.poll_next(cx).map_ok(|message| message.map(Delivery::from)),
            Carrier::Native(consumer) => consumer.poll_next(cx),
        }
    }

    /// A delivery that has arrived already.
    pub(crate) fn next_ready(&mut self) -> Option<Delivery> {
        match &mut self.0 {
            Carrier::Lapin(_) => match self.poll_next(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(delivery)) => delivery,
                Poll::Ready(Err(_)) | Poll::Pending => None,
            },
            Carrier::Native(consumer) => consumer.next_ready(),
        }
    }
}

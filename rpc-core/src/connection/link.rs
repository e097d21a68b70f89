//! One open connection and its channels: hands every operation to the transport that carries the connection.
//!
//! No code above this file knows which transport that is, and there is no data here: `amqp.rs` has it. Publishing and
//! acknowledging never wait for the socket; when they fail later, the consumers of the channel end.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::Arc,
    task::{self, Poll},
};

#[cfg(feature = "lapin")]
use super::lapin;
use super::{
    amqp::{
        Arguments, Event, ExchangeDeclaration, HeaderValue, NOT_FOUND, Publish, QueueCounts, QueueDeclaration, Refusal,
        Returned, Settlement,
    },
    delivery::Delivery,
    native,
    options::{ConnectionOptions, Transport},
    uri::{Address, Endpoint},
};
use crate::error::Error;

/// Does the same with the inner value of either transport.
macro_rules! either {
    ($value:expr, $inner:ident => $result:expr) => {
        match $value {
            #[cfg(feature = "lapin")]
            Self::Lapin($inner) => $result,
            Self::Native($inner) => $result,
        }
    };
}

/// One AMQP connection, for as long as its socket lives.
#[derive(Debug)]
pub(super) enum Link {
    #[cfg(feature = "lapin")]
    Lapin(Box<lapin::Link>),
    Native(native::Link),
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        match endpoint.transport.unwrap_or(options.transport) {
            #[cfg(feature = "lapin")]
            Transport::Lapin => Ok(Self::Lapin(Box::new(lapin::Link::open(endpoint, options).await?))),
            #[cfg(not(feature = "lapin"))]
            Transport::Lapin => Err(Error::Configuration(
                "Transport::Lapin needs rpc-core's feature 'lapin': enable it, or take Transport::Native".to_owned(),
            )),
            Transport::Native => Ok(Self::Native(native::Link::open(endpoint, options).await?)),
        }
    }

    /// The events of the connection. To be called once: further callers would compete for events.
    pub(super) fn events(&self) -> Events {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(link) => Events::Lapin(link.events()),
            Self::Native(link) => Events::Native(link.events()),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        either!(self, link => link.is_connected())
    }

    /// The broker's, unless the URI hides it.
    pub(super) fn address(&self) -> Option<&Arc<Address>> {
        either!(self, link => link.address())
    }

    pub(super) fn frame_max_bytes(&self) -> usize {
        either!(self, link => link.frame_max_bytes())
    }

    /// Whether it was good for more than to be opened.
    pub(super) fn was_used(&self) -> bool {
        either!(self, link => link.was_used())
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        Ok(match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(link) => Channel::Lapin(link.channel().await?),
            Self::Native(link) => Channel::Native(link.channel().await?),
        })
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        either!(self, link => link.close().await)
    }

    /// Gives the broker a new password or token of the same user.
    pub(super) async fn update_secret(&self, secret: &str) -> Result<(), Error> {
        either!(self, link => link.update_secret(secret).await)
    }
}

/// The events of one connection, until it ends.
pub(super) enum Events {
    #[cfg(feature = "lapin")]
    Lapin(lapin::Events),
    Native(native::Events),
}

impl Events {
    /// The next event; `None` after the last.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub(super) async fn next(&mut self) -> Option<Event> {
        either!(self, events => events.next().await)
    }
}

/// One AMQP channel. Dropping the last clone closes it.
#[derive(Debug, Clone)]
pub(crate) enum Channel {
    #[cfg(feature = "lapin")]
    Lapin(lapin::Channel),
    Native(native::Channel),
}

impl Channel {
    /// Queues the message for sending, without waiting for the socket.
    ///
    /// # Errors
    /// The message was certainly not sent.
    pub(crate) fn publish(&self, publish: Publish<'_>) -> Result<(), Error> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => channel.publish(publish),
            Self::Native(channel) => channel.publish(&publish),
        }
    }

    /// As [`publish`](Self::publish), unless so much is queued that requests must wait; returns whether it has.
    ///
    /// # Errors
    /// The message was certainly not sent.
    pub(crate) fn publish_if_room(&self, publish: Publish<'_>) -> Result<bool, Error> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => channel.publish_if_room(publish),
            Self::Native(channel) => channel.publish_if_room(&publish),
        }
    }

    /// Lets the requests of this channel leave the send queue once no call awaits their reply; asked for by correlation_id. Without
    /// effect over lapin, whose queue is its own. Not for a channel with publisher confirms.
    pub(crate) fn forget_unawaited(&self, is_awaited: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(_) => {}
            Self::Native(channel) => channel.forget_unawaited(is_awaited),
        }
    }

    /// Waits until a request may be queued. The bound is the connection's, in bytes: a broker that does not read must not fill
    /// this process's memory.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn room(&self) {
        either!(self, channel => channel.room().await);
    }

    /// Publishes, and resolves once frames sent later (an ack in particular) are guaranteed to follow this message and all
    /// earlier ones on the wire.
    pub(crate) async fn publish_written(&self, publish: Publish<'_>) -> Result<(), Error> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => channel.publish_written(publish).await,
            // It sends everything in the order of its queueing.
            Self::Native(channel) => channel.publish(&publish),
        }
    }

    /// Whether nothing can be sent on it any more.
    pub(crate) fn has_ended(&self) -> bool {
        either!(self, channel => channel.has_ended())
    }

    /// Lets [`refusal`](Self::refusal) know the reason why a channel ended that has no consumer and no confirms.
    pub(crate) async fn watch(&self) -> Result<(), Error> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => channel.watch().await,
            // It always knows.
            Self::Native(_) => Ok(()),
        }
    }

    /// The broker's reason, if it has closed this channel alone; `None` when the whole connection has ended, too.
    pub(crate) async fn refusal(&self) -> Option<Refusal> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => channel.refusal().await,
            Self::Native(channel) => channel.refusal(),
        }
    }

    /// Queues the message for sending on a channel in confirm mode.
    ///
    /// # Errors
    /// The message was certainly not sent.
    pub(crate) fn publish_for_confirm(&self, publish: Publish<'_>) -> Result<Confirm, Error> {
        Ok(match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => Confirm::Lapin(channel.publish_for_confirm(publish)?),
            Self::Native(channel) => Confirm::Native(channel.publish_for_confirm(&publish)?),
        })
    }

    /// Publishes a received message once more: to `queue`, persistent, with further headers. The channel is in confirm mode,
    /// and of the connection that received the message.
    ///
    /// The copy has no `expiration`, by which it would expire as the original did, and no `user_id`, which only that user
    /// may set.
    pub(crate) fn republish(
        &self,
        delivery: &Delivery,
        queue: &str,
        headers: &[(Cow<'static, str>, HeaderValue)],
    ) -> Result<Confirm, Error> {
        Ok(match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => {
                let message = delivery.lapin().ok_or(Error::ForeignConnection)?;
                Confirm::Lapin(channel.republish(message, queue, headers)?)
            }
            Self::Native(channel) => {
                let message = delivery.native().ok_or(Error::ForeignConnection)?;
                Confirm::Native(channel.republish(message, queue, headers)?)
            }
        })
    }

    /// Queues an ack or a requeue for sending.
    pub(crate) fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        either!(self, channel => channel.settle(settlement))
    }

    /// The messages that are returned from now on, on a channel that is not in confirm mode. To be called once: a later call
    /// takes them over.
    pub(crate) fn returned(&self) -> Returns {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => Returns::Lapin(channel.returned()),
            Self::Native(channel) => Returns::Native(channel.returned()),
        }
    }

    pub(crate) async fn confirm_select(&self) -> Result<(), Error> {
        either!(self, channel => channel.confirm_select().await)
    }

    /// Declares exchanges in their order.
    pub(crate) async fn declare_exchanges(&self, exchanges: &[ExchangeDeclaration]) -> Result<(), Error> {
        for exchange in exchanges {
            self.declare_exchange(exchange, false).await?;
        }
        Ok(())
    }

    /// Declares an exchange, or checks that it exists, which needs no permission: if it does not, the broker closes this channel.
    pub(crate) async fn declare_exchange(&self, exchange: &ExchangeDeclaration, is_passive: bool) -> Result<(), Error> {
        let alternate = exchange.alternate.map(|alternate| ("alternate-exchange", HeaderValue::from(alternate)));
        let arguments = alternate.as_slice();
        either!(self, channel => channel.declare_exchange(exchange.name, exchange.kind, is_passive, arguments).await)
    }

    pub(crate) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
        either!(self, channel => channel.declare_queue(queue).await)
    }

    /// Whether the queue exists. If it does not, the broker closes this channel: use one made for the question.
    pub(crate) async fn queue_exists(&self, queue: &str) -> Result<bool, Error> {
        match self.queue_counts(queue).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { reply_code: NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Looks at a queue that exists, which needs no permission, on RabbitMQ from 4.3 any one on it. If it does not exist, or may not be
    /// looked at, the broker closes this channel.
    pub(crate) async fn queue_counts(&self, queue: &str) -> Result<QueueCounts, Error> {
        either!(self, channel => channel.queue_counts(queue).await)
    }

    pub(crate) async fn bind_queue(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        either!(self, channel => channel.bind(queue, exchange, routing_key, &[]).await)
    }

    pub(crate) async fn bind_queue_by_headers(
        &self,
        queue: &str,
        exchange: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        either!(self, channel => channel.bind(queue, exchange, "", arguments).await)
    }

    /// Bounds the unacknowledged deliveries of consumers started afterwards.
    pub(crate) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        either!(self, channel => channel.qos(prefetch_count).await)?;
        self.note_use();
        Ok(())
    }

    pub(crate) async fn consume(&self, queue: &str, consumer_tag: &str, no_ack: bool) -> Result<Consumer, Error> {
        let consumer = match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(channel) => Consumer::Lapin(channel.consume(queue, consumer_tag, no_ack).await?),
            Self::Native(channel) => Consumer::Native(channel.consume(queue, consumer_tag, no_ack).await?),
        };
        self.note_use();
        Ok(consumer)
    }

    /// The connection is good for more than to be opened: after its loss it is reopened without a longer pause.
    pub(crate) fn note_use(&self) {
        either!(self, channel => channel.note_use());
    }

    pub(crate) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        either!(self, channel => channel.cancel(consumer_tag).await)
    }

    /// Closes the channel. The broker answers after it has handled everything sent on it before.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        either!(self, channel => channel.close().await)
    }
}

/// A published message that waits for the broker's publisher confirm.
pub(crate) enum Confirm {
    #[cfg(feature = "lapin")]
    Lapin(lapin::Confirm),
    Native(native::Confirm),
}

impl Confirm {
    /// Whether the broker acknowledged the message, and a returned message that arrived with this confirm. That one may
    /// be another message of the channel: [`Unconfirmed`](super::Unconfirmed) matches them.
    pub(crate) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        either!(self, confirm => confirm.wait().await)
    }
}

/// The returned messages of one channel.
pub(crate) enum Returns {
    #[cfg(feature = "lapin")]
    Lapin(lapin::Returns),
    Native(native::Returns),
}

impl Returns {
    /// The next returned message; `None` once the channel has ended.
    ///
    /// Natively it is known as soon as it has arrived. lapin has to be asked for it, which happens for as long as `is_awaited`
    /// says so, and for a while after each publish.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    #[cfg_attr(not(feature = "lapin"), allow(unused_variables, reason = "only lapin asks"))]
    pub(crate) async fn next(&mut self, is_awaited: impl Fn() -> bool) -> Option<Returned> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(returns) => returns.next(is_awaited).await,
            Self::Native(returns) => returns.recv().await,
        }
    }

    /// A returned message that has arrived already.
    pub(crate) fn next_ready(&mut self) -> Option<Returned> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(returns) => returns.next_ready(),
            Self::Native(returns) => returns.try_recv().ok(),
        }
    }
}

/// The deliveries of one consumer. Bounded by the prefetch count; unbounded without acks.
#[derive(Debug)]
pub(crate) enum Consumer {
    #[cfg(feature = "lapin")]
    Lapin(lapin::Consumer),
    Native(native::Consumer),
}

impl Consumer {
    /// The next delivery; `Ok(None)` when the broker cancelled the consumer.
    ///
    /// # Cancel safety
    /// Dropping the future loses no delivery.
    pub(crate) async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(consumer) => consumer.poll_next(cx).map_ok(|message| message.map(Delivery::from)),
            Self::Native(consumer) => consumer.poll_next(cx),
        }
    }

    /// A delivery that has arrived already.
    pub(crate) fn next_ready(&mut self) -> Option<Delivery> {
        match self {
            #[cfg(feature = "lapin")]
            Self::Lapin(_) => match self.poll_next(&mut task::Context::from_waker(task::Waker::noop())) {
                Poll::Ready(Ok(delivery)) => delivery,
                Poll::Ready(Err(_)) | Poll::Pending => None,
            },
            Self::Native(consumer) => consumer.next_ready(),
        }
    }
}

#[cfg(not(feature = "lapin"))]
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_transport_lapin_without_the_feature_is_refused() {
        let endpoint = Endpoint::parse("amqp://localhost").unwrap();
        let options = ConnectionOptions::default().transport(Transport::Lapin);
        let refused = Link::open(&endpoint, &options).await.unwrap_err();
        assert!(matches!(&refused, Error::Configuration(text) if text.contains("feature 'lapin'")), "{refused}");
    }
}

//! The sending half of one AMQP channel: publishes, settlements, and methods that are answered. `inbox.rs` is the other half.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    task::{self, Poll, ready},
};

use amq_protocol::{
    protocol::{AMQPClass, basic, channel, confirm, exchange, queue},
    types::FieldTable,
};
use tokio::sync::oneshot;

use super::{
    failure::Failure,
    inbox::{Confirmed, Deliveries, Returns, State},
    message::Message,
    outbox::Outbox,
    shared::Shared,
    unawaited::Awaited,
};
use crate::{
    connection::{
        amqp::{
            Arguments, ExchangeKind, HeaderValue, Publish, QueueCounts, QueueDeclaration, REPLY_SUCCESS, Refusal,
            Returned, Settlement,
        },
        delivery::Delivery,
        fields::{short, table},
        limit::{ANSWER_LIMIT, within},
    },
    error::Error,
    lock::lock,
};

/// One AMQP channel; clones share it, and dropping the last one closes it.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    inner: Arc<Inner>,
}

/// The part of a channel that its handles share with the io task. The io task keeps it no longer than they do.
#[derive(Debug)]
pub(super) struct Inner {
    id: u16,
    shared: Arc<Shared>,
    /// Set with the outbox locked: nothing can be queued that the broker would take for another channel's.
    failure: Arc<OnceLock<Failure>>,
    state: Mutex<State>,
    /// Set once the channel's requests may leave the outbox.
    awaited: OnceLock<Awaited>,
}

impl Inner {
    pub(super) fn new(id: u16, shared: Arc<Shared>, failure: Arc<OnceLock<Failure>>) -> Self {
        Self { id, shared, failure, state: Mutex::default(), awaited: OnceLock::new() }
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn awaited(&self) -> Option<Awaited> {
        self.awaited.get().cloned()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the channel for its waiters and for later operations. To be called with nothing locked.
    pub(super) fn fail(&self, failure: &Failure) {
        {
            let _nothing_is_queued_meanwhile = self.shared.outbox();
            // The first reason counts.
            drop(self.failure.set(failure.clone()));
        }
        self.end(self.failure.get().unwrap_or(failure));
    }

    /// Ends all waits on the channel.
    pub(super) fn end(&self, failure: &Failure) {
        let ended = self.state().end();
        ended.fail(failure);
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.late()))
    }

    /// Queues frames, as long as the channel is open.
    fn write<T>(&self, write: impl FnOnce(&mut Outbox) -> Result<T, Error>) -> Result<T, Error> {
        self.shared.write(|outbox| {
            self.check()?;
            write(outbox)
        })
    }

    pub(super) fn send(&self, method: &AMQPClass) -> Result<(), Error> {
        self.write(|outbox| {
            outbox.method(self.id, method);
            Ok(())
        })
    }

    /// Sends a method and waits for its answer, at most for [`ANSWER_LIMIT`].
    async fn ask(&self, operation: &str, method: &AMQPClass) -> Result<AMQPClass, Error> {
        within(ANSWER_LIMIT, operation, self.ask_patiently(operation, method)).await
    }

    /// Sends a method and waits for its answer, which the caller limits.
    async fn ask_patiently(&self, operation: &str, method: &AMQPClass) -> Result<AMQPClass, Error> {
        let answer = {
            let mut state = self.state();
            self.send(method)?;
            state.await_answer(method)
        };
        match answer.await {
            Ok(answer) => answer.map_err(|failure| failure.error(operation)),
            Err(_) => Err(Failure::closed_by_us().error(operation)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // An error says that it is closed already.
        drop(self.write(|outbox| {
            outbox.method(self.id, &close());
            // The io task may be about to read the broker's close: one of the two is first.
            drop(self.failure.set(Failure::closed_by_us()));
            Ok(())
        }));
    }
}

fn close() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
        reply_code: REPLY_SUCCESS,
        reply_text: "done".into(),
        class_id: 0,
        method_id: 0,
    }))
}

impl Channel {
    pub(super) async fn open(inner: Arc<Inner>) -> Result<Self, Error> {
        let open = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
        inner.ask("open a channel", &open).await?;
        Ok(Self { inner })
    }

    pub(in crate::connection) fn publish(&self, publish: &Publish<'_>) -> Result<(), Error> {
        self.inner.write(|outbox| outbox.publish(self.inner.id, publish))
    }

    /// Publishes, unless so much is queued that requests must wait; returns whether it has.
    pub(in crate::connection) fn publish_if_room(&self, publish: &Publish<'_>) -> Result<bool, Error> {
        self.inner.write(|outbox| match outbox.is_full() {
            true => Ok(false),
            false => outbox.publish(self.inner.id, publish).map(|()| true),
        })
    }

    pub(in crate::connection) fn forget_unawaited(&self, is_awaited: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        // The first one counts: a channel has one publisher.
        drop(self.inner.awaited.set(Awaited::new(is_awaited)));
    }

    pub(in crate::connection) async fn room(&self) {
        self.inner.shared.room().await;
    }

    pub(in crate::connection) fn publish_for_confirm(&self, publish: &Publish<'_>) -> Result<Confirm, Error> {
        // Locked until its frames are queued: the broker numbers messages in the order of their arrival.
        let mut state = self.inner.state();
        self.publish(publish)?;
        Ok(Confirm { confirmed: state.await_confirm() })
    }

    pub(in crate::connection) fn republish(
        &self,
        message: &Message,
        queue: &str,
        headers: &[(Cow<'static, str>, HeaderValue)],
    ) -> Result<Confirm, Error> {
        let mut state = self.inner.state();
        self.inner.write(|outbox| outbox.republish(self.inner.id, message, queue, headers))?;
        Ok(Confirm { confirmed: state.await_confirm() })
    }

    pub(in crate::connection) fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        self.inner.write(|outbox| {
            outbox.settle(self.inner.id, settlement);
            Ok(())
        })
    }

    pub(in crate::connection) fn has_ended(&self) -> bool {
        self.inner.failure.get().is_some() || self.inner.shared.outbox().ended().is_some()
    }

    pub(in crate::connection) fn note_use(&self) {
        self.inner.shared.note_use();
    }

    /// The broker's reason, if it has closed the channel and not the connection.
    pub(in crate::connection) fn refusal(&self) -> Option<Refusal> {
        match self.inner.failure.get()? {
            Failure::Refused { reply_code, reply_text } if self.inner.shared.is_connected() => {
                Some(Refusal { reply_code: *reply_code, reply_text: reply_text.to_string() })
            }
            _ => None,
        }
    }

    pub(in crate::connection) fn returned(&self) -> Returns {
        self.inner.state().push_returned()
    }

    pub(in crate::connection) async fn confirm_select(&self) -> Result<(), Error> {
        let select = AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }));
        self.inner.ask("switch to confirm mode", &select).await.map(drop)
    }

    pub(in crate::connection) async fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        is_passive: bool,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let declare = AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
            exchange: short(name)?,
            kind: kind.as_str().into(),
            passive: is_passive,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: table(arguments)?,
        }));
        self.inner.ask(&format!("declare exchange '{name}'"), &declare).await.map(drop)
    }

    pub(in crate::connection) async fn declare_queue(&self, queue: QueueDeclaration<'_>) -> Result<(), Error> {
        let declare = AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: short(queue.name)?,
            passive: false,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: queue.auto_delete,
            nowait: false,
            arguments: table(queue.arguments)?,
        }));
        self.inner.ask(&format!("declare queue '{}'", queue.name), &declare).await.map(drop)
    }

    pub(in crate::connection) async fn queue_counts(&self, queue: &str) -> Result<QueueCounts, Error> {
        let declare = queue::Declare { queue: short(queue)?, passive: true, ..queue::Declare::default() };
        let declare = AMQPClass::Queue(queue::AMQPMethod::Declare(declare));
        let operation = format!("look for queue '{queue}'");
        match self.inner.ask(&operation, &declare).await? {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(found)) => {
                Ok(QueueCounts { ready: found.message_count, consumers: found.consumer_count })
            }
            _ => Err(Error::Disconnected { reason: format!("{operation}: the broker answers another question") }),
        }
    }

    pub(in crate::connection) async fn bind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        let bind = AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: short(queue)?,
            exchange: short(exchange)?,
            routing_key: short(routing_key)?,
            nowait: false,
            arguments: table(arguments)?,
        }));
        let operation = format!("bind queue '{queue}' to exchange '{exchange}'");
        self.inner.ask(&operation, &bind).await.map(drop)
    }

    pub(in crate::connection) async fn qos(&self, prefetch_count: u16) -> Result<(), Error> {
        let qos = AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos { prefetch_count, global: false }));
        self.inner.ask("set the prefetch count", &qos).await.map(drop)
    }

    /// An empty tag is replaced by one of ours.
    pub(in crate::connection) async fn consume(
        &self,
        queue: &str,
        consumer_tag: &str,
        no_ack: bool,
    ) -> Result<Consumer, Error> {
        let (name, consumer_tag) = (short(queue)?, short(consumer_tag)?);
        // Before its first delivery, which may arrive together with the answer.
        let (consumer_tag, deliveries) = self.inner.state().add_consumer(consumer_tag.as_str());
        let consume = AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
            queue: name,
            consumer_tag: short(&consumer_tag)?,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        }));
        // A refusal closes the channel, which ends the consumer.
        self.inner.ask(&format!("consume from queue '{queue}'"), &consume).await?;
        Ok(Consumer { inner: Arc::clone(&self.inner), deliveries })
    }

    pub(in crate::connection) async fn cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        let cancel = basic::Cancel { consumer_tag: short(consumer_tag)?, nowait: false };
        let cancel = AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel));
        self.inner.ask_patiently("cancel the consumer", &cancel).await.map(drop)
    }

    pub(in crate::connection) async fn close(&self) -> Result<(), Error> {
        const OPERATION: &str = "close the channel";
        let inner = &*self.inner;
        let answer = {
            let close = close();
            let mut state = inner.state();
            inner.write(|outbox| {
                outbox.method(inner.id, &close);
                drop(inner.failure.set(Failure::closed_by_us()));
                Ok(())
            })?;
            state.await_answer(&close)
        };
        match answer.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(failure.error(OPERATION)),
            Err(_) => Err(Failure::closed_by_us().error(OPERATION)),
        }
    }
}

/// A published message that waits for the broker's publisher confirm.
#[derive(Debug)]
pub(crate) struct Confirm {
    confirmed: oneshot::Receiver<Confirmed>,
}

impl Confirm {
    pub(in crate::connection) async fn wait(self) -> Result<(bool, Option<Returned>), Error> {
        match self.confirmed.await {
            Ok(Ok(confirmed)) => Ok(confirmed),
            Ok(Err(failure)) => Err(failure.error("publish")),
            Err(_) => Err(Failure::closed_by_us().error("publish")),
        }
    }
}

/// The deliveries of one consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    inner: Arc<Inner>,
    deliveries: Deliveries,
}

impl Consumer {
    pub(in crate::connection) fn poll_next(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Option<Delivery>, Error>> {
        let delivery = ready!(self.deliveries.poll_next(cx));
        if delivery.is_none() {
            // After a cancel the channel is still open, and this is the normal end.
            if let Some(failure) = self.inner.failure.get() {
                return Poll::Ready(Err(failure.error("consume")));
            }
        }
        Poll::Ready(Ok(delivery))
    }

    pub(in crate::connection) fn next_ready(&mut self) -> Option<Delivery> {
        self.deliveries.next_ready()
    }
}

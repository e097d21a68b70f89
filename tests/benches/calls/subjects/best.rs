//! lapin as fast as we could make it: publishes queued and not awaited, waiters in a table of slots, requests
//! answered in the consuming task, one ack for everything that came together.
//!
//! It has no deadlines, no errors, no unroutable requests, no handlers that await; what it sends is the least that
//! carries a call.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::sync::oneshot;

use super::{BODY, PREFETCH, connect, next, next_ready, start};
use crate::{Result, load};

const QUEUE: &str = "bench.best";

/// The event that an ack waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckOrder {
    /// Until the replies of the requests it covers are on the socket: lapin sends acks before queued messages.
    AfterReply,
    /// For nothing: a worker that dies between the two loses requests.
    Any,
}

#[derive(Clone)]
pub(crate) struct Caller(Arc<Client>);

struct Client {
    // Dropping it would close the connection.
    _connection: lapin::Connection,
    channel: lapin::Channel,
    reply_queue: ShortString,
    waiters: Arc<Mutex<Waiters>>,
}

/// A waiter's slot is its correlation_id.
#[derive(Default)]
struct Waiters {
    slots: Vec<Option<oneshot::Sender<Vec<u8>>>>,
    free: Vec<usize>,
}

impl Waiters {
    fn insert(&mut self, waiter: oneshot::Sender<Vec<u8>>) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(waiter);
            return slot;
        }
        self.slots.push(Some(waiter));
        self.slots.len() - 1
    }

    fn remove(&mut self, delivery: &Delivery) -> Option<oneshot::Sender<Vec<u8>>> {
        let slot: usize = delivery.properties.correlation_id().as_ref()?.as_str().parse().ok()?;
        let waiter = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(waiter)
    }
}

impl load::Caller for Caller {
    async fn call(&self) -> Result<()> {
        let client = &*self.0;
        let (sender, reply) = oneshot::channel();
        let slot = client.waiters.lock().unwrap_or_else(PoisonError::into_inner).insert(sender);
        let properties = BasicProperties::default()
            .with_correlation_id(slot.to_string().into())
            .with_reply_to(client.reply_queue.clone());
        let options = BasicPublishOptions::default();
        start(client.channel.basic_publish(ShortString::default(), QUEUE.into(), options, BODY, properties))?;
        if reply.await? == BODY { Ok(()) } else { Err("a wrong answer".into()) }
    }
}

pub(crate) async fn client(url: &str) -> Result<Caller> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let reply_queue = queue.name().clone();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = channel.basic_consume(reply_queue.clone(), "".into(), options, FieldTable::default()).await?;
    let waiters = Arc::new(Mutex::new(Waiters::default()));
    let mine = Arc::clone(&waiters);
    tokio::spawn(async move {
        while let Ok(delivery) = next(&mut consumer).await {
            let waiter = mine.lock().unwrap_or_else(PoisonError::into_inner).remove(&delivery);
            if let Some(waiter) = waiter {
                drop(waiter.send(delivery.data));
            }
        }
    });
    Ok(Caller(Arc::new(Client { _connection: connection, channel, reply_queue, waiters })))
}

pub(crate) async fn worker(url: &str, ack_order: AckOrder) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
    // The last clone to go closes the channel, which must not meet the closing of the connection.
    let serving_channel = channel.clone();
    let serving = tokio::spawn(async move {
        if let Err(error) = serve(&serving_channel, consumer, ack_order).await {
            eprintln!("stopped serving: {error}");
        }
    });
    load::until_stopped().await?;
    serving.abort();
    connection.close(200, "done".into()).await?;
    drop(channel);
    Ok(())
}

async fn serve(channel: &lapin::Channel, mut consumer: lapin::Consumer, ack_order: AckOrder) -> Result<()> {
    loop {
        let mut delivery = next(&mut consumer).await?;
        let mut acked = 1;
        loop {
            let delivery_tag = delivery.delivery_tag;
            let following = next_ready(&mut consumer)?;
            let reply_to = delivery.properties.reply_to().clone().ok_or("no reply_to")?;
            let correlation_id = delivery.properties.correlation_id().clone().ok_or("no correlation_id")?;
            let properties = BasicProperties::default().with_correlation_id(correlation_id);
            let options = BasicPublishOptions::default();
            let reply = channel.basic_publish(ShortString::default(), reply_to, options, &delivery.data, properties);
            match following {
                Some(following) => {
                    start(reply)?;
                    delivery = following;
                    acked += 1;
                }
                None => {
                    match ack_order {
                        // lapin sends messages in order: when the last is on the socket, so are all.
                        AckOrder::AfterReply => drop(reply.await?),
                        AckOrder::Any => start(reply)?,
                    }
                    start(channel.basic_ack(delivery_tag, BasicAckOptions { multiple: acked > 1 }))?;
                    break;
                }
            }
        }
    }
}

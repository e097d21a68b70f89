//! lapin as most programs use it: every publish and every ack awaited, a task for each request, a map of waiters
//! under an exclusive reply queue.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::sync::oneshot;

use super::{BODY, PREFETCH, connect, next};
use crate::{Result, load};

const QUEUE: &str = "bench.usual";

#[derive(Clone)]
pub(crate) struct Caller(Arc<Client>);

struct Client {
    // Dropping it would close the connection.
    _connection: lapin::Connection,
    channel: Channel,
    reply_queue: ShortString,
    next_id: AtomicU64,
    waiters: Arc<Mutex<Waiters>>,
}

type Waiters = HashMap<String, oneshot::Sender<Vec<u8>>>;

impl load::Caller for Caller {
    async fn call(&self) -> Result<()> {
        let client = &*self.0;
        let correlation_id = client.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let (sender, reply) = oneshot::channel();
        client.waiters.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation_id.clone(), sender);
        let properties = BasicProperties::default()
            .with_correlation_id(correlation_id.into())
            .with_reply_to(client.reply_queue.clone());
        client
            .channel
            .basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), BODY, properties)
            .await?
            .await?;
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
    let waiters = Arc::new(Mutex::new(Waiters::new()));
    let mine = Arc::clone(&waiters);
    tokio::spawn(async move {
        while let Ok(delivery) = next(&mut consumer).await {
            let Some(correlation_id) = delivery.properties.correlation_id() else { continue };
            let waiter = mine.lock().unwrap_or_else(PoisonError::into_inner).remove(correlation_id.as_str());
            if let Some(waiter) = waiter {
                drop(waiter.send(delivery.data));
            }
        }
    });
    let next_id = AtomicU64::new(0);
    Ok(Caller(Arc::new(Client { _connection: connection, channel, reply_queue, next_id, waiters })))
}

pub(crate) async fn worker(url: &str) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
    tokio::spawn(async move {
        while let Ok(delivery) = next(&mut consumer).await {
            let channel = channel.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(&channel, &delivery).await {
                    eprintln!("could not answer: {error}");
                }
            });
        }
    });
    load::until_stopped().await?;
    Ok(connection.close(200, "done".into()).await?)
}

async fn answer(channel: &Channel, delivery: &Delivery) -> Result<()> {
    let reply_to = delivery.properties.reply_to().clone().ok_or("no reply_to")?;
    let correlation_id = delivery.properties.correlation_id().clone().ok_or("no correlation_id")?;
    let properties = BasicProperties::default().with_correlation_id(correlation_id);
    channel
        .basic_publish("".into(), reply_to, BasicPublishOptions::default(), &delivery.data, properties)
        .await?
        .await?;
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}

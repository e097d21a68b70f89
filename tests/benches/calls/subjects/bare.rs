//! lapin with nothing above it, sending the framework's messages: what the framework's layer is measured against.
//!
//! One task publishes and consumes. There are no calls, waiters or tasks to wake, and bodies are neither written nor
//! read; exchange, routing key, properties, sizes, ack order and batching are the framework's, so either end may be
//! the framework's too.

use std::{sync::Arc, time::Instant};

use lapin::{
    BasicProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    BODY, PREFETCH, REPLY, connect,
    framework::{ROUTING_KEY, SERVICE},
    next, next_ready, start,
};
use crate::{
    Result,
    load::{self, Load, histogram},
};

/// The exchange of the wire contract.
const EXCHANGE: &str = "rpc";

pub(crate) async fn client(url: &str, in_flight: usize, load: &Arc<Load>) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let reply_queue = format!("rpc.reply.01234567-89ab-cdef-0123-456789abcdef.{}", std::process::id());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(reply_queue.as_str().into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer =
        channel.basic_consume(reply_queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
    let publish = |slot: usize| {
        let properties = BasicProperties::default()
            .with_correlation_id(slot.to_string().into())
            .with_reply_to(reply_queue.as_str().into())
            .with_expiration("10000".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        start(channel.basic_publish(EXCHANGE.into(), ROUTING_KEY.into(), options, BODY, properties))
    };
    load.measure(async {
        let mut latencies = histogram();
        let mut began = vec![Instant::now(); in_flight];
        let mut waiting = 0;
        for slot in 0..in_flight {
            if load.next() {
                publish(slot)?;
                waiting += 1;
            }
        }
        while waiting > 0 {
            let reply = next(&mut consumer).await?;
            let correlation_id = reply.properties.correlation_id().as_ref().ok_or("no correlation_id")?;
            let slot: usize = correlation_id.as_str().parse()?;
            load.note(&mut latencies, began[slot]);
            if load.next() {
                began[slot] = Instant::now();
                publish(slot)?;
            } else {
                waiting -= 1;
            }
        }
        Ok(latencies)
    })
    .await
}

pub(crate) async fn worker(url: &str) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(OTHER.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
    let mut alternate = FieldTable::default();
    alternate.insert("alternate-exchange".into(), AMQPValue::LongString(OTHER.into()));
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Direct, options, alternate).await?;
    let queue: ShortString = format!("rpc.{SERVICE}").into();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), options, FieldTable::default()).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.clone(), EXCHANGE.into(), ROUTING_KEY.into(), options, FieldTable::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    // The last clone to go closes the channel, which must not meet the closing of the connection.
    let serving_channel = channel.clone();
    let serving = tokio::spawn(async move {
        if let Err(error) = serve(&serving_channel, consumer).await {
            eprintln!("stopped serving: {error}");
        }
    });
    load::until_stopped().await?;
    serving.abort();
    connection.close(200, "done".into()).await?;
    drop(channel);
    Ok(())
}

async fn serve(channel: &lapin::Channel, mut consumer: lapin::Consumer) -> Result<()> {
    let mut batch = Vec::new();
    loop {
        batch.push(next(&mut consumer).await?);
        while let Some(delivery) = next_ready(&mut consumer)? {
            batch.push(delivery);
        }
        let mut left = batch.len();
        let multiple = left > 1;
        for delivery in batch.drain(..) {
            left -= 1;
            let reply_to = delivery.properties.reply_to().clone().ok_or("no reply_to")?;
            let correlation_id = delivery.properties.correlation_id().clone().ok_or("no correlation_id")?;
            let properties = BasicProperties::default().with_correlation_id(correlation_id);
            let options = BasicPublishOptions::default();
            let reply = channel.basic_publish(ShortString::default(), reply_to, options, REPLY, properties);
            if left > 0 {
                start(reply)?;
            } else {
                reply.await?;
                start(channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple }))?;
            }
        }
    }
}

/// Where requests go that nobody bound.
const OTHER: &str = "rpc.other";

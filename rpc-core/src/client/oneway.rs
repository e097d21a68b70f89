//! One-way requests: persistent, and settled by the broker's publisher confirm.
//!
//! A return may come inside any confirm of the same channel (see `connection/lapin.rs`), so requests go out in
//! batches, and a batch is judged when all its confirms are in: every return is then matched by its correlation_id.
//! Requests that come meanwhile form the next batch.

use std::collections::HashMap;

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use crate::{
    connection::{
        Channel, Connection,
        transport::{Properties, Publish, Returned},
    },
    error::Error,
};

/// A request to publish and confirm.
#[derive(Debug)]
pub(super) struct OneWay {
    pub(super) exchange: &'static str,
    pub(super) routing_key: &'static str,
    /// Everything but the correlation_id, which the batch gives.
    pub(super) properties: Properties<'static>,
    pub(super) body: Vec<u8>,
    pub(super) settled: oneshot::Sender<Settled>,
}

/// What the broker said of a one-way request.
#[derive(Debug)]
pub(super) enum Settled {
    /// It is in every queue it was routed to.
    Confirmed,
    /// No queue takes it.
    Returned { reply_text: String },
    /// The broker refused it (`basic.nack`): a full queue, or trouble of its own.
    Nacked,
    /// The channel was lost; `maybe_sent` says whether before it went out.
    Lost { maybe_sent: bool },
    /// It cannot be expressed in AMQP.
    Refused(Error),
}

/// The channel in confirm mode and the task that owns it.
#[derive(Debug)]
pub(super) struct ConfirmChannel {
    requests: mpsc::Sender<OneWay>,
    task: AbortHandle,
}

impl ConfirmChannel {
    pub(super) async fn open(connection: &Connection) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.confirm_select().await?;
        channel.declare_request_exchanges().await?;
        let (requests, inbox) = mpsc::channel(BATCH_MAX);
        let task = tokio::spawn(publish_batches(channel, inbox)).abort_handle();
        Ok(Self { requests, task })
    }

    /// Hands a request over, when there is room; gives it back when the channel is gone.
    pub(super) async fn send(&self, request: OneWay) -> Result<(), OneWay> {
        self.requests.send(request).await.map_err(|mpsc::error::SendError(request)| request)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }
}

impl Drop for ConfirmChannel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish_batches(channel: Channel, mut inbox: mpsc::Receiver<OneWay>) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if !publish_batch(&channel, batch.drain(..)).await {
            inbox.close();
            while let Some(request) = inbox.recv().await {
                drop(request.settled.send(Settled::Lost { maybe_sent: false }));
            }
            return;
        }
    }
}

/// Publishes a batch and settles it; false when the channel is lost.
async fn publish_batch(channel: &Channel, batch: impl Iterator<Item = OneWay>) -> bool {
    let mut sent = Vec::new();
    let mut is_open = true;
    for (id, request) in batch.enumerate() {
        if !is_open {
            drop(request.settled.send(Settled::Lost { maybe_sent: false }));
            continue;
        }
        let properties = Properties { correlation_id: Some(id.to_string().into()), ..request.properties };
        let publish = Publish {
            exchange: request.exchange,
            routing_key: request.routing_key,
            mandatory: true,
            properties,
            body: &request.body,
        };
        match channel.queue_for_confirm(publish) {
            Ok(queued) => sent.push((id, request.settled, queued)),
            Err(error @ (Error::NameTooLong { .. } | Error::PropertiesTooLarge { .. })) => {
                drop(request.settled.send(Settled::Refused(error)))
            }
            Err(_) => {
                is_open = false;
                drop(request.settled.send(Settled::Lost { maybe_sent: true }));
            }
        }
    }
    let mut confirmed = Vec::with_capacity(sent.len());
    let mut returned: HashMap<String, String> = HashMap::new();
    for (id, settled, queued) in sent {
        let outcome = match queued.written().await {
            Ok(confirm) => confirm.wait().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok((is_acked, message)) => {
                if let Some(Returned { correlation_id: Some(correlation_id), reply_text }) = message {
                    returned.insert(correlation_id, reply_text);
                }
                confirmed.push((id, settled, is_acked));
            }
            Err(_) => {
                is_open = false;
                drop(settled.send(Settled::Lost { maybe_sent: true }));
            }
        }
    }
    for (id, settled, is_acked) in confirmed {
        drop(settled.send(match returned.remove(&id.to_string()) {
            Some(reply_text) => Settled::Returned { reply_text },
            None if is_acked => Settled::Confirmed,
            None => Settled::Nacked,
        }));
    }
    is_open
}

/// Requests of one batch, and requests that may wait for the next one.
const BATCH_MAX: usize = 256;

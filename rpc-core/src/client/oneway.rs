//! One-way requests: persistent, and settled by the broker's publisher confirm.
//!
//! They are published in batches. Requests that arrive while a batch waits for its confirms form the next one.

use tokio::sync::{mpsc, oneshot};

use crate::{
    connection::{
        Channel, Connection, Unconfirmed, Verdict,
        amqp::{Properties, Publish},
    },
    error::Error,
    task::AbortOnDrop,
    topology,
};

/// A request to publish and confirm.
#[derive(Debug)]
pub(super) struct OneWay {
    pub(super) exchange: &'static str,
    pub(super) routing_key: &'static str,
    /// All but the correlation_id, which the batch assigns.
    pub(super) properties: Properties<'static>,
    pub(super) body: Vec<u8>,
    pub(super) settled: oneshot::Sender<Settled>,
}

/// The fate of a one-way request.
#[derive(Debug)]
pub(super) enum Settled {
    Sent(Verdict),
    /// The channel was lost before the request was sent.
    NotSent,
    /// The request cannot be expressed in AMQP.
    Refused(Error),
}

/// The channel in confirm mode and the task that owns it.
#[derive(Debug)]
pub(super) struct ConfirmChannel {
    requests: mpsc::Sender<OneWay>,
    _task: AbortOnDrop,
}

impl ConfirmChannel {
    pub(super) async fn open(connection: &Connection) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.confirm_select().await?;
        channel.declare_exchanges(&topology::REQUEST_EXCHANGES).await?;
        let (requests, inbox) = mpsc::channel(BATCH_MAX);
        Ok(Self { requests, _task: AbortOnDrop::spawn(publish_batches(channel, inbox)) })
    }

    /// Hands a request over once there is room; returns it if the channel has ended.
    pub(super) async fn send(&self, request: OneWay) -> Result<(), OneWay> {
        self.requests.send(request).await.map_err(|mpsc::error::SendError(request)| request)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }
}

async fn publish_batches(channel: Channel, mut inbox: mpsc::Receiver<OneWay>) {
    let mut batch = Vec::new();
    let mut unconfirmed = Unconfirmed::new();
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for (id, request) in batch.drain(..).enumerate() {
            publish(&channel, &mut unconfirmed, id, request);
        }
        let mut is_open = true;
        for (settled, verdict) in unconfirmed.settle().await {
            is_open &= verdict != Verdict::Lost;
            drop(settled.send(Settled::Sent(verdict)));
        }
        if !is_open || channel.has_ended() {
            inbox.close();
            while let Some(request) = inbox.recv().await {
                drop(request.settled.send(Settled::NotSent));
            }
            return;
        }
    }
}

fn publish(channel: &Channel, unconfirmed: &mut Unconfirmed<oneshot::Sender<Settled>>, id: usize, request: OneWay) {
    let OneWay { exchange, routing_key, properties, body, settled } = request;
    let properties = Properties { correlation_id: Some(id.to_string().into()), ..properties };
    let publish = Publish { exchange, routing_key, mandatory: true, properties, body: &body };
    if let Err((settled, error)) = unconfirmed.publish(channel, publish, settled) {
        drop(settled.send(match error {
            Error::Disconnected { .. } => Settled::NotSent,
            error => Settled::Refused(error),
        }));
    }
}

/// Requests of one batch, and requests that may wait for the next one.
const BATCH_MAX: usize = 256;

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use tokio::time::{Duration, sleep, timeout};

    use super::*;
    use crate::broker::Broker;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_request_counts_as_not_sent_only_if_its_channel_had_ended_before() {
        let broker = Broker::start().await.unwrap();
        #[cfg(feature = "lapin")]
        let transports = ["native", "lapin"];
        #[cfg(not(feature = "lapin"))]
        let transports = ["native"];
        for transport in transports {
            let connection = Connection::open(&format!("{}?transport={transport}", broker.uri())).await.unwrap();
            let channel = connection.channel().await.unwrap();
            channel.confirm_select().await.unwrap();
            let mut unconfirmed = Unconfirmed::new();
            let mut request = || {
                let (settled, outcome) = oneshot::channel();
                let properties = Properties::default();
                let request = OneWay { exchange: "", routing_key: "missing", properties, body: Vec::new(), settled };
                publish(&channel, &mut unconfirmed, 0, request);
                outcome
            };
            broker.faults().withhold_confirms();
            let mut first = request();
            assert!(first.try_recv().is_err(), "{transport}: its confirm is awaited");
            broker.faults().drop_connections();
            let ended = async {
                while !channel.has_ended() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), ended).await.expect("the channel ends with its connection");
            assert!(matches!(request().await, Ok(Settled::NotSent)), "{transport}");
            let verdicts = unconfirmed.settle().await;
            assert!(matches!(&verdicts[..], [(_, Verdict::Lost)]), "{transport}");
            broker.faults().release_confirms();
            connection.close().await.unwrap();
        }
    }
}

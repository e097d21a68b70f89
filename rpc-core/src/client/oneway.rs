//! One-way requests: persistent, and settled by the broker's publisher confirm.
//!
//! They are published in batches. Requests that arrive while a batch waits for its confirms form the next one. A request that is
//! larger than all before is a batch of its own: if the broker refuses it, no other one is lost with the channel.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    kept::Keep,
    life::{EndOnDrop, Life},
    opening::{Exchange, Mode, open_for},
    reach::{Nack, Replacements},
    sizes::Sizes,
};
use crate::{
    connection::{
        Channel, Connection, Unconfirmed, Verdict,
        amqp::{Properties, Publish, Refusal},
    },
    error::Error,
    task::AbortOnDrop,
    users::Users,
};

/// A request to publish and confirm.
#[derive(Debug)]
pub(super) struct OneWay {
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
    /// The channel was lost before the request was sent: it can be sent on the next one, if it comes back.
    NotSent(Option<Box<Unsent>>),
    /// The broker refused the request (`basic.nack`); it comes back if its channel has not reached its queue before.
    Nacked(Nack, Option<Box<Unsent>>),
    /// The request cannot be expressed in AMQP.
    Refused(Error),
    /// The broker takes no message of its size.
    TooLarge {
        body_bytes: usize,
        limit_bytes: usize,
    },
    /// The user may not publish it.
    Denied(Refusal),
}

/// The content of a request that is in no queue.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) properties: Properties<'static>,
    pub(super) body: Vec<u8>,
}

/// The channel in confirm mode and the task that owns it.
#[derive(Debug)]
pub(super) struct ConfirmChannel {
    requests: mpsc::Sender<OneWay>,
    life: Arc<Life>,
    epoch: u64,
    _task: AbortOnDrop,
}

/// Where its requests go.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) connection: Connection,
    pub(super) exchange: Exchange,
    pub(super) users: Users,
    replacements: Arc<Replacements>,
}

impl Destination {
    pub(super) fn new(connection: Connection, exchange: Exchange, users: Users) -> Self {
        Self { connection, exchange, users, replacements: Arc::default() }
    }
}

impl ConfirmChannel {
    /// Hands a request over once there is room; returns it if the channel has ended.
    pub(super) async fn send(&self, request: OneWay) -> Result<(), OneWay> {
        self.requests.send(request).await.map_err(|mpsc::error::SendError(request)| request)
    }
}

impl Keep for ConfirmChannel {
    type Source = Destination;

    async fn open(Destination { connection, exchange, users, replacements }: &Destination) -> Result<Self, Error> {
        let (channel, epoch) = open_for(connection, None, *exchange, Mode::Confirms).await?;
        let (requests, inbox) = mpsc::channel(BATCH_MAX);
        let life = Arc::new(Life::default());
        let (exchange, users, replacements) = (*exchange, users.clone(), Arc::clone(replacements));
        let (sizes, since, reached) = (Sizes::default(), Instant::now(), HashSet::new());
        let batches = Batches { channel, since, exchange, users, replacements, sizes, reached, has_settled: false };
        let task = AbortOnDrop::spawn(batches.run(inbox, EndOnDrop(Arc::clone(&life))));
        Ok(Self { requests, life, epoch, _task: task })
    }

    fn life(&self) -> &Life {
        &self.life
    }

    fn has_failed_alone(&self, destination: &Destination) -> bool {
        destination.connection.is_in(self.epoch)
    }
}

/// The publishing side.
struct Batches {
    channel: Channel,
    /// When it was opened.
    since: Instant,
    exchange: Exchange,
    users: Users,
    replacements: Arc<Replacements>,
    sizes: Sizes,
    /// The routing keys of which the broker has taken a request.
    reached: HashSet<&'static str>,
    /// Whether the broker has answered a request otherwise than by closing the channel.
    has_settled: bool,
}

impl Batches {
    async fn run(mut self, mut inbox: mpsc::Receiver<OneWay>, end: EndOnDrop) {
        let mut arrived = Vec::new();
        let mut waiting = VecDeque::new();
        while !waiting.is_empty() || inbox.recv_many(&mut arrived, BATCH_MAX).await > 0 {
            waiting.extend(arrived.drain(..));
            let batch_len = self.next_batch(&waiting);
            let (is_open, fates) = self.publish_batch(waiting.drain(..batch_len)).await;
            if !is_open {
                // Before the callers look for another channel.
                end.0.end();
            }
            for (settled, fate) in fates {
                drop(settled.send(fate));
            }
            if !is_open {
                inbox.close();
                waiting.into_iter().for_each(give_back);
                while let Some(request) = inbox.recv().await {
                    give_back(request);
                }
                return;
            }
        }
    }

    /// How many of the requests are published together.
    fn next_batch(&self, waiting: &VecDeque<OneWay>) -> usize {
        let mut bytes = 0;
        let together = waiting.iter().take_while(|request| {
            bytes += request.body.len();
            self.sizes.is_accepted(request.body.len()) && bytes <= BATCH_MAX_BYTES
        });
        together.count().max(1)
    }

    /// Publishes requests and waits for their confirms; false when the channel has ended, or is to be left.
    async fn publish_batch(
        &mut self,
        batch: impl Iterator<Item = OneWay>,
    ) -> (bool, Vec<(oneshot::Sender<Settled>, Settled)>) {
        self.channel.room().await;
        let mut unconfirmed = Unconfirmed::new();
        for (id, request) in batch.enumerate() {
            let Self { channel, exchange, users, reached, .. } = &*self;
            let to = Address { channel, exchange: *exchange, user_id: users.own(), reached };
            publish(to, &mut unconfirmed, id, request);
        }
        let verdicts = unconfirmed.settle().await;
        let is_lost = verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Lost);
        // Those that the broker took answer for the others of their routing key.
        let taken = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Confirmed);
        self.reached.extend(taken.map(|(waits, _)| waits.routing_key));
        let are_refused = !verdicts.is_empty() && verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Refused);
        let mut is_left = are_refused && self.since.elapsed() >= STUCK_MIN;
        let (mut unreached, mut fates) = (None, Vec::with_capacity(verdicts.len()));
        let refusal = if is_lost { self.channel.refusal().await } else { None };
        for (Waits { settled, routing_key, body_bytes, unsent }, verdict) in verdicts {
            let fate = match (verdict, &refusal) {
                (Verdict::Lost, Some(refusal)) => self.refused(body_bytes, refusal),
                (Verdict::Refused, _) if self.reached.contains(routing_key) => Settled::Nacked(Nack::Full, None),
                (Verdict::Refused, _) => {
                    let nack = *unreached.get_or_insert_with(|| self.replacements.nack());
                    is_left |= nack == Nack::Replaced;
                    Settled::Nacked(nack, unsent)
                }
                (verdict, _) => {
                    if verdict != Verdict::Lost {
                        self.has_settled = true;
                        self.sizes.accept(body_bytes);
                    }
                    Settled::Sent(verdict)
                }
            };
            fates.push((settled, fate));
        }
        let is_open = !is_lost && !is_left && !self.channel.has_ended();
        (is_open, fates)
    }

    /// The fate of a request that was unconfirmed when the broker closed the channel.
    fn refused(&self, body_bytes: usize, refusal: &Refusal) -> Settled {
        match refusal.message_max_bytes().filter(|limit_bytes| body_bytes > *limit_bytes) {
            Some(limit_bytes) => Settled::TooLarge { body_bytes, limit_bytes },
            // Then no request has got through.
            None if refusal.is_denial() && !self.has_settled => Settled::Denied(refusal.clone()),
            None => Settled::Sent(Verdict::Lost),
        }
    }
}

fn give_back(request: OneWay) {
    let OneWay { properties, body, settled, .. } = request;
    drop(settled.send(Settled::NotSent(Some(Box::new(Unsent { properties, body })))));
}

/// The caller that waits, and its request.
struct Waits {
    settled: oneshot::Sender<Settled>,
    routing_key: &'static str,
    body_bytes: usize,
    /// Kept if the request may be sent again.
    unsent: Option<Box<Unsent>>,
}

/// Where a batch goes, and as whose.
#[derive(Clone, Copy)]
struct Address<'a> {
    channel: &'a Channel,
    exchange: Exchange,
    user_id: Option<&'a str>,
    /// The routing keys whose requests are not sent again.
    reached: &'a HashSet<&'static str>,
}

fn publish(to: Address<'_>, unconfirmed: &mut Unconfirmed<Waits>, id: usize, request: OneWay) {
    let Address { channel, exchange, user_id, reached } = to;
    if channel.has_ended() {
        return give_back(request);
    }
    let OneWay { routing_key, properties, body, settled } = request;
    let is_kept = !reached.contains(routing_key);
    let unsent = is_kept.then(|| Box::new(Unsent { properties: properties.clone(), body: body.clone() }));
    let waits = Waits { settled, routing_key, body_bytes: body.len(), unsent };
    let correlation_id = Some(id.to_string().into_bytes().into());
    let properties = Properties { correlation_id, user_id, ..properties };
    let routing_key = routing_key.as_bytes();
    let publish = Publish { exchange: exchange.name(), routing_key, mandatory: true, properties, body: &body };
    if let Err((Waits { settled, .. }, error)) = unconfirmed.publish(channel, publish, waits) {
        drop(settled.send(match error {
            Error::Disconnected { .. } => Settled::NotSent(None),
            error => Settled::Refused(error),
        }));
    }
}

/// A channel that is younger is not left because its requests are refused: the queue may be full.
const STUCK_MIN: Duration = Duration::from_secs(1);
/// The bodies of one batch.
const BATCH_MAX_BYTES: usize = 4 * 1_024 * 1_024;
/// Requests of one batch, and requests that may wait for the next one.
const BATCH_MAX: usize = 256;

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

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
                let request = OneWay { routing_key: "missing", properties, body: Vec::new(), settled };
                let reached = HashSet::new();
                let to = Address { channel: &channel, exchange: Exchange::Default, user_id: None, reached: &reached };
                publish(to, &mut unconfirmed, 0, request);
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
            assert!(matches!(request().await, Ok(Settled::NotSent(_))), "{transport}");
            let verdicts = unconfirmed.settle().await;
            assert!(matches!(&verdicts[..], [(_, Verdict::Lost)]), "{transport}");
            broker.faults().release_confirms();
            connection.close().await.unwrap();
        }
    }
}

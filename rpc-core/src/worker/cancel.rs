//! Cancels: requests whose caller has given up are stopped, or skipped when their turn comes.
//!
//! ```text
//!  rpc.cancel ──<service>──► rpc.control.<user>.<uuid> ──► control task ──► every lane: stop it
//!                                                              └──► the pool's tombstones: skip it when it comes
//! ```
//!
//! Every worker of a service receives the cancel of every call given up, and at most one worker has the request. All of them
//! leave a tombstone, because the request may still be queued, or be redelivered. A lost cancel costs work, nothing else:
//! the request runs until its own deadline.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{discovery::Discovery, tombstones::Tombstones};
use crate::{
    connection::{
        Channel, Connection, Consumer, Delivery,
        amqp::{QueueDeclaration, Settlement},
        open_again,
    },
    envelope,
    error::Error,
    lock::lock,
    task::AbortOnDrop,
    topology,
};

/// Calls of one client that were given up together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cancel {
    /// The reply_to of their requests: with a correlation_id it names a call.
    pub(super) reply_to: String,
    pub(super) correlation_ids: HashSet<Box<[u8]>>,
    /// The user who sent it.
    user_id: Option<String>,
}

impl Cancel {
    /// Reads one; `None` when it names no call. Its memory has a bound: a hostile peer may send any body.
    fn read(reply_to: Option<&str>, user_id: Option<&str>, body: &[u8]) -> Option<Self> {
        let reply_to = reply_to.filter(|reply_to| !reply_to.is_empty())?.to_owned();
        if body.len() > BODY_MAX_BYTES {
            tracing::debug!(bytes = body.len(), "a cancel is too large, and ignored");
            return None;
        }
        let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let ids = lines.filter(|line| (1..=CORRELATION_ID_MAX_BYTES).contains(&line.len()));
        let correlation_ids: HashSet<_> = ids.take(envelope::CANCELS_PER_MESSAGE_MAX).map(Box::from).collect();
        let user_id = user_id.map(str::to_owned);
        (!correlation_ids.is_empty()).then_some(Self { reply_to, correlation_ids, user_id })
    }

    /// Whether it comes from the user of this request, if the request names one.
    pub(super) fn is_of_user(&self, request: &Delivery) -> bool {
        request.user_id().is_none_or(|user_id| self.user_id.as_deref() == Some(user_id))
    }
}

/// A lane's part: the cancels it receives, and the tombstones of its pool.
#[derive(Debug)]
pub(super) struct Cancels {
    pub(super) inbox: mpsc::Receiver<Arc<Cancel>>,
    pub(super) tombstones: Arc<Tombstones>,
}

/// A pool's control queue, and the lanes that its messages are passed on to.
#[derive(Debug)]
pub(super) struct Control {
    connection: Connection,
    discovery: Discovery,
    lanes: Vec<mpsc::Sender<Arc<Cancel>>>,
    tombstones: Arc<Tombstones>,
    /// The epoch of the last attempt to open, and the name of its queue.
    name: Mutex<(u64, Uuid)>,
}

/// The consumer of one opening.
#[derive(Debug)]
struct ControlIntake {
    channel: Channel,
    consumer: Consumer,
    queue: String,
}

impl Control {
    pub(super) fn new(connection: Connection, discovery: Discovery) -> Self {
        Self { connection, discovery, lanes: Vec::new(), tombstones: Arc::default(), name: Mutex::default() }
    }

    /// The receiver of a further lane.
    pub(super) fn lane(&mut self) -> Cancels {
        let (sender, inbox) = mpsc::channel(CANCELS_WAITING_MAX);
        self.lanes.push(sender);
        Cancels { inbox, tombstones: Arc::clone(&self.tombstones) }
    }

    /// Opens the control queue in a task, which then passes cancels on until the connection is closed for good. The receiver gets the
    /// outcome of the first attempt.
    pub(super) fn spawn(self) -> (AbortOnDrop, oneshot::Receiver<Result<(), Error>>) {
        let (first, opened) = oneshot::channel();
        (AbortOnDrop::spawn(self.run(first)), opened)
    }

    async fn run(self, first: oneshot::Sender<Result<(), Error>>) {
        let (opened, outcome) = match self.open().await {
            Ok(intake) => (Some(intake), Ok(())),
            Err(error) => (None, Err(error)),
        };
        if let Err(Err(error)) = first.send(outcome) {
            // The pool serves already.
            tracing::warn!(%error, "could not open the control queue");
        }
        if let Some(intake) = opened {
            self.pass_on(intake).await;
        }
        while let Ok(intake) = open_again("the control queue", || self.open()).await {
            self.pass_on(intake).await;
        }
    }

    /// Declares the control queue and consumes from it, on a channel of its own: delivery tags are a channel's.
    async fn open(&self) -> Result<ControlIntake, Error> {
        let (channel, epoch) = self.connection.channel_with(&topology::CANCELS).await?;
        let name = topology::control_queue(self.connection.user(), self.name_in(epoch));
        let queue =
            QueueDeclaration { name: &name, durable: false, exclusive: true, auto_delete: true, arguments: &[] };
        channel.declare_queue(queue).await?;
        for service in &self.discovery.services {
            channel.bind_queue(&name, topology::CANCEL_EXCHANGE, service.name).await?;
        }
        // Not without acks: the prefetch count bounds what the client library buffers.
        channel.qos(CONTROL_PREFETCH).await?;
        let consumer = channel.consume(&name, "", false).await?;
        self.discovery.open(&self.connection, &name).await;
        Ok(ControlIntake { channel, consumer, queue: name })
    }

    /// One name an epoch: an attempt that was given up may have declared its queue, which has no consumer and lasts as long as the
    /// connection. The next epoch's queue has another name, because a broker may keep the last one's for a while.
    fn name_in(&self, epoch: u64) -> Uuid {
        let mut known = lock(&self.name);
        if known.0 != epoch {
            *known = (epoch, Uuid::new_v4());
        }
        known.1
    }

    /// Hands cancels to the lanes and answers pings until the consumer is lost.
    async fn pass_on(&self, ControlIntake { channel, mut consumer, queue }: ControlIntake) {
        loop {
            match consumer.next().await {
                Ok(Some(delivery)) => {
                    self.take(&queue, &delivery).await;
                    let ack = Settlement::Ack { delivery_tag: delivery.delivery_tag(), multiple: false };
                    if channel.settle(ack).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "the control consumer ended"),
            }
        }
    }

    async fn take(&self, queue: &str, delivery: &Delivery) {
        if let Some(service) = topology::pinged_service(delivery.routing_key()) {
            return self.discovery.answer(&self.connection, queue, service, delivery).await;
        }
        if let Some(cancel) = Cancel::read(delivery.reply_to_text(), delivery.user_id(), delivery.body()) {
            self.tell(&Arc::new(cancel));
        }
    }

    fn tell(&self, cancel: &Arc<Cancel>) {
        // Before the lanes look for their handlers: a request that arrives after that look finds its tombstone.
        let ids = cancel.correlation_ids.iter().map(|id| &**id);
        self.tombstones.insert(cancel.reply_to.as_bytes(), cancel.user_id.as_deref(), ids, Instant::now());
        for lane in &self.lanes {
            if lane.try_send(Arc::clone(cancel)).is_err() {
                tracing::debug!("a lane is too busy to take a cancel, or has ended");
            }
        }
    }
}

/// The largest body of a cancel: that many correlation_ids of the longest kind, each with its line break.
const BODY_MAX_BYTES: usize = envelope::CANCELS_PER_MESSAGE_MAX * 257;
/// AMQP 0-9-1 §4.2.5.3: no short string is longer.
const CORRELATION_ID_MAX_BYTES: usize = 255;
/// Messages that may wait for a lane; each names up to `CANCELS_PER_MESSAGE_MAX` calls.
const CANCELS_WAITING_MAX: usize = 64;
/// Messages that the broker may have on their way to this consumer.
const CONTROL_PREFETCH: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(reply_to: &str, ids: &[u8]) -> Cancel {
        Cancel::read(Some(reply_to), None, ids).unwrap()
    }

    #[test]
    fn a_cancel_names_calls_or_is_ignored() {
        let ids = |ids: &[&[u8]]| ids.iter().map(|id| Box::from(*id)).collect::<HashSet<Box<[u8]>>>();
        assert_eq!(cancel("q", b"1\n22\r\n").correlation_ids, ids(&[b"1", b"22"]));
        assert_eq!(cancel("q", b"\xFF\n").correlation_ids, ids(&[b"\xFF"]), "a correlation_id may be any bytes");
        for (reply_to, body) in [(None, &b"1"[..]), (Some(""), b"1"), (Some("q"), b""), (Some("q"), b"\n\r\n")] {
            assert!(Cancel::read(reply_to, None, body).is_none());
        }
        let many: String = (0..2 * envelope::CANCELS_PER_MESSAGE_MAX).map(|id| format!("{id}\n")).collect();
        assert_eq!(cancel("q", many.as_bytes()).correlation_ids.len(), envelope::CANCELS_PER_MESSAGE_MAX);
    }

    #[test]
    fn nothing_is_kept_of_a_line_that_is_no_correlation_id() {
        let mut body = vec![b'x'; 256];
        assert!(Cancel::read(Some("q"), None, &body).is_none());
        body.extend_from_slice(b"\n7");
        assert_eq!(cancel("q", &body).correlation_ids.len(), 1);
        assert!(Cancel::read(Some("q"), None, &vec![b'x'; 8 << 20]).is_none());
        let many = b"1\n".repeat(4 << 20);
        assert!(Cancel::read(Some("q"), None, &many).is_none(), "no client sends so much");
    }
}

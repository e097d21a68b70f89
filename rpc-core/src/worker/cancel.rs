//! Cancels: requests whose caller has given up are stopped, or skipped when their turn comes.
//!
//! ```text
//!  rpc.cancel ──<service>──► rpc.control.<user>.<uuid> ──► control task ──► every lane: stop it, or note it for later
//! ```
//!
//! Every worker of a service receives the cancel of every call given up, and at most one worker has the request. The other
//! workers leave a tombstone, because the request may still be queued, or be redelivered. A lost cancel costs work, nothing else:
//! the request runs until its own deadline.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    connection::{
        Channel, Connection, Consumer, Delivery,
        amqp::{NOT_FOUND, QueueDeclaration, Settlement},
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
    pub(super) correlation_ids: HashSet<String>,
    /// The user who sent it.
    user_id: Option<String>,
}

impl Cancel {
    /// Reads one; `None` when it names no call.
    fn read(reply_to: Option<&str>, user_id: Option<&str>, body: &[u8]) -> Option<Self> {
        let reply_to = reply_to.filter(|reply_to| !reply_to.is_empty())?.to_owned();
        let lines = std::str::from_utf8(body).ok()?.lines().filter(|line| !line.is_empty());
        let correlation_ids: HashSet<_> = lines.take(envelope::CANCELS_PER_MESSAGE_MAX).map(str::to_owned).collect();
        let user_id = user_id.map(str::to_owned);
        (!correlation_ids.is_empty()).then_some(Self { reply_to, correlation_ids, user_id })
    }

    /// Whether it comes from the user of this request, if the request names one.
    pub(super) fn is_of_user(&self, request: &Delivery) -> bool {
        request.user_id().is_none_or(|user_id| self.user_id.as_deref() == Some(user_id))
    }
}

/// A lane's part: the cancels it receives, and the tombstones it keeps.
#[derive(Debug)]
pub(super) struct Cancels {
    pub(super) inbox: mpsc::Receiver<Arc<Cancel>>,
    pub(super) tombstones: Tombstones,
}

/// A pool's control queue, and the lanes that its messages are passed on to.
#[derive(Debug)]
pub(super) struct Control {
    connection: Connection,
    services: Vec<&'static str>,
    lanes: Vec<mpsc::Sender<Arc<Cancel>>>,
    /// The epoch of the last attempt to open, and the name of its queue.
    name: Mutex<(u64, Uuid)>,
}

/// The consumer of one opening.
#[derive(Debug)]
struct ControlIntake {
    channel: Channel,
    consumer: Consumer,
}

impl Control {
    pub(super) fn new(connection: Connection, services: Vec<&'static str>) -> Self {
        Self { connection, services, lanes: Vec::new(), name: Mutex::default() }
    }

    /// The receiver of a further lane.
    pub(super) fn lane(&mut self) -> Cancels {
        let (sender, inbox) = mpsc::channel(CANCELS_WAITING_MAX);
        self.lanes.push(sender);
        Cancels { inbox, tombstones: Tombstones::new(TOMBSTONES_MAX, TOMBSTONE_AGE_MAX) }
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
        // An exchange that exists needs no permission.
        let (channel, epoch) = match self.channel(true).await {
            Err(Error::Refused { reply_code: NOT_FOUND, .. }) => self.channel(false).await?,
            opened => opened?,
        };
        let name = topology::control_queue(self.connection.user(), self.name_in(epoch));
        let queue =
            QueueDeclaration { name: &name, durable: false, exclusive: true, auto_delete: true, arguments: &[] };
        channel.declare_queue(queue).await?;
        for service in &self.services {
            channel.bind_queue(&name, topology::CANCEL_EXCHANGE, service).await?;
        }
        // Not without acks: the prefetch count bounds what the client library buffers.
        channel.qos(CONTROL_PREFETCH).await?;
        let consumer = channel.consume(&name, "", false).await?;
        Ok(ControlIntake { channel, consumer })
    }

    /// A channel on which the exchange for cancels has been declared, and its epoch.
    async fn channel(&self, is_passive: bool) -> Result<(Channel, u64), Error> {
        let (channel, epoch) = self.connection.channel_and_epoch().await?;
        channel.declare_exchange(&topology::CANCELS, is_passive).await?;
        Ok((channel, epoch))
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

    /// Hands cancels to the lanes until the consumer is lost.
    async fn pass_on(&self, ControlIntake { channel, mut consumer }: ControlIntake) {
        loop {
            match consumer.next().await {
                Ok(Some(delivery)) => {
                    if let Some(cancel) = Cancel::read(delivery.reply_to_text(), delivery.user_id(), delivery.body()) {
                        self.tell(&Arc::new(cancel));
                    }
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

    fn tell(&self, cancel: &Arc<Cancel>) {
        for lane in &self.lanes {
            if lane.try_send(Arc::clone(cancel)).is_err() {
                tracing::debug!("a lane is too busy to take a cancel, or has ended");
            }
        }
    }
}

/// Calls given up whose requests are not here: bounded in number and age.
#[derive(Debug)]
pub(super) struct Tombstones {
    /// By a hash of both names, so that looking one up allocates nothing.
    entries: HashMap<u64, (Arc<Cancel>, String)>,
    /// Their hashes in order of age.
    ages: VecDeque<(Instant, u64)>,
    hasher: RandomState,
    len_max: usize,
    age_max: Duration,
}

impl Tombstones {
    fn new(len_max: usize, age_max: Duration) -> Self {
        let (entries, ages, hasher) = (HashMap::new(), VecDeque::new(), RandomState::new());
        Self { entries, ages, hasher, len_max, age_max }
    }

    /// Notes a call; the oldest one is forgotten when there are too many.
    pub(super) fn insert(&mut self, cancel: &Arc<Cancel>, correlation_id: &str, now: Instant) {
        let hash = self.hasher.hash_one((cancel.reply_to.as_str(), correlation_id));
        if self.entries.insert(hash, (Arc::clone(cancel), correlation_id.to_owned())).is_none() {
            self.ages.push_back((now, hash));
        }
        while self.ages.len() > self.len_max {
            self.forget_oldest();
        }
    }

    /// Whether the call that wants this request was given up. Costs nothing while there are none.
    pub(super) fn is_given_up(&mut self, delivery: &Delivery, now: Instant) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let cancel = self.find(delivery.reply_to_text(), delivery.correlation_id(), now);
        cancel.is_some_and(|cancel| cancel.is_of_user(delivery))
    }

    /// An entry stays until it is old: a request may be delivered, lost with its worker's channel, and redelivered.
    fn find(&mut self, reply_to: Option<&str>, correlation_id: Option<&str>, now: Instant) -> Option<&Cancel> {
        while self.ages.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > self.age_max) {
            self.forget_oldest();
        }
        let (reply_to, correlation_id) = (reply_to?, correlation_id?);
        let (cancel, id) = self.entries.get(&self.hasher.hash_one((reply_to, correlation_id)))?;
        (cancel.reply_to == reply_to && id == correlation_id).then_some(&**cancel)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.ages.pop_front() {
            self.entries.remove(&hash);
        }
    }
}

/// Calls given up whose requests a lane has not seen: at most 8 MB with the longest names AMQP allows.
const TOMBSTONES_MAX: usize = 16_384;
/// A request that is queued longer than this after its caller gave up is executed.
const TOMBSTONE_AGE_MAX: Duration = Duration::from_secs(300);
/// Messages that may wait for a lane; each names up to `CANCELS_PER_MESSAGE_MAX` calls.
const CANCELS_WAITING_MAX: usize = 64;
/// Messages that the broker may have on their way to this consumer.
const CONTROL_PREFETCH: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NewDelivery;

    impl Tombstones {
        fn has(&mut self, reply_to: Option<&str>, correlation_id: Option<&str>, now: Instant) -> bool {
            self.find(reply_to, correlation_id, now).is_some()
        }
    }

    fn cancel(reply_to: &str, ids: &str) -> Arc<Cancel> {
        Arc::new(Cancel::read(Some(reply_to), None, ids.as_bytes()).unwrap())
    }

    #[test]
    fn a_cancel_names_calls_or_is_ignored() {
        assert_eq!(cancel("q", "1\n22\n").correlation_ids, HashSet::from(["1".to_owned(), "22".to_owned()]));
        for (reply_to, body) in [(None, &b"1"[..]), (Some(""), b"1"), (Some("q"), b""), (Some("q"), b"\xFF")] {
            assert_eq!(Cancel::read(reply_to, None, body), None);
        }
        let many: String = (0..2 * envelope::CANCELS_PER_MESSAGE_MAX).map(|id| format!("{id}\n")).collect();
        assert_eq!(cancel("q", &many).correlation_ids.len(), envelope::CANCELS_PER_MESSAGE_MAX);
    }

    #[test]
    fn a_cancel_of_another_user_counts_for_no_request() {
        let request = |user_id: Option<&str>| {
            let (reply_to, correlation_id) = (Some("q".to_owned()), Some("1".to_owned()));
            let user_id = user_id.map(str::to_owned);
            NewDelivery { reply_to, correlation_id, user_id, ..NewDelivery::default() }.make().unwrap()
        };
        let of = |user_id| Arc::new(Cancel::read(Some("q"), user_id, b"1").unwrap());
        let now = Instant::now();
        for (cancel, asked, counts) in [
            (None, None, true),
            (Some("eve"), None, true),
            (Some("alice"), Some("alice"), true),
            (Some("eve"), Some("alice"), false),
            (None, Some("alice"), false),
        ] {
            let mut tombstones = Tombstones::new(2, Duration::from_secs(1));
            tombstones.insert(&of(cancel), "1", now);
            assert_eq!(tombstones.is_given_up(&request(asked), now), counts, "{cancel:?} {asked:?}");
        }
    }

    #[test]
    fn tombstones_are_bounded_in_number_and_age() {
        let now = Instant::now();
        let mut tombstones = Tombstones::new(2, Duration::from_secs(1));
        let calls = cancel("q", "1\n2\n3");
        for (id, at) in [("1", 0), ("2", 0), ("2", 100), ("3", 500)] {
            tombstones.insert(&calls, id, now + Duration::from_millis(at));
        }
        assert!(!tombstones.has(Some("q"), Some("1"), now), "the oldest is forgotten first");
        assert!(tombstones.has(Some("q"), Some("2"), now) && tombstones.has(Some("q"), Some("3"), now));
        assert!(!tombstones.has(Some("another"), Some("2"), now) && !tombstones.has(Some("q"), None, now));
        assert!(!tombstones.has(Some("q"), Some("2"), now + Duration::from_millis(1_001)), "too old");
        assert!(tombstones.has(Some("q"), Some("3"), now + Duration::from_millis(1_001)));
        assert_eq!((tombstones.entries.len(), tombstones.ages.len()), (1, 1));
    }
}

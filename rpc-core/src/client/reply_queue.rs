//! A client's session: its exclusive reply queue, its channels for requests, and the tasks that complete the calls in flight.
//!
//! ```text
//!  call ──begin──► InFlight ◄──reply────── replies task  ◄── consumer (no_ack), alone on its channel
//!    │                ▲  ▲
//!    ├─publish        │  └──give_back──── a task of each channel  ◄── basic.return
//!    └─given up       └─────expire─────── deadlines task (one timer for all calls)
//!         └──► cancels task, with a channel of its own
//! ```
//!
//! A session ends with the channel of its replies and is never reused: the next one's reply queue has another name, so no reply
//! can reach the wrong session. A channel for requests that ends is replaced within the session.
//!
//! When the broker does not declare the queue within [`QUEUE_LIMIT`], the session takes direct replies (RabbitMQ's pseudo-queue
//! `amq.rabbitmq.reply-to`), which need no queue. They arrive on the channel that published the request, so such a session has one
//! channel for everything. While a node of a cluster hangs, the other nodes declare an exclusive queue after 55 s.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::{Handle, Id},
    time::timeout,
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    cancel::Sender,
    confirmed::Confirming,
    counters::Counters,
    in_flight::{InFlight, Outcome},
    kept::{Keep, Kept, outside},
    life::Life,
    opening::{Exchange, Mode, Step, in_one_flight, open_for, try_publish, within_limit},
    pending::EXCHANGES,
    publisher::{Place, Publisher},
};
use crate::{
    connection::{
        Channel, Connection, Consumer,
        amqp::{DIRECT_REPLIES, QueueDeclaration},
    },
    error::Error,
    task::AbortOnDrop,
    topology,
    users::Users,
};

/// An open session; dropping it stops its tasks and closes its channels.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) in_flight: Arc<InFlight>,
    /// The one that runs the session's tasks.
    pub(super) runtime: Id,
    epoch: u64,
    publishers: [Kept<Publisher>; EXCHANGES],
    /// For the requests that the broker may refuse, the first one of each method among them.
    confirming: [Kept<Confirming>; EXCHANGES],
    /// Of a session with direct replies.
    direct: Option<Arc<Publisher>>,
    _tasks: [AbortOnDrop; 3],
}

/// All that a session is opened with.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) connection: Connection,
    pub(super) max_in_flight: usize,
    pub(super) users: Users,
    pub(super) counters: Arc<Counters>,
}

impl Session {
    /// The reply_to of its requests.
    pub(super) fn reply_to(&self) -> &str {
        &self.in_flight.reply_to
    }

    pub(super) fn has_ended(&self) -> bool {
        self.in_flight.life.has_ended()
    }

    pub(super) async fn ended(&self) {
        self.in_flight.life.ended().await;
    }

    /// Whether all is published and received on one channel.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The channel that the requests to an exchange share, once it is open.
    pub(super) async fn publisher(&self, exchange: Exchange) -> Result<Arc<Publisher>, Error> {
        match &self.direct {
            Some(direct) => Ok(Arc::clone(direct)),
            None => self.publishers[exchange.index()].get().await,
        }
    }

    /// The channel in confirm mode.
    pub(super) fn confirming(&self, exchange: Exchange) -> &Kept<Confirming> {
        &self.confirming[exchange.index()]
    }

    /// Ends the session: every call in flight gets `Shutdown`.
    pub(super) fn shutdown(&self) {
        self.in_flight.end(|| Outcome::Shutdown);
    }
}

impl Keep for Session {
    type Source = Source;

    async fn open(source: &Source) -> Result<Self, Error> {
        Self::open_within(source, Some(QUEUE_LIMIT)).await
    }

    fn life(&self) -> &Life {
        &self.in_flight.life
    }

    fn has_failed_alone(&self, source: &Source) -> bool {
        source.connection.is_in(self.epoch)
    }
}

impl Session {
    /// Opens a session with a queue if the broker declares it within `limit`, otherwise, or without a limit, one with direct
    /// replies.
    async fn open_within(source: &Source, limit: Option<Duration>) -> Result<Self, Error> {
        let Source { connection, max_in_flight, users, counters } = source;
        let runtime = Handle::try_current().map_err(|_| outside())?.id();
        let (channel, epoch) = connection.channel_and_epoch().await?;
        let reply_queue = topology::reply_queue(connection.user(), Uuid::new_v4(), epoch);
        let new_in_flight = |reply_to| {
            Arc::new(InFlight::new(reply_to, random_key(), *max_in_flight, users.clone(), Arc::clone(counters)))
        };
        let in_flight = new_in_flight(reply_queue);
        let place = |in_flight: &Arc<InFlight>, exchange| {
            let in_flight = Arc::clone(in_flight);
            Place { connection: connection.clone(), epoch, exchange, in_flight }
        };
        let requests = Kept::<Publisher>::new(place(&in_flight, Exchange::Requests));
        let confirmed = Kept::<Confirming>::new(place(&in_flight, Exchange::Requests));
        // While the queue is declared.
        requests.want()?;
        confirmed.want()?;
        let consumed = match limit {
            Some(limit) => timeout(limit, consume(channel, &in_flight)).await.ok(),
            None => None,
        };
        let (in_flight, consumer, direct) = match consumed {
            Some(consumer) => (in_flight, consumer?, None),
            None => {
                let (channel, consumer) = consume_directly(connection, epoch).await?;
                let in_flight = new_in_flight(DIRECT_REPLIES.to_owned());
                ask_for_rights(connection, epoch, &in_flight).await?;
                let direct = Publisher::on(channel, &place(&in_flight, Exchange::Requests));
                (in_flight, consumer, Some(Arc::new(direct)))
            }
        };
        tracing::debug!(reply_to = in_flight.reply_to, "session ready");
        let publishers =
            [requests, Kept::new(place(&in_flight, Exchange::Default)), Kept::new(place(&in_flight, Exchange::Nested))];
        let confirming = [
            confirmed,
            Kept::new(place(&in_flight, Exchange::Default)),
            Kept::new(place(&in_flight, Exchange::Nested)),
        ];
        let cancels_on = direct.as_ref().map(|direct| direct.channel.clone());
        let tasks = start_tasks(&in_flight, consumer, connection.clone(), epoch, cancels_on);
        Ok(Self { in_flight, runtime, epoch, publishers, confirming, direct, _tasks: tasks })
    }
}

fn start_tasks(
    in_flight: &Arc<InFlight>,
    consumer: Consumer,
    connection: Connection,
    epoch: u64,
    cancels_on: Option<Channel>,
) -> [AbortOnDrop; 3] {
    let span = tracing::debug_span!("client", reply_to = in_flight.reply_to);
    let share = || Arc::clone(in_flight);
    let (expiring, cancelling) = (share(), share());
    [
        AbortOnDrop::spawn(take_replies(EndOnDrop(share()), consumer).instrument(span.clone())),
        AbortOnDrop::spawn(async move { expiring.expire_calls().await }.instrument(span.clone())),
        AbortOnDrop::spawn(
            async move {
                let InFlight { cancels, reply_to, users, .. } = &*cancelling;
                let sender = Sender { reply_to, user_id: users.own() };
                cancels.send(&connection, epoch, cancels_on, sender).await;
            }
            .instrument(span),
        ),
    ]
}

impl Drop for Session {
    fn drop(&mut self) {
        // The tasks stop with the session, so nothing else would end the calls that still wait.
        self.in_flight.end(|| Outcome::Disconnected);
    }
}

/// Declares the reply queue and starts its consumer: to the end, also when this future is dropped. A queue that has no consumer
/// yet would outlive its channel; with one it is deleted. The task ends by its own limit.
async fn consume(channel: Channel, in_flight: &Arc<InFlight>) -> Result<Consumer, Error> {
    let in_flight = Arc::clone(in_flight);
    let consuming =
        async move { within_limit("declare the reply queue", consume_now(&channel, &in_flight.reply_to)).await };
    let lost = |_| Err(Error::Disconnected { reason: "the task that declares the reply queue was stopped".to_owned() });
    tokio::spawn(consuming).await.unwrap_or_else(lost)
}

async fn consume_now(channel: &Channel, reply_queue: &str) -> Result<Consumer, Error> {
    let queue =
        QueueDeclaration { name: reply_queue, durable: false, exclusive: true, auto_delete: true, arguments: &[] };
    let mut consumer = None;
    let steps: Vec<Step<'_>> = vec![
        Box::pin(channel.declare_queue(queue)),
        Box::pin(async {
            consumer = Some(channel.consume(reply_queue, "", true).await?);
            Ok(())
        }),
    ];
    in_one_flight(steps).await?;
    consumer.ok_or_else(|| Error::Disconnected { reason: "the reply queue has no consumer".to_owned() })
}

/// Starts a consumer of direct replies, on the channel that is to publish the requests.
async fn consume_directly(connection: &Connection, epoch: u64) -> Result<(Channel, Consumer), Error> {
    tracing::warn!("the broker does not declare a reply queue within {QUEUE_LIMIT:?}: taking direct replies");
    // Declares the exchanges where they are missing.
    drop(open_for(connection, Some(epoch), Exchange::Requests, Mode::Plain).await?);
    let channel = connection.channel_of(epoch).await?;
    let consumer = within_limit("consume direct replies", channel.consume(DIRECT_REPLIES, "", true)).await?;
    Ok((channel, consumer))
}

/// Finds out where the user may not publish, before a refusal ends the only channel of a session with direct replies.
async fn ask_for_rights(connection: &Connection, epoch: u64, in_flight: &InFlight) -> Result<(), Error> {
    let nested = try_publish(connection, epoch, topology::NESTED_EXCHANGE, &topology::SERVICE_EXCHANGES);
    let cancels = try_publish(connection, epoch, topology::CANCEL_EXCHANGE, &[topology::CANCELS]);
    match nested.await {
        Err(error) if error.is_access_refused() => in_flight.deny_nested(&error),
        asked => asked?,
    }
    match cancels.await {
        Err(error) if error.is_access_refused() => in_flight.cancels.deny(&error.to_string()),
        asked => asked?,
    }
    Ok(())
}

/// Ends the calls of a session with the task that takes their replies, also when that goes down with its runtime.
struct EndOnDrop(Arc<InFlight>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(|| Outcome::Disconnected);
    }
}

/// Hands replies to their callers until the consumer ends.
async fn take_replies(end: EndOnDrop, mut consumer: Consumer) {
    let EndOnDrop(in_flight) = &end;
    loop {
        match consumer.next().await {
            Ok(Some(delivery)) => in_flight.reply(delivery),
            Ok(None) => return tracing::debug!("the reply consumer was cancelled"),
            Err(error) => return tracing::debug!(%error, "the reply consumer ended"),
        }
    }
}

/// 128 bits of the system's random generator. The fixed bits of one uuid lie on random ones of the other.
pub(super) fn random_key() -> u128 {
    Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(32)
}

/// A queue takes a broker milliseconds. One that needs longer may need a minute.
const QUEUE_LIMIT: Duration = Duration::from_secs(2);

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use tokio::{runtime::Builder, time::Instant};

    use super::*;
    use crate::{
        broker::Broker,
        client::{
            in_flight::{NotSent, Waiter},
            line::Line,
            pending::Tag,
        },
        connection::amqp::{Properties, Publish},
        service::MethodDescriptor,
    };

    static METHOD: MethodDescriptor = MethodDescriptor::new("method", "s.method");

    const TAG: Tag =
        Tag { exchange: Exchange::Default as u8, is_confirmed: false, is_idempotent: false, body_bytes: 0 };

    /// A session, and its line to the default exchange.
    async fn line(connection: &Connection) -> Line {
        let source = Source {
            connection: connection.clone(),
            max_in_flight: 8,
            users: Users::default(),
            counters: Arc::default(),
        };
        let session = Arc::new(Session::open(&source).await.unwrap());
        let publisher = session.publisher(Exchange::Default).await.unwrap();
        Line::new(session, Exchange::Default, publisher)
    }

    fn to<'a>(exchange: &'a str, queue: &'a str, waiter: &Waiter) -> Publish<'a> {
        let correlation_id = Some(waiter.correlation_id().as_str().as_bytes().to_vec().into());
        let properties = Properties { correlation_id, ..Properties::default() };
        Publish { exchange, routing_key: queue.as_bytes(), mandatory: true, properties, body: b"" }
    }

    /// No timer fires in the client: its clock is paused, and a blocking task keeps tokio from advancing it.
    #[test]
    fn a_returned_request_ends_its_call_without_any_timer() {
        let brokers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = brokers.block_on(Broker::start()).unwrap();
        let uri = format!("{}?transport=native", broker.uri());
        let (ended, outcome) = mpsc::channel();
        thread::spawn(move || {
            let clients = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            clients.block_on(async {
                let (release, held) = mpsc::channel::<()>();
                let blocking = tokio::task::spawn_blocking(move || held.recv().is_err());
                let connection = Connection::open(&uri).await.unwrap();
                let line = line(&connection).await;
                let begin = Instant::now();
                let mut waiter = line.begin(begin + Duration::from_secs(10), TAG).unwrap();
                let publish = to("", "missing", &waiter);
                line.publish(&mut waiter, publish, None).unwrap();
                let outcome = waiter.outcome().await;
                assert_eq!(Instant::now(), begin, "the clock stands still");
                ended.send(outcome).unwrap();
                drop(release);
                blocking.await.unwrap();
            });
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(10)).expect("the call ends without a timer");
        assert!(matches!(&outcome, Outcome::Returned { reply_text } if reply_text == "NO_ROUTE"), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_call_gets_its_reply_although_the_broker_has_closed_its_channel() {
        let broker = Broker::start().await.unwrap();
        for transport in ["native", if cfg!(feature = "lapin") { "lapin" } else { "native" }] {
            let connection = Connection::open(&format!("{}?transport={transport}", broker.uri())).await.unwrap();
            let line = line(&connection).await;
            let mut waiter = line.begin(Instant::now() + Duration::from_secs(10), TAG).unwrap();
            let refused = to("missing", "", &waiter);
            line.publish(&mut waiter, refused, None).unwrap();
            let publisher = loop {
                tokio::task::yield_now().await;
                if line.has_ended() {
                    let publisher = line.session.publisher(Exchange::Default).await.unwrap();
                    if !publisher.has_ended() {
                        break publisher;
                    }
                }
            };
            let line = Line::new(Arc::clone(&line.session), Exchange::Default, publisher);
            let reply_to = line.session.reply_to().to_owned();
            let reply = to("", &reply_to, &waiter);
            line.publish(&mut waiter, reply, None).unwrap();
            let outcome = waiter.outcome().await;
            assert!(matches!(outcome, Outcome::Reply(_)), "{transport}: {outcome:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_session_without_a_queue_takes_direct_replies() {
        let broker = Broker::start().await.unwrap();
        for transport in ["native", if cfg!(feature = "lapin") { "lapin" } else { "native" }] {
            let connection = Connection::open(&format!("{}?transport={transport}", broker.uri())).await.unwrap();
            let service = connection.channel().await.unwrap();
            let queue =
                QueueDeclaration { name: "svc", durable: false, exclusive: false, auto_delete: false, arguments: &[] };
            service.declare_queue(queue).await.unwrap();
            let mut requests = service.consume("svc", "", true).await.unwrap();
            let source = Source {
                connection: connection.clone(),
                max_in_flight: 8,
                users: Users::default(),
                counters: Arc::default(),
            };
            let session = Arc::new(Session::open_within(&source, None).await.unwrap());
            assert!(session.is_direct());
            let publisher = session.publisher(Exchange::Default).await.unwrap();
            let line = Line::new(session, Exchange::Default, publisher);
            let mut waiter = line.begin(Instant::now() + Duration::from_secs(10), TAG).unwrap();
            let mut request = to("", "svc", &waiter);
            request.properties.reply_to = Some(DIRECT_REPLIES.as_bytes());
            // One that needs a confirm takes the same channel.
            line.publish_confirmed(&mut waiter, request, &METHOD, None).await.unwrap();
            let request = requests.next().await.unwrap().unwrap();
            let reply_to = request.reply_to_text().unwrap().to_owned();
            let reply = to("", &reply_to, &waiter);
            service.publish(Publish { mandatory: false, ..reply }).unwrap();
            let outcome = waiter.outcome().await;
            assert!(matches!(outcome, Outcome::Reply(_)), "{transport}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_session_with_direct_replies_outlives_rights_that_its_user_lacks() {
        let caller = |name: &str| Broker::builder().user(name, name).permissions(name, "/", "", "^rpc$", "");
        let broker = caller("plain").start().await.unwrap();
        let operator = Connection::open(broker.uri()).await.unwrap();
        let channel = operator.channel().await.unwrap();
        channel.declare_exchanges(&topology::SERVICE_EXCHANGES).await.unwrap();
        channel.declare_exchanges(&[topology::CANCELS]).await.unwrap();
        let uri = broker.uri_for("plain", "/").unwrap();
        for transport in ["native", if cfg!(feature = "lapin") { "lapin" } else { "native" }] {
            let connection = Connection::open(&format!("{uri}?transport={transport}")).await.unwrap();
            let source = Source {
                connection: connection.clone(),
                max_in_flight: 8,
                users: Users::default(),
                counters: Arc::default(),
            };
            let session = Arc::new(Session::open_within(&source, None).await.unwrap());
            assert_eq!(session.in_flight.exchange(Exchange::Nested), Exchange::Requests, "{transport}");
            let publisher = session.publisher(Exchange::Requests).await.unwrap();
            let line = Line::new(Arc::clone(&session), Exchange::Requests, publisher);
            let deadline = || Instant::now() + Duration::from_secs(10);
            // Its cancel is not sent.
            let mut given_up = line.begin(deadline(), TAG).unwrap();
            given_up.make_cancellable(Some("svc"));
            drop(given_up);
            let mut waiter = line.begin(deadline(), TAG).unwrap();
            let publish = to("rpc", "missing.method", &waiter);
            line.publish(&mut waiter, publish, None).unwrap();
            let outcome = waiter.outcome().await;
            assert!(matches!(outcome, Outcome::Returned { .. }), "{transport}: {outcome:?}");
            assert!(!session.has_ended());
        }
    }

    #[tokio::test]
    async fn a_session_of_a_lost_link_publishes_nothing_on_the_next_one() {
        let broker = Broker::start().await.unwrap();
        let connection = Connection::open(broker.uri()).await.unwrap();
        let line = line(&connection).await;
        let mut waiter = line.begin(Instant::now() + Duration::from_secs(10), TAG).unwrap();
        broker.faults().drop_connections();
        line.session.ended().await;
        let channel = connection.channel().await.unwrap();
        let queue =
            QueueDeclaration { name: "next", durable: false, exclusive: false, auto_delete: false, arguments: &[] };
        channel.declare_queue(queue).await.unwrap();
        let publish = to("", "next", &waiter);
        let published = line.publish_confirmed(&mut waiter, publish, &METHOD, None).await;
        assert!(matches!(published, Err(NotSent::Ended)), "{published:?}");
        assert!(broker.wait_until_idle(Duration::from_secs(5)).await);
        assert_eq!(broker.queue("next").unwrap().ready, 0);
    }
}

//! A client's session: its channel, its exclusive reply queue, and the tasks that complete the calls in flight.
//!
//! ```text
//!  call ──begin──► InFlight ◄──complete── replies task  ◄── consumer (no_ack)
//!    │                ▲  ▲
//!    └─publish        │  └──give_back──── returns task  ◄── basic.return
//!    └─given up       └─────expire─────── deadlines task (one timer for all calls)
//!         └──► cancels task
//! ```
//!
//! A session ends with its channel and is never reused: the next call opens another one, whose reply queue has
//! another name, so no reply can reach the wrong session.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    confirmed::Confirming,
    in_flight::{InFlight, NotSent, Outcome, Waiter},
};
use crate::{
    connection::{
        Connection, Consumer, Returns,
        amqp::{Publish, QueueDeclaration},
    },
    error::Error,
    task::AbortOnDrop,
    topology,
};

/// An open session; dropping it stops its tasks and closes its channel.
#[derive(Debug)]
pub(super) struct Session {
    in_flight: Arc<InFlight>,
    _tasks: [AbortOnDrop; 4],
    /// Publishes the requests that the broker may refuse; opened by the first one.
    confirming: tokio::sync::Mutex<Option<Arc<Confirming>>>,
}

impl Session {
    /// Declares the exchanges and the reply queue, and starts consuming.
    pub(super) async fn open(
        connection: &Connection,
        client: Uuid,
        epoch: u64,
        max_in_flight: usize,
    ) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.declare_exchanges(&topology::REQUEST_EXCHANGES).await?;
        channel.declare_exchanges(&[topology::CANCELS]).await?;
        let reply_queue = topology::reply_queue(client, epoch);
        let queue =
            QueueDeclaration { name: &reply_queue, durable: false, exclusive: true, auto_delete: true, arguments: &[] };
        channel.declare_queue(queue).await?;
        let returns = channel.returned();
        let consumer = channel.consume(&reply_queue, "", true).await?;
        tracing::debug!(reply_queue, "reply queue ready");
        let span = tracing::debug_span!("client", reply_queue);
        let in_flight = Arc::new(InFlight::new(channel, reply_queue, max_in_flight));
        let share = || Arc::clone(&in_flight);
        let (expiring, cancelling) = (share(), share());
        let tasks = [
            AbortOnDrop::spawn(take_replies(share(), consumer).instrument(span.clone())),
            AbortOnDrop::spawn(take_returns(share(), returns).instrument(span.clone())),
            AbortOnDrop::spawn(async move { expiring.expire_calls().await }.instrument(span.clone())),
            AbortOnDrop::spawn(
                async move { cancelling.cancels.send(&cancelling.channel, &cancelling.reply_queue).await }
                    .instrument(span),
            ),
        ];
        Ok(Self { in_flight, _tasks: tasks, confirming: tokio::sync::Mutex::default() })
    }

    pub(super) fn reply_queue(&self) -> &str {
        &self.in_flight.reply_queue
    }

    pub(super) fn has_ended(&self) -> bool {
        self.in_flight.has_ended()
    }

    /// How many calls are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes a call in; see [`InFlight::begin`].
    pub(super) fn begin(&self, deadline: Instant) -> Result<Waiter, NotSent> {
        self.in_flight.begin(deadline)
    }

    /// Waits for a place among the calls in flight; see [`InFlight::freed`].
    pub(super) async fn freed(&self) {
        self.in_flight.freed().await;
    }

    /// Sends a request that the broker may refuse; then the call ends with `Refused`.
    pub(super) async fn publish_confirmed(
        &self,
        connection: &Connection,
        waiter: &mut Waiter,
        publish: Publish<'_>,
        cancellable: Option<&'static str>,
    ) -> Result<(), NotSent> {
        let Some(confirming) = self.confirming(connection).await else {
            waiter.check_channel();
            return Err(NotSent::Ended);
        };
        // Before the publish: a future dropped during it may have sent the request.
        waiter.make_cancellable(cancellable);
        confirming.publish(waiter.id(), publish).await.map_err(|error| waiter.not_sent(error))
    }

    /// The channel in confirm mode; `None` when it cannot be opened while the session lives.
    async fn confirming(&self, connection: &Connection) -> Option<Arc<Confirming>> {
        let mut confirming = self.confirming.lock().await;
        if let Some(confirming) = confirming.as_ref().filter(|confirming| !confirming.has_ended()) {
            return Some(Arc::clone(confirming));
        }
        let opened = Confirming::open(connection, Arc::clone(&self.in_flight)).await.ok()?;
        // Opening may have waited for the next link, on which the reply queue of this session does not exist.
        (!self.in_flight.channel.has_ended()).then(|| Arc::clone(confirming.insert(Arc::new(opened))))
    }

    /// Ends the session: every call in flight gets `Shutdown`.
    pub(super) fn shutdown(&self) {
        self.in_flight.end(|| Outcome::Shutdown);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The tasks stop with the session, so nothing else would end the calls that still wait.
        self.in_flight.end(|| Outcome::Disconnected);
    }
}

/// Hands replies to their callers until the consumer ends.
async fn take_replies(in_flight: Arc<InFlight>, mut consumer: Consumer) {
    loop {
        match consumer.next().await {
            Ok(Some(delivery)) => {
                let correlation_id = delivery.correlation_id().and_then(|id| id.parse().ok());
                in_flight.complete(correlation_id, Outcome::Reply(delivery));
            }
            Ok(None) => {
                tracing::debug!("the reply consumer was cancelled");
                return in_flight.end(|| Outcome::Disconnected);
            }
            Err(error) => {
                tracing::debug!(%error, "the reply consumer ended");
                return in_flight.end(|| Outcome::Disconnected);
            }
        }
    }
}

/// Ends the calls whose requests are returned, until the channel ends.
async fn take_returns(in_flight: Arc<InFlight>, mut returns: Returns) {
    while let Some(returned) = returns.next(|| in_flight.len() > 0).await {
        in_flight.give_back(returned);
    }
}

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use tokio::runtime::Builder;

    use super::*;
    use crate::{broker::Broker, connection::amqp::Properties};

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
                let session = Session::open(&connection, Uuid::nil(), 1, 8).await.unwrap();
                let begin = Instant::now();
                let mut waiter = session.begin(begin + Duration::from_secs(10)).unwrap();
                waiter.publish(to("missing", &waiter), None).unwrap();
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

    fn to<'a>(queue: &'a str, waiter: &Waiter) -> Publish<'a> {
        let properties = Properties { correlation_id: Some(waiter.id().to_string().into()), ..Properties::default() };
        Publish { exchange: "", routing_key: queue, mandatory: true, properties, body: b"" }
    }

    #[tokio::test]
    async fn a_session_that_takes_no_more_calls_still_hands_out_replies() {
        let broker = Broker::start().await.unwrap();
        let connection = Connection::open(broker.uri()).await.unwrap();
        let session = Session::open(&connection, Uuid::nil(), 1, 8).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut waiter = session.begin(deadline).unwrap();
        session.in_flight.close();
        assert!(matches!(session.begin(deadline), Err(NotSent::Ended)));
        waiter.publish(to(session.reply_queue(), &waiter), None).unwrap();
        let outcome = waiter.outcome().await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_session_of_a_lost_link_publishes_nothing_on_the_next_one() {
        let broker = Broker::start().await.unwrap();
        let connection = Connection::open(broker.uri()).await.unwrap();
        let session = Session::open(&connection, Uuid::nil(), 1, 8).await.unwrap();
        let mut waiter = session.begin(Instant::now() + Duration::from_secs(10)).unwrap();
        broker.faults().drop_connections();
        while !session.has_ended() {
            tokio::task::yield_now().await;
        }
        let channel = connection.channel().await.unwrap();
        let queue =
            QueueDeclaration { name: "next", durable: false, exclusive: false, auto_delete: false, arguments: &[] };
        channel.declare_queue(queue).await.unwrap();
        let publish = to("next", &waiter);
        let published = session.publish_confirmed(&connection, &mut waiter, publish, None).await;
        assert!(matches!(published, Err(NotSent::Ended)), "{published:?}");
        assert!(broker.wait_until_idle(Duration::from_secs(5)).await);
        assert_eq!(broker.queue("next").unwrap().ready, 0);
    }
}

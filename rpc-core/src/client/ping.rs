//! [`Client::ping`]: whether somebody serves a service now.
//!
//! On a channel of its own with RabbitMQ's direct reply-to, so that the answers of further pools are no late replies of calls.

use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use crate::{
    connection::{
        Channel, Delivery,
        amqp::{DIRECT_REPLIES, NOT_FOUND, Publish},
        within,
    },
    envelope,
    error::Error,
    topology,
    users::Users,
};

/// The answer of the first pool that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pong {
    /// The pool: a uuid, a new one for each start.
    pub pool: String,
    /// The version of the service that it serves.
    pub version: u64,
    /// From the ping to its answer.
    pub round_trip: Duration,
}

impl Client {
    /// Asks all pools of a service whether they serve, and returns the first answer; `None` when there is no pool, which the broker says at once.
    ///
    /// A pool answers while it [takes requests](crate::PoolHandle::is_ready) of this client's user. So one that drains, or has lost a consumer,
    /// is silent. The answer comes from beside the service's queue: it says that somebody serves, not that requests do not wait. One that a program of another
    /// kind serves, such as the bare profile's, has nobody who answers.
    ///
    /// It takes as long as a call may, [`ClientOptions::timeout`](crate::ClientOptions::timeout), 10 s by default. It opens a channel and closes it: a few
    /// pings a second are fine, one before each call is not.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when there are pools, and none of them answers; [`Error::Refused`] when the user may not publish to the exchange `rpc.srv`;
    /// [`Error::Configuration`] for a name that no service can have; [`Error::Closed`] after [`shutdown`](Self::shutdown), and with the connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the question.
    pub async fn ping(&self, service: &str) -> Result<Option<Pong>, Error> {
        let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if service.is_empty() || service.len() > NAME_BYTES_MAX || !service.bytes().all(is_name_byte) {
            let reason =
                format!("a service is called by 1 to {NAME_BYTES_MAX} of the letters a-z, digits, '_' and '-'");
            return Err(Error::Configuration(format!("no service can be called {service:?}: {reason}")));
        }
        if self.is_shut_down() {
            return Err(Error::Closed { reason: "the client is shut down".to_owned() });
        }
        if let Some(in_process) = &self.inner.in_process {
            let version = in_process.servers.version(service).map(u64::from);
            let (pool, round_trip) = (in_process.id.to_string(), Duration::ZERO);
            return Ok(version.map(|version| Pong { pool, version, round_trip }));
        }
        let limit = self.options().timeout;
        within(limit, &format!("ping service '{service}'"), self.ask(service, limit)).await
    }

    async fn ask(&self, service: &str, limit: Duration) -> Result<Option<Pong>, Error> {
        let options = self.options();
        let users = Users::new(&self.inner.connection, options.sends_user_id, options.reply_users.clone());
        let (channel, _) = self.inner.connection.channel_and_epoch().await?;
        match channel.declare_exchange(&topology::DISCOVERY, true).await {
            Ok(()) => {}
            // No pool has ever been here.
            Err(Error::Refused { reply_code: NOT_FOUND, .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let answer = exchange(&channel, service, limit, &users).await;
        // It may have ended with an error; then there is nothing to close.
        let _ = channel.close().await;
        answer
    }
}

async fn exchange(channel: &Channel, service: &str, limit: Duration, users: &Users) -> Result<Option<Pong>, Error> {
    let mut answers = channel.consume(DIRECT_REPLIES, "", true).await?;
    let mut returns = channel.returned();
    let asked_at = Instant::now();
    channel.publish(Publish {
        exchange: topology::DISCOVERY_EXCHANGE,
        routing_key: topology::ping_key(service).as_bytes(),
        mandatory: true,
        properties: envelope::ping_properties(limit, users.own()),
        body: b"",
    })?;
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Ok(Some(answer)) if users.takes(&answer) => return Ok(Some(pong(&answer, asked_at))),
                Ok(Some(_)) => {}
                lost => {
                    let operation = format!("ping service '{service}'");
                    return match (channel.refusal().await, lost) {
                        (Some(refusal), _) => Err(refusal.error(operation)),
                        (None, Err(error)) => Err(error),
                        (None, Ok(_)) => Err(Error::Disconnected { reason: format!("{operation}: the channel has ended") }),
                    };
                }
            },
            Some(_) = returns.next(|| true) => return Ok(None),
        }
    }
}

fn pong(answer: &Delivery, asked_at: Instant) -> Pong {
    let pool = answer.header(envelope::POOL_HEADER).and_then(|pool| pool.as_str().map(str::to_owned));
    let version = envelope::version(answer.header(envelope::SERVICE_VERSION_HEADER));
    Pong { pool: pool.unwrap_or_default(), version: version.unwrap_or_default(), round_trip: asked_at.elapsed() }
}

/// As the macro checks it.
const NAME_BYTES_MAX: usize = 100;

//! Answers pings of a pool's services: whether somebody serves them now.
//!
//! ```text
//!  rpc.srv ──ping.<service>──► rpc.control.<user>.<uuid> ──► control task ──► the asker's reply_to
//! ```
//!
//! On a channel of its own, so that a user without the right to bind to `rpc.srv` still has its cancels.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{direct_reply_to, lane::Phase, stats::Counters};
use crate::{
    connection::{Channel, Connection, Delivery, amqp::Publish, within},
    envelope,
    error::Error,
    lock::lock,
    printable::printable,
    service::ServiceDescriptor,
    topology,
    users::Users,
};

/// The part of a pool that can be asked.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) services: Vec<&'static ServiceDescriptor>,
    users: Users,
    counters: Arc<Counters>,
    phase: watch::Receiver<Phase>,
    /// Names the pool in its answers.
    pool: String,
    opened: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    channel: Option<Channel>,
    last_attempt: Option<Instant>,
    /// The user may not bind to the exchange.
    is_denied: bool,
}

impl Discovery {
    pub(super) fn new(
        services: Vec<&'static ServiceDescriptor>,
        users: Users,
        counters: Arc<Counters>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { services, users, counters, phase, pool: Uuid::new_v4().to_string(), opened: Mutex::default() }
    }

    /// Lets pings reach a queue of this connection's. A failure costs the answers to pings, nothing else.
    pub(super) async fn open(&self, connection: &Connection, queue: &str) {
        {
            let mut opened = lock(&self.opened);
            if opened.is_denied {
                return;
            }
            *opened = Opened { channel: None, last_attempt: Some(Instant::now()), is_denied: false };
        }
        match within(OPEN_LIMIT, "bind to 'rpc.srv'", self.bind(connection, queue)).await {
            Ok(channel) => lock(&self.opened).channel = Some(channel),
            Err(error) if error.is_access_refused() => {
                lock(&self.opened).is_denied = true;
                tracing::warn!(
                    error = %printable(&error.to_string()),
                    "the user may not declare or read the exchange 'rpc.srv': the pool answers no pings"
                );
            }
            Err(error) => tracing::debug!(%error, "could not open a channel for pings"),
        }
    }

    async fn bind(&self, connection: &Connection, queue: &str) -> Result<Channel, Error> {
        let (channel, _) = connection.channel_with(&topology::DISCOVERY).await?;
        for service in &self.services {
            channel.bind_queue(queue, topology::DISCOVERY_EXCHANGE, &topology::ping_key(service.name)).await?;
        }
        Ok(channel)
    }

    /// Opens the channel again if it has ended, at most once a second.
    async fn open_again(&self, connection: &Connection, queue: &str) {
        let is_due = {
            let opened = lock(&self.opened);
            let has_ended = opened.channel.as_ref().is_none_or(Channel::has_ended);
            has_ended && opened.last_attempt.is_none_or(|at| at.elapsed() >= OPEN_PAUSE)
        };
        if is_due {
            self.open(connection, queue).await;
        }
    }

    /// Answers a ping of `service`, if the pool takes requests now, and the asker is one of those whom it serves.
    pub(super) async fn answer(&self, connection: &Connection, queue: &str, service: &str, ping: &Delivery) {
        let is_serving = *self.phase.borrow() == Phase::Serving && self.counters.is_consuming();
        let service = self.services.iter().find(|served| served.name == service);
        let reply_to = ping.reply_to_text().filter(|reply_to| direct_reply_to::is_safe(reply_to.as_bytes()));
        let (true, true, Some(service), Some(reply_to)) = (is_serving, self.users.takes(ping), service, reply_to)
        else {
            return;
        };
        self.open_again(connection, queue).await;
        let Some(channel) = lock(&self.opened).channel.clone() else { return };
        let body = self.body(service);
        let publish = Publish {
            exchange: "",
            routing_key: reply_to.as_bytes(),
            mandatory: false,
            properties: envelope::pong_properties(service, &self.pool, ping.correlation_id_bytes(), self.users.own()),
            body: body.as_bytes(),
        };
        if let Err(error) = channel.publish(publish) {
            tracing::debug!(%error, "could not answer a ping");
        }
    }

    /// In the shape of NATS' micro services. No name in it needs an escape.
    fn body(&self, service: &ServiceDescriptor) -> String {
        let (name, id, version) = (service.name, &self.pool, service.version);
        let kind = "rpc.srv.v1.ping_response";
        format!(r#"{{"type":"{kind}","name":"{name}","id":"{id}","version":"{version}.0.0","metadata":{{}}}}"#)
    }
}

/// For all of it: a pool that starts waits so long at most.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
const OPEN_PAUSE: Duration = Duration::from_secs(1);

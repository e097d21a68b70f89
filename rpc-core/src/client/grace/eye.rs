//! [`Eye`]: looks at queues, on a channel of its own.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::board::{Look, Pools, Seen};
use crate::{
    connection::{
        Channel, Connection, ConnectionState,
        amqp::{ACCESS_REFUSED, NOT_FOUND, Publish, QueueCounts},
        within,
    },
    envelope,
    error::Error,
    topology,
};

/// Of the look task of one service.
pub(super) struct Eye {
    connection: Connection,
    service: &'static str,
    /// Opened by the first look, and again whenever a look has cost it.
    open: Option<Open>,
    /// The user may not publish to `rpc.srv`.
    is_mute: bool,
}

struct Open {
    channel: Channel,
    epoch: u64,
    has_confirms: bool,
}

impl Eye {
    pub(super) fn new(connection: Connection, service: &'static str) -> Self {
        Self { connection, service, open: None, is_mute: false }
    }

    /// Looks once.
    pub(super) async fn look(&mut self, queues: Vec<String>) -> Look {
        if !self.is_connected() {
            return Look::Unknown;
        }
        match within(LOOK_LIMIT, "look for workers", self.see(queues)).await {
            // Its answer may have waited for the end of a block.
            Ok(_) if !self.is_connected() => Look::Unknown,
            Ok(seen) => Look::Seen(seen),
            Err(error) => {
                self.open = None;
                tracing::debug!(service = self.service, %error, "a look for workers has told nothing");
                if error.is_access_refused() { Look::Denied(error) } else { Look::Unknown }
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.connection.state() == ConnectionState::Connected
    }

    async fn see(&mut self, queues: Vec<String>) -> Result<Seen, Error> {
        let asked_at = Instant::now().into_std();
        let epoch = self.open().await?.epoch;
        let mut seen = Seen { epoch, asked_at, queues: HashMap::new(), pools: Pools::Unknown };
        for queue in queues {
            let counts = self.counts(&queue).await?;
            seen.queues.insert(queue, counts);
        }
        let is_deserted = |counts: &Option<QueueCounts>| counts.is_none_or(|counts| counts.consumers == 0);
        if seen.queues.values().any(is_deserted) && !self.is_mute {
            seen.pools = self.pools().await?;
        }
        // A channel that was opened meanwhile is one of the next connection.
        match self.open().await?.epoch == epoch {
            true => Ok(seen),
            false => Err(Error::Disconnected { reason: "the connection was reopened".to_owned() }),
        }
    }

    /// `None` for a queue that is not there.
    async fn counts(&mut self, queue: &str) -> Result<Option<QueueCounts>, Error> {
        match self.open().await?.channel.queue_counts(queue).await {
            // RabbitMQ says so of a queue whose node is away, too: "home node '…' of durable queue '…' is down or inaccessible".
            Err(Error::Refused { reply_code: NOT_FOUND, reply_text, .. }) if !reply_text.contains("inaccessible") => {
                self.open = None;
                Ok(None)
            }
            counts => counts.map(Some),
        }
    }

    /// Whether the broker returns a ping, which nobody answers: a pool has its control queue until the last handler has ended.
    async fn pools(&mut self) -> Result<Pools, Error> {
        let service = self.service;
        let open = self.open().await?;
        if !open.has_confirms {
            // For the reason of a refusal.
            open.channel.watch().await?;
            open.channel.confirm_select().await?;
            open.has_confirms = true;
        }
        let confirm = open.channel.publish_for_confirm(Publish {
            exchange: topology::DISCOVERY_EXCHANGE,
            routing_key: topology::ping_key(service).as_bytes(),
            mandatory: true,
            properties: envelope::silent_ping_properties(LOOK_LIMIT),
            body: b"",
        })?;
        let channel = open.channel.clone();
        match confirm.wait().await {
            Ok((_, Some(_))) => Ok(Pools::None),
            Ok((true, None)) => Ok(Pools::Some),
            Ok((false, None)) => Ok(Pools::Unknown),
            Err(error) => {
                self.open = None;
                match channel.refusal().await.map(|refusal| refusal.reply_code) {
                    Some(ACCESS_REFUSED) => {
                        tracing::debug!(service, %error, "the user may not ask whether a pool drains");
                        self.is_mute = true;
                        Ok(Pools::Unknown)
                    }
                    // The exchange is missing: no pool that answers pings was ever here.
                    Some(NOT_FOUND) => Ok(Pools::Unknown),
                    _ => Err(error),
                }
            }
        }
    }

    async fn open(&mut self) -> Result<&mut Open, Error> {
        if self.open.as_ref().is_some_and(|open| open.channel.has_ended()) {
            self.open = None;
        }
        match &mut self.open {
            Some(_) => {}
            closed => {
                let (channel, epoch) = self.connection.channel_and_epoch().await?;
                *closed = Some(Open { channel, epoch, has_confirms: false });
            }
        }
        let lost = || Error::Disconnected { reason: "the channel has ended".to_owned() };
        self.open.as_mut().ok_or_else(lost)
    }
}

/// For all of a look. It takes a broker milliseconds.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

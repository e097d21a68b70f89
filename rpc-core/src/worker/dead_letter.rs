//! Dead letters that a worker stores in `rpc.<service>.dead`: requests that are not executed again, and one-way requests that
//! failed, for a person to look at.

use std::{borrow::Cow, time::Duration};

use tokio::time::sleep;

use super::{dispatch::LETTER_TEXT_MAX_BYTES, lane::Lane, log::log_request, source::Source};
use crate::{
    connection::{
        Backoff, Channel, Confirm, Delivery,
        amqp::{HeaderValue, PERSISTENT, Properties, Publish},
        within,
    },
    envelope,
    error::Error,
    meter::Event,
    topology,
};

/// Why a request becomes a dead letter; the header `rpc-dead-reason` says so.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason<'a> {
    /// Delivered too often.
    DeliveryLimit { deliveries: i64 },
    /// Its worker was lost, and the pool does not execute it again.
    Redelivered,
    /// The broker has closed the lane's channel twice while the request was here.
    ChannelLost,
    /// A one-way request that ended so: the reason is the error's code.
    Failed { code: &'a str, message: &'a str },
}

impl<'a> Reason<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::DeliveryLimit { .. } => "delivery_limit",
            Self::Redelivered => "redelivered",
            Self::ChannelLost => "channel_lost",
            Self::Failed { code, .. } => envelope::beginning(code, envelope::CODE_MAX_BYTES),
        }
    }

    /// The headers that the dead letter has besides those of the request.
    fn headers(self, delivery: &Delivery) -> Vec<(Cow<'static, str>, HeaderValue)> {
        let mut headers: Vec<(Cow<'static, str>, HeaderValue)> = vec![
            ("rpc-dead-reason".into(), self.name().into()),
            ("rpc-dead-routing-key".into(), delivery.routing_key().into()),
        ];
        match self {
            Self::DeliveryLimit { deliveries } => headers.push(("rpc-dead-deliveries".into(), deliveries.into())),
            Self::Failed { message, .. } => {
                headers.push(("rpc-dead-message".into(), envelope::beginning(message, LETTER_TEXT_MAX_BYTES).into()));
            }
            Self::Redelivered | Self::ChannelLost => {}
        }
        if let Some(user_id) = delivery.user_id() {
            // Not as the property `user_id`, which the broker takes from that user alone.
            headers.push(("rpc-dead-user-id".into(), user_id.into()));
        }
        if let Some(expiration_ms) = delivery.expiration_ms() {
            // Not as the property `expiration`, because the dead letter itself would expire.
            let expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
            headers.push(("rpc-dead-expiration-ms".into(), expiration_ms.into()));
        }
        headers
    }
}

/// Dead-letters a request. After some attempts it is given up: counted, logged, and settled by the caller, because a request
/// that is held for ever takes a place from others.
pub(super) async fn keep(lane: &Lane, delivery: &Delivery, reason: Reason<'_>) {
    let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    for attempt in 1..=ATTEMPTS_MAX {
        match within(STORE_LIMIT, "dead-letter a request", store(&lane.source, delivery, reason)).await {
            Ok(()) => return lane.note(Event::DeadLettered),
            Err(error) => {
                log_request!(warn, lane.source, *delivery, %error, attempt, "could not dead-letter a request");
            }
        }
        if attempt < ATTEMPTS_MAX {
            sleep(backoff.pause()).await;
        }
    }
    lane.note(Event::DeadLetterLost);
    let (reason, words) = (reason.name(), "a request is lost: it could not be dead-lettered");
    log_request!(error, lane.source, *delivery, reason, "{words}");
}

/// Stores a request in the service's dead-letter queue, on a channel of its own; `Ok` once the broker has confirmed it.
async fn store(source: &Source, delivery: &Delivery, reason: Reason<'_>) -> Result<(), Error> {
    let channel = match open(source, true).await {
        // The user may not declare it, or it is there with other arguments: it is used as it is.
        Err(Error::Refused { .. }) => open(source, false).await?,
        opened => opened?,
    };
    let queue = topology::dead_queue(source.descriptor.name);
    let confirm = publish(&channel, &queue, delivery, reason)?;
    let failed = |what: &str| Err(Error::Disconnected { reason: format!("{what} for '{queue}'") });
    match confirm.wait().await? {
        (true, None) => {
            // The broker has confirmed the dead letter: a failure to close loses nothing.
            drop(channel.close().await);
            Ok(())
        }
        (true, Some(returned)) => failed(&returned.reply_text),
        (false, _) => failed("the broker refused a dead letter"),
    }
}

/// A channel in confirm mode.
async fn open(source: &Source, declares: bool) -> Result<Channel, Error> {
    let channel = source.connection.channel().await?;
    channel.confirm_select().await?;
    if declares {
        source.declare_dead_queue(&channel).await?;
    }
    Ok(channel)
}

fn publish(channel: &Channel, queue: &str, delivery: &Delivery, reason: Reason<'_>) -> Result<Confirm, Error> {
    let mut headers = reason.headers(delivery);
    match channel.republish(delivery, queue, &headers) {
        // The broker would close the connection for a content header beyond frame_max, and some brokers deliver one that is near it.
        Err(Error::PropertiesTooLarge { bytes, .. }) => {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            headers.push(("rpc-dead-properties-bytes".into(), bytes.into()));
            let properties = Properties {
                correlation_id: delivery.correlation_id_bytes().map(Cow::Borrowed),
                reply_to: delivery.reply_to(),
                message_id: delivery.message_id().map(Cow::Borrowed),
                delivery_mode: Some(PERSISTENT),
                headers,
                ..Properties::default()
            };
            let body = delivery.body();
            channel.publish_for_confirm(Publish {
                exchange: "",
                routing_key: queue.as_bytes(),
                mandatory: true,
                properties,
                body,
            })
        }
        published => published,
    }
}

const ATTEMPTS_MAX: u32 = 6;
/// Bounds of the randomised pauses between them.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
/// For one attempt.
const STORE_LIMIT: Duration = Duration::from_secs(30);

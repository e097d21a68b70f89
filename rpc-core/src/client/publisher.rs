//! The channel that the requests of a session to one exchange share.
//!
//! Nothing is consumed on it: when a request makes the broker close it, the replies to the others still arrive.

use std::sync::Arc;

use super::{
    in_flight::InFlight,
    kept::Keep,
    life::{EndOnDrop, Life},
    opening::{Exchange, Mode, open_for},
};
use crate::{
    connection::{Channel, Connection, Returns},
    error::Error,
    task::AbortOnDrop,
};

/// An open channel, and the task that takes its returned messages.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) channel: Channel,
    life: Arc<Life>,
    _task: AbortOnDrop,
}

/// The place of a session's channels.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) connection: Connection,
    pub(super) epoch: u64,
    pub(super) exchange: Exchange,
    pub(super) in_flight: Arc<InFlight>,
}

impl Publisher {
    /// Takes the returned messages of a channel that others publish on.
    pub(super) fn on(channel: Channel, place: &Place) -> Self {
        let life = Arc::new(Life::default());
        let in_flight = Arc::clone(&place.in_flight);
        in_flight.reach(place.exchange).methods.clear();
        channel.forget_unawaited(move |correlation_id| in_flight.awaits(correlation_id));
        let returns = channel.returned();
        let task = take_returns(place.clone(), channel.clone(), returns, EndOnDrop(Arc::clone(&life)));
        Self { channel, life, _task: AbortOnDrop::spawn(task) }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.life.has_ended() || self.channel.has_ended()
    }
}

impl Keep for Publisher {
    type Source = Place;

    async fn open(place: &Place) -> Result<Self, Error> {
        let (channel, _) = open_for(&place.connection, Some(place.epoch), place.exchange, Mode::Plain).await?;
        Ok(Self::on(channel, place))
    }

    fn life(&self) -> &Life {
        &self.life
    }

    fn has_failed_alone(&self, place: &Place) -> bool {
        place.connection.is_in(place.epoch)
    }
}

/// Ends the calls whose requests are returned, until the channel ends; then those that ended with it.
async fn take_returns(place: Place, channel: Channel, mut returns: Returns, _end: EndOnDrop) {
    let in_flight = &place.in_flight;
    while let Some(returned) = returns.next(|| in_flight.len() > 0).await {
        in_flight.give_back(returned);
    }
    if let Some(refusal) = channel.refusal().await {
        tracing::warn!(
            reply_code = refusal.reply_code,
            reply_text = refusal.reply_text,
            "the broker refused a request"
        );
        in_flight.refuse_channel(place.exchange, &refusal);
    }
}

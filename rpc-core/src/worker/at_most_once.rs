//! Requests that are acknowledged before their handlers run ([`AckPolicy::BeforeHandler`](super::AckPolicy::BeforeHandler)).
//!
//! The broker's prefetch count bounds the requests that wait for their turn, and no longer those that have begun. So each takes
//! a place first, and keeps it until its handler has ended: there are as many as the prefetch count.

use tokio::sync::Semaphore;

use crate::{
    connection::{Channel, amqp::Settlement},
    error::Error,
};

/// The acknowledgements and the places of one consumer.
pub(super) struct AtMostOnce {
    channel: Channel,
    places: Semaphore,
}

impl AtMostOnce {
    pub(super) fn new(channel: Channel, prefetch_count: u16) -> Self {
        Self { channel, places: Semaphore::new(prefetch_count.into()) }
    }

    /// Takes a place if one is free.
    pub(super) fn try_place(&self) -> bool {
        self.places.try_acquire().map(|place| place.forget()).is_ok()
    }

    /// Takes a place, in order of arrival.
    ///
    /// Before the slot, because handlers that come back from a nested call to their slot have a place already.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(super) async fn place(&self) {
        self.places.acquire().await.expect("it is never closed").forget();
    }

    pub(super) fn give_place_back(&self) {
        self.places.add_permits(1);
    }

    /// Acknowledges a request, which must not run if that fails.
    pub(super) fn acknowledge(&self, delivery_tag: u64) -> Result<(), Error> {
        self.channel.settle(Settlement::Ack { delivery_tag, multiple: false })
    }
}

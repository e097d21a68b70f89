//! Requests that the broker may refuse: published on a channel in confirm mode, so that the answer to each is known.
//!
//! ```text
//!  call ──publish──► channel (confirms) ──confirms──► task ──nack──► the call ends: overloaded
//!                                                         ├─return─► the call it names ends
//!                                                         └─closed─► the one that was too large ends; later ones are sent again
//! ```
//!
//! These are the requests of services with a `max_length`, whose queue may be full, and those that are larger than all
//! before ([`Sizes`](super::sizes::Sizes)). Confirms cost a fifth of the calls, so others have none.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    in_flight::InFlight,
    kept::Keep,
    life::{EndOnDrop, Life},
    opening::{Exchange, Mode, open_for},
    publisher::Place,
};
use crate::{
    connection::{Channel, Confirm, amqp::Publish},
    error::Error,
    lock::lock,
    task::AbortOnDrop,
};

/// The confirm channel of a session, and the task that awaits its confirms.
#[derive(Debug)]
pub(super) struct Confirming {
    channel: Channel,
    in_flight: Arc<InFlight>,
    life: Arc<Life>,
    /// Locked until a publish has its place in the list: the list is in the order of publishing.
    published: Mutex<mpsc::UnboundedSender<Published>>,
    /// The bound of the list.
    places: Arc<Semaphore>,
    _task: AbortOnDrop,
}

/// A request whose confirm is awaited.
struct Published {
    correlation_number: u64,
    body_bytes: usize,
    confirm: Confirm,
    _places: OwnedSemaphorePermit,
}

impl Confirming {
    /// Publishes the request of a call; if the broker refuses it, the call ends.
    pub(super) async fn publish(&self, correlation_number: u64, publish: Publish<'_>) -> Result<(), Error> {
        self.channel.room().await;
        let body_bytes = publish.body.len();
        // It is never closed.
        let Ok(places) = Arc::clone(&self.places).acquire_many_owned(places_of(body_bytes)).await else {
            return Ok(());
        };
        let published = lock(&self.published);
        let confirm = self.channel.publish_for_confirm(publish)?;
        if published.send(Published { correlation_number, body_bytes, confirm, _places: places }).is_err() {
            // The task has ended with the channel, which lapin may notice later; nothing else would end the call.
            self.in_flight.lose(correlation_number);
        }
        Ok(())
    }
}

impl Keep for Confirming {
    type Source = Place;

    async fn open(place: &Place) -> Result<Self, Error> {
        let (channel, _) = open_for(&place.connection, Some(place.epoch), place.exchange, Mode::Confirms).await?;
        let life = Arc::new(Life::default());
        let (published, inbox) = mpsc::unbounded_channel();
        let end = EndOnDrop(Arc::clone(&life));
        let task = await_confirms(Arc::clone(&place.in_flight), place.exchange, channel.clone(), inbox, end);
        let places = Arc::new(Semaphore::new(PLACES_MAX as usize));
        let (in_flight, published) = (Arc::clone(&place.in_flight), Mutex::new(published));
        Ok(Self { channel, in_flight, life, published, places, _task: AbortOnDrop::spawn(task) })
    }

    fn life(&self) -> &Life {
        &self.life
    }

    fn has_failed_alone(&self, place: &Place) -> bool {
        place.connection.is_in(place.epoch)
    }
}

/// Awaits confirms, in the order of publishing, until the channel ends.
async fn await_confirms(
    in_flight: Arc<InFlight>,
    exchange: Exchange,
    channel: Channel,
    mut published: mpsc::UnboundedReceiver<Published>,
    _end: EndOnDrop,
) {
    while let Some(Published { correlation_number, body_bytes, confirm, _places }) = published.recv().await {
        match confirm.wait().await {
            Ok((is_acked, returned)) => {
                in_flight.sizes.accept(body_bytes);
                // A returned message names its call, so it does not matter with which confirm it arrives.
                if let Some(returned) = returned {
                    in_flight.give_back(returned);
                }
                if !is_acked {
                    in_flight.refuse(correlation_number);
                }
            }
            Err(_) => {
                published.close();
                let mut lost = VecDeque::from([(correlation_number, body_bytes)]);
                while let Some(Published { correlation_number, body_bytes, .. }) = published.recv().await {
                    lost.push_back((correlation_number, body_bytes));
                }
                match channel.refusal().await {
                    Some(refusal) => in_flight.refuse_publishes(exchange, lost.make_contiguous(), &refusal),
                    None => lost.iter().for_each(|(correlation_number, _)| in_flight.lose(*correlation_number)),
                }
                return;
            }
        }
    }
}

/// How many places a request takes until it is confirmed. lapin keeps its body for so long.
fn places_of(body_bytes: usize) -> u32 {
    u32::try_from(body_bytes / PLACE_BYTES + 1).unwrap_or(PLACES_MAX).min(PLACES_MAX)
}

/// For requests whose confirm is awaited, 32 MiB or one larger request; the next ones wait before they return to their callers.
const PLACES_MAX: u32 = 1_024;
const PLACE_BYTES: usize = 32 * 1_024;

//! Requests that the broker may refuse: published on a channel in confirm mode, so that the answer to each is known.
//!
//! ```text
//!  call ──publish──► channel (confirms) ──confirms──► task ──ack───► its queue is reached
//!                                                         ├─nack──► the call ends, or is sent again on the next channel
//!                                                         ├─return─► the call it names ends
//!                                                         └─closed─► the one that was too large ends; later ones are sent again
//! ```
//!
//! These are the requests of services with a `max_length`, whose queue may be full, those that are larger than all
//! before ([`Sizes`](super::sizes::Sizes)), and the first ones of each method ([`Reach`](super::reach::Reach)). Confirms cost a fifth
//! of the calls, so others have none.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    in_flight::InFlight,
    kept::Keep,
    life::{EndOnDrop, Life},
    opening::{Exchange, Mode, open_for},
    publisher::Place,
    reach::Nack,
    seen::Seen,
};
use crate::{
    connection::{Channel, Confirm, amqp::Publish},
    error::Error,
    lock::lock,
    service::MethodDescriptor,
    task::AbortOnDrop,
};

/// The confirm channel of a session, and the task that awaits its confirms.
#[derive(Debug)]
pub(super) struct Confirming {
    channel: Channel,
    in_flight: Arc<InFlight>,
    life: Arc<Life>,
    is_left: Arc<AtomicBool>,
    published: List,
    /// The bound of the list.
    places: Arc<Semaphore>,
    _task: AbortOnDrop,
}

/// Locked until a publish has its place in the list: the list is in the order of publishing, and whole when it is closed.
type List = Arc<Mutex<mpsc::UnboundedSender<Published>>>;

/// A request whose confirm is awaited.
struct Published {
    correlation_number: u64,
    method: &'static MethodDescriptor,
    body_bytes: usize,
    confirm: Confirm,
    _places: OwnedSemaphorePermit,
}

impl Confirming {
    /// Publishes the request of a call; if the broker refuses it, the call ends.
    pub(super) async fn publish(
        &self,
        correlation_number: u64,
        method: &'static MethodDescriptor,
        publish: Publish<'_>,
    ) -> Result<(), Error> {
        self.channel.room().await;
        let body_bytes = publish.body.len();
        // It is never closed.
        let Ok(places) = Arc::clone(&self.places).acquire_many_owned(places_of(body_bytes)).await else {
            return Ok(());
        };
        let published = lock(&self.published);
        let confirm = self.channel.publish_for_confirm(publish)?;
        if published.send(Published { correlation_number, method, body_bytes, confirm, _places: places }).is_err() {
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
        let (published, inbox) = mpsc::unbounded_channel();
        let published = Arc::new(Mutex::new(published));
        let (life, is_left) = (Arc::new(Life::default()), Arc::default());
        let task = Task {
            published: Arc::clone(&published),
            in_flight: Arc::clone(&place.in_flight),
            exchange: place.exchange,
            channel: channel.clone(),
            acked: Seen::default(),
            is_left: Arc::clone(&is_left),
            end: EndOnDrop(Arc::clone(&life)),
        };
        let task = AbortOnDrop::spawn(task.await_confirms(inbox));
        let places = Arc::new(Semaphore::new(PLACES_MAX as usize));
        let in_flight = Arc::clone(&place.in_flight);
        Ok(Self { channel, in_flight, life, is_left, published, places, _task: task })
    }

    fn life(&self) -> &Life {
        &self.life
    }

    fn has_failed_alone(&self, place: &Place) -> bool {
        place.connection.is_in(place.epoch)
    }

    fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }
}

/// The side that awaits the confirms.
struct Task {
    published: List,
    in_flight: Arc<InFlight>,
    exchange: Exchange,
    channel: Channel,
    /// The methods of which the broker has taken a request of this channel.
    acked: Seen,
    is_left: Arc<AtomicBool>,
    end: EndOnDrop,
}

impl Task {
    /// Awaits confirms, in the order of publishing, until the channel ends.
    async fn await_confirms(self, mut published: mpsc::UnboundedReceiver<Published>) {
        let in_flight = &self.in_flight;
        while let Some(Published { correlation_number, method, body_bytes, confirm, _places }) = published.recv().await
        {
            match confirm.wait().await {
                Ok((is_acked, returned)) => {
                    in_flight.sizes.accept(body_bytes);
                    // A returned message names its call, so it does not matter with which confirm it arrives.
                    let given_back = returned.and_then(|returned| in_flight.give_back(returned));
                    match is_acked {
                        true if given_back == Some(correlation_number) => {}
                        true => self.note_reached(method),
                        false => in_flight.refuse(correlation_number, self.nack(method)),
                    }
                }
                Err(_) => {
                    {
                        // Waits for a publish in progress, so that its request is in the list when the list closes.
                        let _whole = lock(&self.published);
                        published.close();
                    }
                    let mut lost = VecDeque::from([(correlation_number, body_bytes)]);
                    while let Some(Published { correlation_number, body_bytes, .. }) = published.recv().await {
                        lost.push_back((correlation_number, body_bytes));
                    }
                    match self.channel.refusal().await {
                        Some(refusal) => in_flight.refuse_publishes(self.exchange, lost.make_contiguous(), &refusal),
                        None => lost.iter().for_each(|(correlation_number, _)| in_flight.lose(*correlation_number)),
                    }
                    return;
                }
            }
        }
    }

    fn note_reached(&self, method: &'static MethodDescriptor) {
        self.acked.note(method);
        self.in_flight.reach(self.exchange).methods.note(method);
    }

    /// The meaning of a nack. A channel that is replaced takes nothing more from here on.
    fn nack(&self, method: &MethodDescriptor) -> Nack {
        if self.acked.has(method) {
            return Nack::Full;
        }
        if self.is_left.load(Ordering::Acquire) {
            return Nack::Replaced;
        }
        let nack = self.in_flight.reach(self.exchange).replacements.nack();
        if nack == Nack::Replaced {
            tracing::debug!(routing_key = method.routing_key, "a channel does not reach a queue: opening another one");
            self.is_left.store(true, Ordering::Release);
            // Before the callers send again.
            self.end.0.end();
        }
        nack
    }
}

/// How many places a request takes until it is confirmed. lapin keeps its body for so long.
fn places_of(body_bytes: usize) -> u32 {
    u32::try_from(body_bytes / PLACE_BYTES + 1).unwrap_or(PLACES_MAX).min(PLACES_MAX)
}

/// For requests whose confirm is awaited, 32 MiB or one larger request; the next ones wait before they return to their callers.
const PLACES_MAX: u32 = 1_024;
const PLACE_BYTES: usize = 32 * 1_024;

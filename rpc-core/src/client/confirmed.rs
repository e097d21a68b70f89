//! Requests that the broker may refuse: published on a channel in confirm mode, so that a full queue is known at once.
//!
//! ```text
//!  call ──publish──► channel (confirms) ──confirms──► task ──nack──► the call ends: overloaded
//!                                                         └─return─► the call it names ends
//! ```
//!
//! Only requests of services with a `max_length` are published here: confirms cost a fifth of the calls, and without a bound
//! no queue refuses. Replies arrive at the session's reply queue as for other calls.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::in_flight::InFlight;
use crate::{
    connection::{Channel, Confirm, Connection, amqp::Publish},
    error::Error,
    task::AbortOnDrop,
};

/// The confirm channel of a session, and the task that awaits its confirms.
#[derive(Debug)]
pub(super) struct Confirming {
    channel: Channel,
    published: mpsc::Sender<(u64, Confirm)>,
    in_flight: Arc<InFlight>,
    _task: AbortOnDrop,
}

impl Confirming {
    pub(super) async fn open(connection: &Connection, in_flight: Arc<InFlight>) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.confirm_select().await?;
        let (published, inbox) = mpsc::channel(UNCONFIRMED_MAX);
        let task = AbortOnDrop::spawn(await_confirms(Arc::clone(&in_flight), inbox));
        Ok(Self { channel, published, in_flight, _task: task })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.channel.has_ended() || self.published.is_closed()
    }

    /// Publishes the request of a call; if the broker refuses it, the call ends.
    pub(super) async fn publish(&self, correlation_id: u64, publish: Publish<'_>) -> Result<(), Error> {
        let confirm = self.channel.publish_for_confirm(publish)?;
        if self.published.send((correlation_id, confirm)).await.is_err() {
            // The task has ended with the channel: the confirm will not arrive.
            self.in_flight.lose(correlation_id);
        }
        Ok(())
    }
}

/// Awaits confirms, in the order of publishing, until the channel ends.
async fn await_confirms(in_flight: Arc<InFlight>, mut published: mpsc::Receiver<(u64, Confirm)>) {
    while let Some((correlation_id, confirm)) = published.recv().await {
        match confirm.wait().await {
            Ok((is_acked, returned)) => {
                // A returned message names its call, so it does not matter with which confirm it arrives.
                if let Some(returned) = returned {
                    in_flight.give_back(returned);
                }
                if !is_acked {
                    in_flight.refuse(correlation_id);
                }
            }
            Err(_) => {
                // The rest of the queue is lost as well, and settles at once.
                published.close();
                in_flight.lose(correlation_id);
            }
        }
    }
}

/// Requests whose confirm is awaited; the next ones wait before they return to their callers.
const UNCONFIRMED_MAX: usize = 1_024;

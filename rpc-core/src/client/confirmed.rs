//! Requests that the broker may refuse: published on a channel in confirm mode, so that a full queue is known at once.
//!
//! ```text
//!  call ──publish──► channel (confirms) ──confirm, in order──► task ──nack──► the call ends: overloaded
//!                                                                  └─return─► the call it names ends
//! ```
//!
//! Only services with a `max_length` come here: confirms cost a fifth of the calls, and without a bound no queue
//! refuses. Replies come in through the session as ever.

use std::sync::Arc;

use tokio::{sync::mpsc, task::AbortHandle};

use super::reply_queue::Shared;
use crate::{
    connection::{
        Channel, Confirm, Connection,
        transport::{Publish, Returned},
    },
    error::Error,
};

/// The confirm channel of a session, and the task that hears its confirms.
#[derive(Debug)]
pub(super) struct Confirming {
    channel: Channel,
    published: mpsc::Sender<(u64, Confirm)>,
    task: AbortHandle,
}

impl Confirming {
    pub(super) async fn open(connection: &Connection, session: Arc<Shared>) -> Result<Self, Error> {
        let channel = connection.channel().await?;
        channel.confirm_select().await?;
        let (published, inbox) = mpsc::channel(UNCONFIRMED_MAX);
        let task = tokio::spawn(hear(session, inbox)).abort_handle();
        Ok(Self { channel, published, task })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.published.is_closed()
    }

    /// Publishes the request of a call; when the broker refuses it, the call ends.
    pub(super) async fn publish(&self, correlation_id: u64, publish: Publish<'_>) -> Result<(), Error> {
        let confirm = self.channel.publish_for_confirm(publish).await?;
        // When the task is gone the channel is, and the session's calls end with the connection or at their deadline.
        drop(self.published.send((correlation_id, confirm)).await);
        Ok(())
    }
}

impl Drop for Confirming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears confirms in the order of their requests, which is the broker's own but for a few.
async fn hear(session: Arc<Shared>, mut published: mpsc::Receiver<(u64, Confirm)>) {
    while let Some((correlation_id, confirm)) = published.recv().await {
        let Ok((is_acked, returned)) = confirm.wait().await else {
            published.close();
            session.lose(correlation_id);
            while let Some((correlation_id, _)) = published.recv().await {
                session.lose(correlation_id);
            }
            return;
        };
        // It may be another request's.
        if let Some(Returned { correlation_id, reply_text }) = returned {
            session.give_back(correlation_id.as_deref(), reply_text);
        }
        if !is_acked {
            session.refuse(correlation_id);
        }
    }
}

/// Requests whose confirm is awaited; further ones wait with publishing.
const UNCONFIRMED_MAX: usize = 1_024;

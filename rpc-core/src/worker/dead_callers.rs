//! Callers of requests that the broker itself dead-lettered, at the delivery limit of a quorum queue: they are answered with `abandoned`.
//!
//! ```text
//!  rpc.<service> ──delivery limit──► rpc.dead ──► rpc.<service>.dead            for a person
//!                                        └──────► rpc.<service>.dead.callers ──► any worker ──abandoned──► the caller
//! ```
//!
//! No worker sees such a request again, and its caller would wait until its deadline. The queue is durable, because a request
//! that kills workers may have killed all of them: the next worker to start answers. It holds a letter for five minutes, and
//! at most [`LETTERS_MAX`] of them.

use std::sync::Arc;

use tokio::{task::AbortHandle, time::sleep};

use super::{
    dispatch::Response,
    poison,
    source::{DeadLetters, REOPEN_DELAY_MAX, REOPEN_DELAY_MIN, Source},
    stats::Counters,
};
use crate::{
    connection::{
        Backoff, Channel, Delivery,
        transport::{Publish, Settlement},
    },
    envelope::Code,
    error::Error,
};

/// The task that answers the callers of one queue's dead-lettered requests; dropping this stops it.
#[derive(Debug)]
pub(super) struct TellTask(AbortHandle);

impl TellTask {
    pub(super) fn spawn(source: Source, letters: DeadLetters, counters: Arc<Counters>) -> Self {
        Self(tokio::spawn(run(source, letters, counters)).abort_handle())
    }
}

impl Drop for TellTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs until the connection is closed for good.
async fn run(source: Source, mut letters: DeadLetters, counters: Arc<Counters>) {
    loop {
        tell_all(letters, &counters).await;
        let mut backoff = Backoff::new(REOPEN_DELAY_MIN, REOPEN_DELAY_MAX);
        letters = loop {
            sleep(backoff.pause()).await;
            match source.open_dead_letters().await {
                Ok(Some(letters)) => break letters,
                Ok(None) | Err(Error::Closed { .. }) => return,
                Err(error) => tracing::debug!(%error, "could not consume dead letters again"),
            }
        };
    }
}

/// Answers callers until the consumer is lost. A letter that was not acknowledged is redelivered, and its caller ignores the
/// second answer.
async fn tell_all(DeadLetters { channel, mut consumer }: DeadLetters, counters: &Counters) {
    loop {
        match consumer.next().await {
            Ok(Some(letter)) => {
                if tell(&channel, &letter, counters).await.is_err() {
                    return;
                }
                let ack = Settlement::Ack { delivery_tag: letter.delivery_tag(), multiple: false };
                if channel.settle(ack).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "the consumer of dead letters ended"),
        }
    }
}

async fn tell(channel: &Channel, letter: &Delivery, counters: &Counters) -> Result<(), Error> {
    let Some(reply_to) = letter.reply_to().filter(|reply_to| !reply_to.is_empty()) else { return Ok(()) };
    let Some(answer) = Response::failed(Code::Abandoned, poison::DEAD_LETTERED_BY_BROKER).into_answer() else {
        return Ok(());
    };
    let (properties, body) = answer.into_message(letter);
    // The caller may have gone: then no one waits for the answer.
    let publish = Publish { exchange: "", routing_key: reply_to, mandatory: false, properties, body: &body };
    channel.publish_written(publish).await?;
    Counters::add(&counters.answered);
    Ok(())
}

//! Callers of requests that the broker itself dead-lettered, at the delivery limit of a quorum queue: they are told.
//!
//! ```text
//!  rpc.<service> ──delivery limit──► rpc.dead ──► rpc.<service>.dead            for a person
//!                                        └──────► rpc.<service>.dead.callers ──► any worker ──abandoned──► the caller
//! ```
//!
//! No worker sees such a request again, and its caller would wait until its deadline. The queue is durable, because what
//! kills workers may have killed all of them: the next one tells. It holds a letter for five minutes, and
//! at most [`LETTERS_MAX`] of them.

use std::sync::Arc;

use tokio::{task::AbortHandle, time::sleep};

use super::{Counters, Source, dispatch::Response, kind_arguments, poison};
use crate::{
    connection::{
        Backoff, Channel, Consumer, Delivery,
        transport::{HeaderValue, Publish, Settlement},
    },
    envelope::Code,
    error::Error,
    topology,
};

/// The task that tells the callers of one queue's requests; dropping it stops it.
#[derive(Debug)]
pub(super) struct TellTask(AbortHandle);

impl TellTask {
    pub(super) fn spawn(source: Source, letters: Letters, counters: Arc<Counters>) -> Self {
        Self(tokio::spawn(run(source, letters, counters)).abort_handle())
    }
}

impl Drop for TellTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The consumer of one opening.
#[derive(Debug)]
pub(super) struct Letters {
    channel: Channel,
    consumer: Consumer,
}

impl Source {
    /// Declares the queue of letters to tell of and consumes from it; `None` when the broker dead-letters nothing.
    pub(super) async fn open_letters(&self) -> Result<Option<Letters>, Error> {
        if self.delivery_limit.is_none() {
            return Ok(None);
        }
        let channel = self.connection.channel().await?;
        let name = topology::dead_callers_queue(self.descriptor.name);
        let mut arguments = kind_arguments(self.is_quorum);
        arguments.push(("x-message-ttl", HeaderValue::from(LETTER_AGE_MAX_MS)));
        arguments.push(("x-max-length", HeaderValue::from(LETTERS_MAX)));
        self.declare_durable(&channel, &name, &arguments).await?;
        self.bind_dead_letters(&channel, &self.queue_name(), &name).await?;
        channel.qos(PREFETCH).await?;
        let consumer = channel.consume(&name, "", false).await?;
        Ok(Some(Letters { channel, consumer }))
    }
}

/// Runs until the connection is closed for good.
async fn run(source: Source, mut letters: Letters, counters: Arc<Counters>) {
    loop {
        tell_all(letters, &counters).await;
        let mut backoff = Backoff::new(super::consume::REOPEN_DELAY_MIN, super::consume::REOPEN_DELAY_MAX);
        letters = loop {
            sleep(backoff.pause()).await;
            match source.open_letters().await {
                Ok(Some(letters)) => break letters,
                Ok(None) | Err(Error::Closed { .. }) => return,
                Err(error) => tracing::debug!(%error, "could not hear of dead letters again"),
            }
        };
    }
}

/// Tells callers until the consumer is lost. A letter that is not acknowledged is told of again: a caller hears once.
async fn tell_all(Letters { channel, mut consumer }: Letters, counters: &Counters) {
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
    let Some(answer) = Response::failed(Code::Abandoned, poison::BROKERS_SENTENCE).into_answer() else { return Ok(()) };
    let (properties, body) = answer.into_message(letter);
    // The caller may have gone, and nobody minds.
    let publish = Publish { exchange: "", routing_key: reply_to, mandatory: false, properties, body: &body };
    channel.publish_written(publish).await?;
    Counters::add(&counters.answered);
    Ok(())
}

/// Longer than callers wait.
const LETTER_AGE_MAX_MS: u32 = 300_000;
/// The oldest go first.
const LETTERS_MAX: u32 = 10_000;
/// Letters on their way here.
const PREFETCH: u16 = 16;

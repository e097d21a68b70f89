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

use super::{
    direct_reply_to,
    dispatch::Response,
    finished::reply_publish,
    log::log_request,
    poison,
    source::{DeadLetters, Source},
    stats::Counters,
};
use crate::{
    connection::{
        Channel, Delivery,
        amqp::{Publish, Settlement},
        open_again,
    },
    envelope::Code,
    error::Error,
    meter::Event,
    printable::printable,
};

/// Notifies the callers of one queue's requests until the connection is closed for good.
pub(super) async fn run(source: Source, mut letters: DeadLetters, counters: Arc<Counters>) {
    loop {
        tell_all(letters, &source, &counters).await;
        let Ok(Some(opened)) = open_again("the consumer of dead letters", || source.open_dead_letters()).await else {
            return;
        };
        letters = opened;
    }
}

/// Answers callers until the consumer is lost. A letter that was not acknowledged is redelivered, and its caller ignores the
/// second answer.
async fn tell_all(DeadLetters { channel, mut consumer, .. }: DeadLetters, source: &Source, counters: &Counters) {
    loop {
        match consumer.next().await {
            Ok(Some(letter)) => {
                if tell(&channel, &letter, source, counters).await.is_err() {
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

async fn tell(channel: &Channel, letter: &Delivery, source: &Source, counters: &Counters) -> Result<(), Error> {
    let Some(reply_to) = letter.reply_to().filter(|reply_to| !reply_to.is_empty()) else { return Ok(()) };
    if !direct_reply_to::is_safe(reply_to) {
        // The broker would close the connection.
        counters.note(Event::ReplyRefused, source.descriptor.name);
        let reply_to = printable(reply_to);
        log_request!(warn, *source, *letter, %reply_to, "a malformed reply_to: the caller of a dead letter is not told");
        return Ok(());
    }
    let Some(answer) = Response::failed(Code::Abandoned, poison::DEAD_LETTERED_BY_BROKER).into_answer() else {
        return Ok(());
    };
    let (properties, body) = answer.message(letter, reply_to);
    // The caller may have gone: then no one waits for the answer.
    let publish = Publish { mandatory: false, ..reply_publish(&source.users, reply_to, properties, body) };
    channel.publish_written(publish).await?;
    Counters::add(&counters.answered);
    Ok(())
}

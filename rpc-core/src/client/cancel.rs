//! Cancels: notifies the workers of calls that were given up.
//!
//! ```text
//!  call dropped, deadline passed ──note──► the session's list ──task──► exchange rpc.cancel, key <service>
//! ```
//!
//! Answered calls make no cancel. One message names many calls that were given up together, and there is a pause between two
//! rounds, so that ten thousand dropped futures make a few dozen messages.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::{
    correlation::CorrelationId,
    opening::{Mode, open_with},
};
use crate::{
    connection::{
        Channel, Connection,
        amqp::{ACCESS_REFUSED, Publish},
    },
    envelope,
    error::Error,
    lock::lock,
    printable::printable,
    topology,
};

/// The calls of one session that were given up, until the workers are notified.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    given_up: Mutex<Vec<GivenUp>>,
    noted: Notify,
    /// The user may not publish to `rpc.cancel`.
    is_denied: AtomicBool,
}

/// A call whose request was sent, and whose caller has stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct GivenUp {
    service: &'static str,
    number: u64,
}

/// The properties by which workers know whose calls a cancel names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) reply_to: &'a str,
    pub(super) user_id: Option<&'a str>,
}

impl Cancels {
    /// Notes a call. Beyond [`GIVEN_UP_MAX`] the call is ignored: its request runs until its own deadline.
    pub(super) fn note(&self, service: &'static str, number: u64) {
        if self.is_denied.load(Ordering::Relaxed) {
            return;
        }
        let is_first = {
            let mut given_up = self.given_up();
            if given_up.len() >= GIVEN_UP_MAX {
                return;
            }
            given_up.push(GivenUp { service, number });
            given_up.len() == 1
        };
        if is_first {
            self.noted.notify_one();
        }
    }

    /// Sends no cancels in this session: the calls that are given up run until their own deadlines.
    pub(super) fn deny(&self, reason: &str) {
        self.is_denied.store(true, Ordering::Relaxed);
        self.given_up().clear();
        tracing::warn!(
            reason = %printable(reason),
            "the user may not publish to exchange 'rpc.cancel': workers are not notified of calls that are given up"
        );
    }

    /// Sends the noted calls, for as long as the session lives: on `shared`, or on a channel of its own, which is opened when it
    /// is needed. A broker that refuses cancels closes that one alone.
    pub(super) async fn send(&self, connection: &Connection, epoch: u64, shared: Option<Channel>, sender: Sender<'_>) {
        let mut own: Option<Channel> = None;
        loop {
            self.noted.notified().await;
            if let Some(ended) = own.take_if(|own| own.has_ended()) {
                match ended.refusal().await {
                    // It would be refused again, and each refusal costs the broker a channel.
                    Some(refusal) if refusal.reply_code == ACCESS_REFUSED => return self.deny(&refusal.reply_text),
                    Some(_) => sleep(RETRY).await,
                    None => {}
                }
            }
            let channel = match shared.as_ref().or(own.as_ref()).filter(|channel| !channel.has_ended()) {
                Some(channel) => channel.clone(),
                None => match open_with(connection, Some(epoch), &[topology::CANCELS], Mode::Plain).await {
                    Ok((channel, _)) => own.insert(channel).clone(),
                    Err(error) => {
                        tracing::debug!(%error, "could not open a channel for cancels");
                        sleep(RETRY).await;
                        self.try_again(&error);
                        continue;
                    }
                },
            };
            channel.room().await;
            if channel.has_ended() {
                self.noted.notify_one();
                continue;
            }
            let mut given_up = std::mem::take(&mut *self.given_up());
            for message in messages(&mut given_up) {
                let publish = Publish {
                    exchange: topology::CANCEL_EXCHANGE,
                    routing_key: message.service.as_bytes(),
                    // Without a worker there is nothing to stop.
                    mandatory: false,
                    properties: envelope::cancel_properties(sender.reply_to, sender.user_id),
                    body: message.body.as_bytes(),
                };
                if let Err(error) = channel.publish(publish) {
                    tracing::debug!(%error, "could not send cancels");
                    break;
                }
            }
            sleep(GATHER).await;
        }
    }

    /// Lets the task try again to send those that wait: `note` wakes it for the first one alone. Where the user may not do so, it tries
    /// again with the next one that is given up: a worker may declare the exchange meanwhile, but each attempt costs a channel.
    fn try_again(&self, error: &Error) {
        if error.is_access_refused() {
            self.given_up().clear();
        } else {
            self.noted.notify_one();
        }
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<GivenUp>> {
        lock(&self.given_up)
    }
}

#[derive(Debug, PartialEq)]
struct Message {
    service: &'static str,
    /// correlation_ids, one a line.
    body: String,
}

/// One message for each service, or several of them when it has many.
fn messages(given_up: &mut [GivenUp]) -> Vec<Message> {
    given_up.sort_unstable();
    let of_one_service = given_up.chunk_by(|one, next| one.service == next.service);
    of_one_service
        .flat_map(|calls| calls.chunks(envelope::CANCELS_PER_MESSAGE_MAX))
        .map(|calls| {
            let mut body = String::new();
            for call in calls {
                body.push_str(CorrelationId::of(call.number).as_str());
                body.push('\n');
            }
            Message { service: calls[0].service, body }
        })
        .collect()
}

/// Calls noted between two rounds: 3 MiB of them.
const GIVEN_UP_MAX: usize = 131_072;

/// The pause after a round, in which the calls of the next one are gathered.
const GATHER: Duration = Duration::from_millis(2);
/// The pause before another channel is opened.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_calls_make_a_few_messages_for_each_service() {
        let mut given_up: Vec<_> =
            (0..10_000).map(|id| GivenUp { service: if id % 2 == 0 { "even" } else { "odd" }, number: id }).collect();
        let messages = messages(&mut given_up);
        let per_service = 5_000_usize.div_ceil(envelope::CANCELS_PER_MESSAGE_MAX);
        assert_eq!(messages.len(), 2 * per_service);
        let first: Vec<_> = [0, 2, 4].map(CorrelationId::of).into();
        let lines: Vec<_> = messages[0].body.lines().take(3).collect();
        assert_eq!(lines, first.iter().map(CorrelationId::as_str).collect::<Vec<_>>());
        let named: usize = messages.iter().map(|message| message.body.lines().count()).sum();
        assert_eq!(named, 10_000);
    }

    #[test]
    fn the_list_is_bounded() {
        let cancels = Cancels::default();
        for id in 0..2 * GIVEN_UP_MAX as u64 {
            cancels.note("s", id);
        }
        assert_eq!(cancels.given_up().len(), GIVEN_UP_MAX);
    }
}

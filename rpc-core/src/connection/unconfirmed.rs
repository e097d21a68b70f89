//! Published messages that wait for their publisher confirms, and the fate of each.
//!
//! A returned message arrives inside the confirm of any message of its channel (`lapin.rs` says why). So a batch is judged
//! when all of its confirms are in, and each return belongs to the message with its correlation_id.

use std::collections::HashMap;

use super::{
    amqp::{Publish, Returned},
    link::{Channel, Confirm},
};
use crate::error::Error;

/// The fate of a published message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in every queue it was routed to.
    Confirmed,
    /// No queue took it.
    Returned { reply_text: String },
    /// The broker refused it (`basic.nack`): a queue is full, or the broker has a fault of its own.
    Refused,
    /// The channel was lost before the broker had confirmed it.
    Lost,
}

/// Messages of one channel in confirm mode, each with a tag of its publisher's.
pub(crate) struct Unconfirmed<T> {
    sent: Vec<Sent<T>>,
}

struct Sent<T> {
    tag: T,
    correlation_id: String,
    confirm: Confirm,
}

impl<T> Unconfirmed<T> {
    pub(crate) const fn new() -> Self {
        Self { sent: Vec::new() }
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// The message was certainly not sent; its tag comes with the error.
    pub(crate) fn publish(&mut self, channel: &Channel, publish: Publish<'_>, tag: T) -> Result<(), (T, Error)> {
        let id = publish.properties.correlation_id.as_deref().unwrap_or_default();
        let correlation_id = String::from_utf8_lossy(id).into_owned();
        match channel.publish_for_confirm(publish) {
            Ok(confirm) => {
                self.sent.push(Sent { tag, correlation_id, confirm });
                Ok(())
            }
            Err(error) => Err((tag, error)),
        }
    }

    /// Waits for all confirms; the verdicts are in the order of publishing.
    pub(crate) async fn settle(&mut self) -> Vec<(T, Verdict)> {
        let mut judged = Vec::with_capacity(self.sent.len());
        let mut returns = Returns::default();
        for Sent { tag, correlation_id, confirm } in self.sent.drain(..) {
            let verdict = match confirm.wait().await {
                Ok((is_acked, returned)) => {
                    returns.add(returned);
                    if is_acked { Verdict::Confirmed } else { Verdict::Refused }
                }
                Err(_) => Verdict::Lost,
            };
            judged.push((tag, correlation_id, verdict));
        }
        judged
            .into_iter()
            .map(|(tag, correlation_id, verdict)| match returns.take(&correlation_id) {
                Some(reply_text) if verdict != Verdict::Lost => (tag, Verdict::Returned { reply_text }),
                _ => (tag, verdict),
            })
            .collect()
    }
}

/// Returned messages by correlation_id. Replies to several callers can have the same one.
#[derive(Default)]
struct Returns(HashMap<String, Vec<String>>);

impl Returns {
    fn add(&mut self, returned: Option<Returned>) {
        if let Some(Returned { correlation_id, reply_text }) = returned {
            self.0.entry(correlation_id.unwrap_or_default()).or_default().push(reply_text);
        }
    }

    fn take(&mut self, correlation_id: &str) -> Option<String> {
        self.0.get_mut(correlation_id)?.pop()
    }
}

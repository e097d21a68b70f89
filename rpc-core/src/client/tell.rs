//! Sends a one-way request, and waits for the broker's confirm.

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout_at};

use super::{
    oneway::{OneWay, Settled, Unsent},
    request::{Failure, Limits, Reply, Request},
    resend::{RESEND_DELAY_INITIAL, RESEND_DELAY_MAX, wait},
};
use crate::{
    budget,
    call_error::{CallError, TimeoutStage},
    connection::{Backoff, Verdict, amqp::Properties},
    envelope,
};

/// How a one-way request fared.
enum Told {
    Taken,
    /// It was certainly not sent.
    NotSent(Unsent),
    /// It was nacked by a channel that may not reach its queue.
    Refused(Unsent),
}

impl Request {
    /// Sends until the broker has confirmed or refused the request; again if it was certainly not sent, or if its channel
    /// did not reach its queue.
    pub(super) async fn send_oneway(&mut self) -> Result<Reply, CallError> {
        let limits = self.limits();
        let body = std::mem::replace(&mut self.body, Ok(Vec::new())).unwrap_or_default();
        let properties = self.oneway_properties();
        let mut unsent = Unsent { properties, body };
        let (mut nacks, mut backoff) = (0, None);
        loop {
            match self.tell_once(limits, unsent).await? {
                Told::Taken => return Ok(Reply::Nothing),
                Told::NotSent(again) => {
                    unsent = again;
                    self.note_resent();
                }
                Told::Refused(again) => {
                    unsent = again;
                    nacks += 1;
                    if nacks > 1 && self.service.max_length.is_some() {
                        return Err(self.not_taken());
                    }
                    // The first time on a channel that is new.
                    let pause = backoff.as_mut().map_or(Duration::ZERO, Backoff::pause);
                    backoff.get_or_insert_with(|| Backoff::new(RESEND_DELAY_INITIAL, RESEND_DELAY_MAX));
                    if timeout_at(limits.deadline, wait(pause)).await.is_err() {
                        return Err(self.not_taken());
                    }
                    self.note_resent();
                }
            }
        }
    }

    /// Those of a one-way request, but for the correlation_id.
    pub(super) fn oneway_properties(&mut self) -> Properties<'static> {
        let mut call = std::mem::take(&mut self.headers);
        let number = self.attempt_number(1);
        if number > 1 {
            call.headers.push((envelope::ATTEMPT_HEADER.into(), number.into()));
        }
        if self.is_within_retry() {
            call.headers.push((envelope::WITHIN_RETRY_HEADER.into(), true.into()));
        }
        let message_id = self.identify().to_owned();
        envelope::oneway_properties(self.service, self.method, message_id, call)
    }

    async fn tell_once(&self, limits: Limits, unsent: Unsent) -> Result<Told, CallError> {
        let Unsent { properties, body } = unsent;
        if timeout_at(limits.deadline, self.client.unblocked()).await.is_err() {
            return Err(self.timed_out(TimeoutStage::Blocked));
        }
        let channel = match timeout_at(limits.deadline, self.client.confirm_channel(self.exchange())).await {
            Ok(channel) => channel.map_err(|error| self.last_failure(self.not_connected(error)))?,
            Err(_) => return Err(self.timed_out(TimeoutStage::Connecting)),
        };
        let (settled, outcome) = oneshot::channel();
        let request = OneWay { routing_key: self.method.routing_key, properties, body, settled };
        match timeout_at(limits.deadline, channel.send(request)).await {
            Ok(Ok(())) => self.note_sent(),
            Ok(Err(OneWay { properties, body, .. })) => return Ok(Told::NotSent(Unsent { properties, body })),
            Err(_) => return Err(self.timed_out(TimeoutStage::InFlightLimit)),
        }
        match timeout_at(limits.deadline, outcome).await {
            Ok(Ok(settled)) => self.settled(settled),
            // The channel's task has ended: the client was shut down, or its last clone was dropped.
            Ok(Err(_)) if self.client.is_shut_down() => {
                Err(CallError::shutdown(self.service.name, self.method.name, true))
            }
            Ok(Err(_)) => Err(self.disconnected(true)),
            Err(_) => Err(self.timed_out(TimeoutStage::Unconfirmed)),
        }
    }

    /// Whether a handler makes the call whose own request is a retry.
    fn is_within_retry(&self) -> bool {
        self.attempt_of.as_ref().map_or_else(budget::is_within_retry, |attempt| attempt.call.is_within_retry)
    }

    fn settled(&self, settled: Settled) -> Result<Told, CallError> {
        let (service, method) = (self.service.name, self.method.name);
        match settled {
            Settled::Sent(Verdict::Confirmed) => Ok(Told::Taken),
            Settled::Sent(Verdict::Returned { reply_text }) => Err(self.returned(&reply_text)),
            Settled::Nacked(nack, unsent) => match (self.refused(nack), unsent) {
                (Failure::Refused, Some(unsent)) => Ok(Told::Refused(*unsent)),
                (failure, _) => Err(self.last_failure(failure)),
            },
            Settled::Sent(Verdict::Refused) => Err(self.not_taken()),
            Settled::Sent(Verdict::Lost) => Err(self.disconnected(true)),
            Settled::NotSent(Some(unsent)) if !self.client.is_shut_down() => Ok(Told::NotSent(*unsent)),
            Settled::NotSent(_) => Err(self.disconnected(false)),
            Settled::Refused(error) => Err(self.last_failure(self.not_sent(error.into()))),
            Settled::TooLarge { body_bytes, limit_bytes } => {
                Err(CallError::payload_too_large(service, method, body_bytes, limit_bytes))
            }
            Settled::Denied(refusal) => Err(self.denied(&refusal)),
        }
    }
}

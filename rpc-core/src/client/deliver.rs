//! Hands a call to the servers in this process, in place of a broker.
//!
//! ```text
//!  Request ──properties──► message ──► Servers ──► reply as a message ──conclude──► Reply
//! ```
//!
//! A request is encoded as for a broker, and so is its reply, so that both ends see of it what they would see then.

use std::{future::poll_fn, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    in_flight::Outcome,
    in_process::InProcess,
    request::{FOREVER, Limits, Reply, Request},
};
use crate::{
    call_error::{CallError, TimeoutStage},
    connection::{Delivery, amqp::Properties},
    servers::Serving,
};

impl Request {
    /// Sends the call, and waits for its reply; of a one-way request, until its handler has ended or waits for something.
    pub(super) async fn send_in_process(&mut self) -> Result<Reply, CallError> {
        let client = self.client.clone();
        // Otherwise it would not be here.
        let Some(servers) = &client.inner.in_process else { return Err(self.disconnected(false)) };
        match self.method.oneway {
            true => self.tell_in_process(servers).await,
            false => self.call_in_process(servers).await,
        }
    }

    async fn call_in_process(&mut self, in_process: &InProcess) -> Result<Reply, CallError> {
        let Limits { budget, deadline } = self.limits();
        let is_endless = budget >= FOREVER;
        let remaining = if is_endless { budget } else { deadline.saturating_duration_since(Instant::now()) };
        if remaining == Duration::ZERO {
            return Err(self.timed_out(TimeoutStage::Connecting));
        }
        let properties = self.properties(REPLY_TO, CORRELATION_ID, remaining, self.attempt_number(1));
        let serving = self.deliver(in_process, &properties, (!is_endless).then_some(deadline))?;
        let outcome = match timeout_at(deadline, in_process.answer(serving)).await {
            Ok(Some(Some(reply))) => Outcome::Reply(reply),
            Ok(Some(None)) => return Ok(Reply::Nothing),
            Ok(None) => Outcome::Shutdown,
            Err(_) => Outcome::Expired,
        };
        self.conclude(outcome).map_err(|failure| self.last_failure(failure))
    }

    async fn tell_in_process(&mut self, in_process: &InProcess) -> Result<Reply, CallError> {
        let properties = self.oneway_properties();
        let mut serving = self.deliver(in_process, &properties, None)?;
        // A handler that is not at its end goes on by itself, as behind a broker.
        poll_fn(|cx| {
            let _ = serving.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        Ok(Reply::Nothing)
    }

    /// Hands the request over as a message.
    fn deliver(
        &self,
        in_process: &InProcess,
        properties: &Properties<'_>,
        deadline: Option<Instant>,
    ) -> Result<Serving, CallError> {
        let request = Delivery::of_message(self.routing_key().as_bytes(), properties, self.body())
            .map_err(|error| self.bad_request(&error))?;
        let Some(serving) = in_process.servers.serve(request, deadline) else { return Err(self.returned(NO_ROUTE)) };
        self.note_sent();
        Ok(serving)
    }
}

/// As a client of a broker would have it: it tells servers that properties with their default value may be omitted.
const REPLY_TO: &str = "rpc.reply.in-process";
/// Each request has its reply to itself.
const CORRELATION_ID: &[u8] = b"1";
/// RabbitMQ's words for a message that no queue takes.
const NO_ROUTE: &str = "NO_ROUTE";

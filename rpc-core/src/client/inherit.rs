//! The headers that a call has besides those of its caller: those of the call that is served meanwhile, and the `message_id`.

use std::sync::Arc;

use super::request::Request;
use crate::forward::Forwarded;

impl Request {
    /// Its `message_id`: it gets one unless it has one.
    pub(super) fn identify(&mut self) -> &str {
        let Self { client, message_id, attempt_of, .. } = self;
        match attempt_of.as_ref().and_then(|attempt| attempt.call.message_id.as_deref()) {
            Some(of_call) => of_call,
            None => message_id.get_or_insert_with(|| client.next_message_id()),
        }
    }

    /// Takes over those that its caller has not set. Behind layers they are there already, unless a layer has removed them.
    pub(super) fn inherit(&mut self, forwarded: Option<Arc<Forwarded>>) {
        let Some(forwarded) = forwarded.filter(|_| self.attempt_of.is_none()) else { return };
        let headers = &mut self.headers.headers;
        forwarded.add_to(headers).fit(headers, self.client.inner.connection.frame_max_bytes());
    }
}

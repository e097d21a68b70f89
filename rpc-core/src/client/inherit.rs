//! The headers that a call has besides those of its caller: those of the call that is served meanwhile, and the `message_id`.

use std::sync::Arc;

use super::request::Request;
use crate::forward::Forwarded;

impl Request {
    /// Gives it a `message_id` unless it has one.
    pub(super) fn identify(&mut self) {
        if self.message_id().is_none() {
            self.message_id = Some(self.client.next_message_id());
        }
    }

    /// Takes over those that its caller has not set. Behind layers they are there already, unless a layer has removed them.
    pub(super) fn inherit(&mut self, forwarded: Option<Arc<Forwarded>>) {
        let Some(forwarded) = forwarded.filter(|_| self.attempt_of.is_none()) else { return };
        let headers = &mut self.headers.headers;
        forwarded.add_to(headers).fit(headers, self.client.inner.connection.frame_max_bytes());
    }
}

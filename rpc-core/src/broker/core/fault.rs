//! What a client did wrong, in RabbitMQ's words.
//!
//! A soft fault closes the channel, a hard one the connection. There is one constructor for each text; a text that
//! stands here is RabbitMQ 3.10.8's own.

use crate::wire::{RawFrame, ReplyCode};

/// A refused operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) is_hard: bool,
    pub(crate) code: ReplyCode,
    pub(crate) text: String,
    /// The method that was refused; (0, 0) when there was none.
    pub(crate) class_id: u16,
    pub(crate) method_id: u16,
}

impl Fault {
    fn soft(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { is_hard: false, code, text: text.into(), class_id: 0, method_id: 0 }
    }

    fn hard(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { is_hard: true, ..Self::soft(code, text) }
    }

    /// Names the refused method.
    pub(super) fn at(mut self, (class_id, method_id): (u16, u16)) -> Self {
        (self.class_id, self.method_id) = (class_id, method_id);
        self
    }

    /// `reply_text` as sent: cut to what a short string holds.
    pub(super) fn reply_text(&self) -> String {
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > 255 {
            let end = (0..=252).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("...");
        }
        text
    }

    pub(super) fn no_queue(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    pub(super) fn no_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    pub(super) fn no_previous_queue() -> Self {
        Self::soft(ReplyCode::NotFound, "no previously declared queue")
    }

    pub(super) fn locked(name: &str, vhost: &str) -> Self {
        Self::soft(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally \
                 declared on another connection or the exclusive property value does not match that of the original \
                 declaration."
            ),
        )
    }

    pub(super) fn precondition(text: impl Into<String>) -> Self {
        Self::soft(ReplyCode::PreconditionFailed, text)
    }

    pub(super) fn inequivalent(
        what: &str,
        name: &str,
        vhost: &str,
        field: &str,
        received: &str,
        current: &str,
    ) -> Self {
        Self::precondition(format!(
            "inequivalent arg '{field}' for {what} '{name}' in vhost '{vhost}': received {received} but current is \
             {current}"
        ))
    }

    pub(super) fn invalid_argument(argument: &str, queue: &str, vhost: &str, why: &str) -> Self {
        Self::precondition(format!("invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}': {why}"))
    }

    pub(super) fn unknown_delivery_tag(delivery_tag: u64) -> Self {
        Self::precondition(format!("unknown delivery tag {delivery_tag}"))
    }

    pub(super) fn reserved_name(what: &str, name: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
    }

    pub(super) fn default_exchange() -> Self {
        Self::soft(ReplyCode::AccessRefused, "operation not permitted on the default exchange")
    }

    pub(super) fn system_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(
            ReplyCode::AccessRefused,
            format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed"),
        )
    }

    pub(super) fn internal_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("cannot publish to internal exchange '{name}' in vhost '{vhost}'"))
    }

    pub(super) fn exclusive_use(queue: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("queue '{queue}' in vhost '{vhost}' in exclusive use"))
    }

    pub(super) fn message_too_large(body_size: u64, limit: u64) -> Self {
        Self::precondition(format!("message size {body_size} is larger than configured max size {limit}"))
    }

    pub(super) fn authentication_refused(mechanism: &str) -> Self {
        Self::hard(
            ReplyCode::AccessRefused,
            format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            ),
        )
    }

    pub(super) fn not_allowed(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::NotAllowed, text)
    }

    pub(super) fn not_implemented(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::NotImplemented, text)
    }

    pub(super) fn command_invalid(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::CommandInvalid, text)
    }

    /// A method only servers send, or one that does not belong here.
    pub(super) fn unimplemented() -> Self {
        Self::command_invalid("unimplemented method")
    }

    /// A method on channel 0 that does not belong there.
    pub(super) fn unexpected_when_running(ids: (u16, u16)) -> Self {
        Self::channel_error("unexpected method in connection state running").at(ids)
    }

    pub(super) fn channel_error(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::ChannelError, text)
    }

    pub(super) fn unexpected_frame(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::UnexpectedFrame, text)
    }

    /// A frame that has no business on its channel.
    pub(super) fn unexpected_octets(frame: &RawFrame) -> Self {
        let octets = octets_or_text(&frame.payload);
        Self::unexpected_frame(format!("type {}, all octets = {octets}", frame.kind.octet()))
    }

    /// A frame of no kind, or too short to be of its kind.
    pub(super) fn unknown_frame(kind: u8, payload: &[u8]) -> Self {
        Self::frame_error(format!("type {kind}, all octets = {}: unknown_frame", octets_or_text(payload)))
    }

    pub(super) fn frame_error(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::FrameError, text)
    }

    pub(super) fn syntax_error(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::SyntaxError, text)
    }

    pub(super) fn connection_forced(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::ConnectionForced, text)
    }
}

/// Bytes as Erlang shows them: `<<1,2,3>>`. As many as a reply text holds.
pub(super) fn octets(bytes: &[u8]) -> String {
    let octets: Vec<_> = bytes.iter().take(OCTETS_MAX).map(u8::to_string).collect();
    format!("<<{}>>", octets.join(","))
}

/// The same with Erlang's eye for text: `<<"abc">>`.
fn octets_or_text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(OCTETS_MAX)];
    if !bytes.is_empty() && shown.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return format!("<<{:?}>>", String::from_utf8_lossy(shown));
    }
    octets(bytes)
}

/// More are cut off with the reply text anyway.
const OCTETS_MAX: usize = 255;

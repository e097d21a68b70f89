//! Faults: errors of a client, in RabbitMQ's words.
//!
//! A soft fault closes the channel, a hard one the connection. Each text has its constructor, and is the text of RabbitMQ
//! 3.10.8.

use std::{fmt, time::Duration};

use crate::wire::ReplyCode;

/// A refused operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) is_hard: bool,
    pub(crate) code: ReplyCode,
    pub(crate) text: String,
    /// The refused method; (0, 0) if there was none.
    pub(crate) class_id: u16,
    pub(crate) method_id: u16,
    is_of_frame: bool,
    /// Whether RabbitMQ closes the socket without a word.
    pub(crate) is_silent: bool,
}

impl Fault {
    fn soft(code: ReplyCode, text: impl Into<String>) -> Self {
        Self {
            is_hard: false,
            code,
            text: text.into(),
            class_id: 0,
            method_id: 0,
            is_of_frame: false,
            is_silent: false,
        }
    }

    fn hard(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { is_hard: true, ..Self::soft(code, text) }
    }

    /// Names the refused method.
    pub(crate) fn at(mut self, (class_id, method_id): (u16, u16)) -> Self {
        (self.class_id, self.method_id) = (class_id, method_id);
        self
    }

    /// Names the refused method, unless the fault names one already.
    pub(crate) fn at_unless_set(self, ids: (u16, u16)) -> Self {
        if (self.class_id, self.method_id) == (0, 0) && !self.is_of_frame { self.at(ids) } else { self }
    }

    /// Makes the fault close the connection, where there is no channel to close.
    pub(crate) const fn hardened(mut self) -> Self {
        self.is_hard = true;
        self
    }

    /// Marks a fault of the frame itself, which names no method.
    const fn of_frame(mut self) -> Self {
        self.is_of_frame = true;
        self
    }

    /// The `reply_text` that is sent, cut to the length of a short string.
    pub(crate) fn reply_text(&self) -> String {
        let mut text = match self.text.as_str() {
            "" => self.code.name().to_owned(),
            text => format!("{} - {text}", self.code.name()),
        };
        if text.len() > SHORT_STRING_MAX {
            let end = (0..=SHORT_STRING_MAX - 3).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("...");
        }
        text
    }

    pub(crate) fn no_queue(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    pub(crate) fn no_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    pub(crate) fn no_previous_queue() -> Self {
        Self::soft(ReplyCode::NotFound, "no previously declared queue")
    }

    pub(crate) fn locked(name: &str, vhost: &str) -> Self {
        Self::soft(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally \
                 declared on another connection or the exclusive property value does not match that of the original \
                 declaration."
            ),
        )
    }

    pub(crate) fn no_get_beside_single_active(kind: &str, queue: &str, vhost: &str) -> Self {
        Self::soft(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain access to locked queue '{queue}' in vhost '{vhost}'. basic.get operations are not \
                 supported by {kind} queues with single active consumer"
            ),
        )
    }

    pub(crate) fn quorum_delete(flag: &str, name: &str, vhost: &str) -> Self {
        Self::not_implemented(format!(
            "cannot delete queue '{name}' in vhost '{vhost}'. queue.delete operations with {flag} flag set are not \
             supported by quorum queues"
        ))
    }

    /// RabbitMQ's words for `max-queues` of a vhost.
    pub(crate) fn limit_reached(what: &str, name: &str, vhost: &str, max: usize) -> Self {
        Self::precondition(format!(
            "cannot declare {what} '{name}': {what} limit in vhost '{vhost}' ({max}) is reached"
        ))
    }

    /// RabbitMQ's words for `consumer_max_per_channel`.
    pub(crate) fn too_many_consumers(max: usize) -> Self {
        Self::not_allowed(format!("reached maximum ({max}) of consumers per channel"))
    }

    /// RabbitMQ 4.3 does not say the limit.
    pub(crate) fn overdue(channel: u16, limit: Option<Duration>) -> Self {
        let milliseconds = limit.map_or_else(|| "-1".to_owned(), |limit| limit.as_millis().to_string());
        Self::precondition(format!(
            "delivery acknowledgement on channel {channel} timed out. Timeout value used: {milliseconds} ms. This \
             timeout value can be configured, see consumers doc guide to learn more"
        ))
    }

    pub(crate) fn precondition(text: impl Into<String>) -> Self {
        Self::soft(ReplyCode::PreconditionFailed, text)
    }

    pub(crate) fn inequivalent(
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

    pub(crate) fn invalid_argument(argument: &str, queue: &str, vhost: &str, why: &str) -> Self {
        Self::precondition(format!("invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}': {why}"))
    }

    /// An argument that exists, but not for this type of queue.
    pub(crate) fn argument_of_other_type(argument: &str, queue: &str, vhost: &str, module: &str) -> Self {
        Self::precondition(format!(
            "invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}' of queue type {module}"
        ))
    }

    pub(crate) fn invalid_argument_type(kind: &str, argument: &str, what: &str, name: &str, vhost: &str) -> Self {
        Self::precondition(format!("invalid type '{kind}' for arg '{argument}' in {what} '{name}' in vhost '{vhost}'"))
    }

    pub(crate) fn invalid_property(property: &str, queue: &str, vhost: &str) -> Self {
        Self::precondition(format!("invalid property '{property}' for queue '{queue}' in vhost '{vhost}'"))
    }

    pub(crate) fn invalid_expiration(expiration: &str, why: &str) -> Self {
        Self::precondition(format!("invalid expiration '{expiration}': {why}"))
    }

    pub(crate) fn unacceptable_header(header: &str, kind: &str) -> Self {
        Self::precondition(format!("invalid message: {{unacceptable_type_in_header,\"{header}\",{kind}}}"))
    }

    pub(crate) fn unknown_delivery_mode(mode: u8) -> Self {
        Self::precondition(format!("invalid message: {{delivery_mode_unknown,{mode}}}"))
    }

    pub(crate) fn wrong_user_id(user_id: &str, user: &str) -> Self {
        Self::precondition(format!("user_id property set to '{user_id}' but authenticated user was '{user}'"))
    }

    pub(crate) fn in_use(what: &str, name: &str, vhost: &str) -> Self {
        Self::precondition(format!("{what} '{name}' in vhost '{vhost}' in use"))
    }

    pub(crate) fn not_empty(queue: &str, vhost: &str) -> Self {
        Self::precondition(format!("queue '{queue}' in vhost '{vhost}' not empty"))
    }

    pub(crate) fn unknown_delivery_tag(delivery_tag: u64) -> Self {
        Self::precondition(format!("unknown delivery tag {delivery_tag}"))
    }

    /// `right` is empty where RabbitMQ does not name it.
    pub(crate) fn access_refused(right: &str, resource: &impl fmt::Display, user: &str, vhost: &str) -> Self {
        let space = if right.is_empty() { "" } else { " " };
        Self::soft(
            ReplyCode::AccessRefused,
            format!("{right}{space}access to {resource} in vhost '{vhost}' refused for user '{user}'"),
        )
    }

    pub(crate) fn vhost_refused(vhost: &str, user: &str) -> Self {
        Self::not_allowed(format!("access to vhost '{vhost}' refused for user '{user}'"))
    }

    pub(crate) fn reserved_name(what: &str, name: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
    }

    pub(crate) fn default_exchange() -> Self {
        Self::soft(ReplyCode::AccessRefused, "operation not permitted on the default exchange")
    }

    pub(crate) fn system_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(
            ReplyCode::AccessRefused,
            format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed"),
        )
    }

    pub(crate) fn internal_exchange(name: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("cannot publish to internal exchange '{name}' in vhost '{vhost}'"))
    }

    pub(crate) fn volatile_queue() -> Self {
        Self::soft(ReplyCode::AccessRefused, "cannot bind or unbind to a volatile (direct reply-to) queue")
    }

    pub(crate) fn exclusive_use(queue: &str, vhost: &str) -> Self {
        Self::soft(ReplyCode::AccessRefused, format!("queue '{queue}' in vhost '{vhost}' in exclusive use"))
    }

    pub(crate) fn message_too_large(body_size: u64, limit: u64) -> Self {
        Self::precondition(format!("message size {body_size} is larger than configured max size {limit}"))
    }

    pub(crate) fn authentication_refused(mechanism: &str) -> Self {
        Self::hard(
            ReplyCode::AccessRefused,
            format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            ),
        )
        .of_frame()
    }

    /// A method with an unknown number.
    pub(crate) fn unknown_method(class_id: u16, method_id: u16) -> Self {
        let text = format!("method {method_id} of class {class_id}");
        Self { is_silent: true, ..Self::not_implemented(text) }.at((class_id, method_id))
    }

    pub(crate) fn not_allowed(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::NotAllowed, text)
    }

    pub(crate) fn not_implemented(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::NotImplemented, text)
    }

    /// `noun` is RabbitMQ's for a stream.
    pub(crate) fn no_stream_method(method: &str, noun: &str, queue: &str, vhost: &str) -> Self {
        Self::not_implemented(format!("{method} not supported by {noun} '{queue}' in vhost '{vhost}'"))
    }

    /// `before` and `after` stand around the stream's name.
    pub(crate) fn no_prefetch([before, after]: [&str; 2], queue: &str, vhost: &str) -> Self {
        Self::precondition(format!(
            "consumer prefetch count is not set for {before} '{queue}' in vhost '{vhost}'{after}"
        ))
    }

    pub(crate) fn no_global_qos(queue: &str, vhost: &str) -> Self {
        Self::not_implemented(format!("queue '{queue}' in vhost '{vhost}' does not support global qos"))
    }

    pub(crate) fn too_many_channels(open: usize, max: u16) -> Self {
        let text = format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
        Self::not_allowed(text).of_frame()
    }

    pub(crate) fn unknown_exchange_type(kind: &str, is_hard: bool) -> Self {
        // RabbitMQ says "invalid" for a word that its process already knows, and "unknown" for any other.
        let adjective = if kind.is_empty() { "invalid" } else { "unknown" };
        let text = format!("{adjective} exchange type '{kind}'");
        if is_hard { Self::hard(ReplyCode::CommandInvalid, text) } else { Self::precondition(text) }
    }

    /// A method that only servers send, or that belongs on another channel.
    pub(crate) fn unimplemented_method() -> Self {
        Self::hard(ReplyCode::CommandInvalid, "unimplemented method")
    }

    /// A method that does not belong on channel 0, or not at this stage.
    pub(crate) fn unexpected_method(connection_state: &str) -> Self {
        Self::channel_error(format!("unexpected method in connection state {connection_state}"))
    }

    pub(crate) fn second_channel_open() -> Self {
        Self::channel_error("second 'channel.open' seen")
    }

    pub(crate) fn channel_error(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::ChannelError, text)
    }

    pub(crate) fn expected_method() -> Self {
        let text = "expected method frame, got non method frame instead";
        Self::hard(ReplyCode::UnexpectedFrame, text).of_frame()
    }

    pub(crate) fn expected_header(instead: &str) -> Self {
        let text = format!("expected content header for class 60, got {instead} instead");
        Self::hard(ReplyCode::UnexpectedFrame, text)
    }

    pub(crate) fn expected_body() -> Self {
        let text = "expected content body, got non content body frame instead";
        Self::hard(ReplyCode::UnexpectedFrame, text)
    }

    pub(crate) fn unexpected_kind(kind: u8, payload: &[u8]) -> Self {
        Self::hard(ReplyCode::UnexpectedFrame, frame_text(kind, payload)).of_frame()
    }

    pub(crate) fn unknown_frame(kind: u8, payload: &[u8]) -> Self {
        Self::frame_error(format!("{}: unknown_frame", frame_text(kind, payload)))
    }

    pub(crate) fn frame_too_large(kind: u8, payload_bytes: u32, limit_bytes: u32) -> Self {
        let text = frame_text(kind, &[]);
        Self::frame_error(format!("{text}: {{frame_too_large,{payload_bytes},{limit_bytes}}}"))
    }

    pub(crate) fn bad_frame_end(kind: u8, payload: &[u8], end: u8) -> Self {
        let text = frame_text(kind, payload);
        let why = erlang_pair(text.len() + 2, "invalid_frame_end_marker", &end.to_string());
        Self::frame_error(format!("{text}: {why}"))
    }

    /// RabbitMQ 4's words. RabbitMQ 3.10 says nothing.
    pub(crate) fn body_too_long() -> Self {
        Self::frame_error("content body frame exceeds remaining content size".to_owned())
    }

    /// A body that no limit allows.
    pub(crate) fn announced_too_large(body_size: u64, max: u64) -> Self {
        Self::frame_error(format!("content body size {body_size} exceeds maximum allowed size {max}"))
    }

    /// A mistake that makes RabbitMQ fail.
    pub(crate) fn internal_error() -> Self {
        Self::hard(ReplyCode::InternalError, "").of_frame()
    }

    /// A commit of a message to a queue that was deleted meanwhile.
    pub(crate) fn undelivered(queue: &str, vhost: &str) -> Self {
        let resource = format!("{{resource,<<\"{vhost}\">>,queue,<<\"{queue}\">>}}");
        let before = "failed to deliver message: ";
        let is_one_line = before.len() + "{not_found,}".len() + resource.len() < ERLANG_COLUMNS;
        // Erlang indents what a tagged tuple has no room for.
        let space = if is_one_line { String::new() } else { format!("\n{:1$}", "", before.len() + 4) };
        Self::hard(ReplyCode::ResourceError, format!("{before}{{not_found,{space}{resource}}}"))
    }

    /// Arguments of a known method that cannot be decoded.
    pub(crate) fn undecodable(arguments: &[u8]) -> Self {
        // RabbitMQ prints these bytes as numbers even if they are readable text. More would be cut off.
        let shown = &arguments[..arguments.len().min(SHORT_STRING_MAX)];
        Self::hard(ReplyCode::FrameError, format!("cannot decode <<{}>>", erlang_numbers(shown)))
    }

    /// A name that is not UTF-8, in any method except `basic.publish`.
    pub(crate) fn malformed_utf8() -> Self {
        Self::frame_error("Malformed UTF-8 in shortstr".to_owned())
    }

    pub(crate) fn connection_forced(text: impl Into<String>) -> Self {
        Self::hard(ReplyCode::ConnectionForced, text).of_frame()
    }

    fn frame_error(text: String) -> Self {
        Self::hard(ReplyCode::FrameError, text).of_frame()
    }
}

/// RabbitMQ's noun for a stream in most refusals.
pub(crate) const STREAMS: &str = "stream queues queue";

/// A frame in RabbitMQ's words, with only the start of a long payload.
fn frame_text(kind: u8, payload: &[u8]) -> String {
    let shown = &payload[..payload.len().min(FRAME_TEXT_MAX_BYTES)];
    let extent = match payload.len() > shown.len() {
        true => format!("first {FRAME_TEXT_MAX_BYTES}"),
        false => "all".to_owned(),
    };
    format!("type {kind}, {extent} octets = {}", erlang_binary(shown))
}

/// Bytes as Erlang prints them: quoted text if all of them are printable, otherwise numbers.
fn erlang_binary(bytes: &[u8]) -> String {
    let is_text = !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if is_text {
        let text = String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"");
        return format!("<<\"{text}\">>");
    }
    format!("<<{}>>", erlang_numbers(bytes))
}

fn erlang_numbers(bytes: &[u8]) -> String {
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    numbers.join(",")
}

/// `{name,value}` as Erlang prints it after `column` other characters: on two lines if one would be too long.
pub(crate) fn erlang_pair(column: usize, name: &str, value: &str) -> String {
    if column + name.len() + value.len() + 3 < ERLANG_COLUMNS - 1 {
        return format!("{{{name},{value}}}");
    }
    format!("{{{name},\n{:indent$}{value}}}", "", indent = column + 1)
}

/// Payload bytes shown in a fault's text.
const FRAME_TEXT_MAX_BYTES: usize = 16;
const ERLANG_COLUMNS: usize = 80;
const SHORT_STRING_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_described_as_erlang_prints_them() {
        let text = |fault: Fault| fault.reply_text();
        assert_eq!(
            text(Fault::bad_frame_end(1, &[0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0], 0)),
            "FRAME_ERROR - type 1, all octets = <<0,50,0,10,0,0,0,0,0,0,0,0>>: {invalid_frame_end_marker,\n\
             \x20                                                    0}"
        );
        assert_eq!(
            text(Fault::bad_frame_end(3, b"hello", 1)),
            "FRAME_ERROR - type 3, all octets = <<\"hello\">>: {invalid_frame_end_marker,1}"
        );
        assert_eq!(
            text(Fault::unknown_frame(2, &[7; 17])),
            "FRAME_ERROR - type 2, first 16 octets = <<7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7>>: unknown_frame"
        );
        assert_eq!(
            text(Fault::frame_too_large(3, 5_000, 4_088)),
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,5000,4088}"
        );
        assert_eq!(text(Fault::undecodable(&[0, 9])), "FRAME_ERROR - cannot decode <<0,9>>");
    }

    #[test]
    fn long_texts_are_cut_to_a_short_string() {
        let text = Fault::no_queue(&"ü".repeat(127), "/").reply_text();
        assert!(text.len() <= SHORT_STRING_MAX && text.ends_with("ü..."), "{text}");
    }
}

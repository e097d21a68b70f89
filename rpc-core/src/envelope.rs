//! Requests and replies <-> AMQP properties, both ways. Pure.
//!
//! The wire contract, version 1. Status is in `type` and headers, data is in the body.
//!
//! ```text
//!  request  (content_type), correlation_id, reply_to, (type = rpc.call) | rpc.oneway, expiration
//!           headers: rpc-deadline, rpc-attempt when above 1, rpc-version when not 1, rpc-depth and
//!                    rpc-within-retry of nested calls, the caller's own
//!  reply    (content_type), correlation_id (copied), (type = rpc.ok) | rpc.error
//!           rpc.error adds the headers rpc-code, rpc-message, rpc-retryable; of a code that this version does not
//!           know it may have rpc-executed and rpc-retry-after-ms, too; of a service's own error rpc-error-code and
//!           rpc-retry-after-ms
//! ```
//!
//! Service and method are the routing key's words. A foreign request needs only a body, `reply_to` and
//! `correlation_id`; a foreign reply without `type` is an `rpc.ok`.
//!
//! Properties in parentheses are defaults; our own client and worker omit them, because each costs both ends an allocation
//! and RabbitMQ a little, together a tenth of a small call. Foreign programs receive all of them.

mod code;
mod details;
mod ping;

use std::{borrow::Cow, time::Duration};

pub(crate) use self::{
    code::Code,
    details::{error_details, service_error_properties},
    ping::{POOL_HEADER, ping_properties, pong_properties, silent_ping_properties},
};
use crate::{
    call_error::{CallError, OtherError, TimeoutStage},
    codec::Codec,
    connection::amqp::{HeaderValue, PERSISTENT, Properties},
    printable::printable,
    service::{MethodDescriptor, ServiceDescriptor},
    topology,
};

/// `type` of a request whose caller waits for a reply.
pub(crate) const CALL: &str = "rpc.call";
/// `type` of a request without a reply.
pub(crate) const ONEWAY: &str = "rpc.oneway";
/// `type` of a message that cancels calls; its body holds their correlation_ids, one a line.
pub(crate) const CANCEL: &str = "rpc.cancel";
/// The most calls that one cancel message names; a worker ignores further lines.
pub(crate) const CANCELS_PER_MESSAGE_MAX: usize = 512;
/// `type` of a reply that carries the result.
pub(crate) const OK: &str = "rpc.ok";
/// `type` of a reply that carries an error.
pub(crate) const ERROR: &str = "rpc.error";

/// The version of this contract; absent on the wire means 1.
pub(crate) const WIRE_VERSION_HEADER: &str = "rpc-v";
/// The version of the service that the caller was built with; absent means 1.
pub(crate) const SERVICE_VERSION_HEADER: &str = "rpc-version";
/// Counts sends of the same logical call; absent means 1.
pub(crate) const ATTEMPT_HEADER: &str = "rpc-attempt";
/// True says that a handler makes this call whose own request is another attempt, or has this header.
pub(crate) const WITHIN_RETRY_HEADER: &str = "rpc-within-retry";
/// How many handlers wait for this call, each for the next one; absent means that it is not a handler's.
pub(crate) const DEPTH_HEADER: &str = "rpc-depth";
/// The error's [`Code`].
pub(crate) const CODE_HEADER: &str = "rpc-code";
/// The error's text, for people.
pub(crate) const MESSAGE_HEADER: &str = "rpc-message";
/// Whether trying again can help.
pub(crate) const RETRYABLE_HEADER: &str = "rpc-retryable";
/// The size of a result that was too large.
pub(crate) const BODY_BYTES_HEADER: &str = "rpc-body-bytes";
/// The largest message that the worker's broker takes, if it has said so.
pub(crate) const LIMIT_BYTES_HEADER: &str = "rpc-limit-bytes";
/// False says that the handler did not run. Only beside a code that is none of [`Code`].
pub(crate) const EXECUTED_HEADER: &str = "rpc-executed";
/// How long to wait before the next attempt. Only beside a code that is none of [`Code`], and of a service's own error.
pub(crate) const RETRY_AFTER_HEADER: &str = "rpc-retry-after-ms";

/// The options of one call that travel.
#[derive(Debug, Default, Clone)]
pub(crate) struct CallHeaders {
    pub(crate) priority: Option<u8>,
    pub(crate) headers: Vec<(Cow<'static, str>, HeaderValue)>,
}

impl CallHeaders {
    pub(crate) fn is_empty(&self) -> bool {
        self.priority.is_none() && self.headers.is_empty()
    }
}

/// The properties of a request whose caller waits for `correlation_id` in `reply_to`; `wait` says for how long, and until when in
/// Unix milliseconds.
#[inline]
pub(crate) fn call_properties<'a>(
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    correlation_id: &'a [u8],
    reply_to: &'a str,
    wait: Option<(Duration, i64)>,
    call: CallHeaders,
) -> Properties<'a> {
    let is_bare = service.queue.is_some();
    Properties {
        kind: is_bare.then_some(CALL),
        content_type: is_bare.then(|| service.codec.content_type()),
        correlation_id: Some(correlation_id.into()),
        reply_to: Some(reply_to.as_bytes()),
        expiration_ms: wait.map(|(budget, _)| whole_milliseconds(budget)),
        // The server of a bare queue is another program's.
        deadline_ms: wait.filter(|_| !is_bare).map(|(_, deadline_ms)| deadline_ms),
        ..request_properties(service, method, call)
    }
}

/// The properties of a one-way request, which is persistent.
pub(crate) fn oneway_properties(
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    message_id: String,
    call: CallHeaders,
) -> Properties<'static> {
    Properties {
        message_id: Some(message_id.into_bytes().into()),
        kind: Some(ONEWAY),
        content_type: Some(service.codec.content_type()),
        delivery_mode: Some(PERSISTENT),
        ..request_properties(service, method, call)
    }
}

/// The properties of a message that cancels calls whose `reply_to` is this one.
pub(crate) fn cancel_properties<'a>(reply_to: &'a str, user_id: Option<&'a str>) -> Properties<'a> {
    Properties {
        content_type: Some(Codec::Text.content_type()),
        kind: Some(CANCEL),
        reply_to: Some(reply_to.as_bytes()),
        user_id,
        ..Properties::default()
    }
}

fn request_properties<'a>(service: &ServiceDescriptor, method: &MethodDescriptor, call: CallHeaders) -> Properties<'a> {
    let mut headers = call.headers;
    if service.version != 1 {
        headers.push((SERVICE_VERSION_HEADER.into(), service.version.into()));
    }
    Properties { priority: call.priority.or(method.priority), headers, ..Properties::default() }
}

/// A version in a header of a request: absent, it is 1; `None` when the value is no whole number.
///
/// AMQP has no unsigned number of 64 bits that every broker and client library agrees on, so 2^64 - 1 arrives as -1. No version
/// is negative: the bits are read as they were meant.
pub(crate) fn version(header: Option<HeaderValue>) -> Option<u64> {
    match header {
        None => Some(1),
        Some(value) => value.as_i64().map(i64::cast_unsigned),
    }
}

/// Whether a request is another attempt of a call, or part of one.
pub(crate) fn is_retry(header: impl Fn(&str) -> Option<HeaderValue>) -> bool {
    header(ATTEMPT_HEADER).and_then(|attempt| attempt.as_i64()).is_some_and(|attempt| attempt > 1)
        || header(WITHIN_RETRY_HEADER).and_then(|value| value.as_bool()).unwrap_or(false)
}

/// Rounded up, at least 1: a message with `expiration` "0" expires unless a consumer takes it at once. At most 49 days, because
/// RabbitMQ closes the channel of a message with a larger one.
fn whole_milliseconds(budget: Duration) -> u64 {
    u64::try_from(budget.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).clamp(1, EXPIRATION_MAX_MS)
}

/// A header that a caller may not add: RabbitMQ takes it for further routing keys, and closes the channel of a message in which
/// it is no list.
pub(crate) fn is_reserved(header: &str) -> bool {
    matches!(header, "CC" | "BCC")
}

/// RabbitMQ: the largest `expiration` of a message.
const EXPIRATION_MAX_MS: u64 = u32::MAX as u64;

/// Whether a reply omits the properties that have their default value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Omits them: the request is one of our own client, without a `content_type`.
    Terse,
    /// Has them all: the caller may be a foreign program.
    Explicit,
}

impl Manner {
    /// The manner of the reply to a request with these properties.
    pub(crate) fn towards(content_type: Option<&str>, reply_to: &[u8]) -> Self {
        if content_type.is_none() && topology::is_reply_queue(reply_to) { Self::Terse } else { Self::Explicit }
    }
}

/// The properties of a reply that carries a result.
pub(crate) fn ok_properties(manner: Manner, codec: Codec, correlation_id: Option<&[u8]>) -> Properties<'_> {
    let is_explicit = manner == Manner::Explicit;
    Properties {
        content_type: is_explicit.then(|| codec.content_type()),
        kind: is_explicit.then_some(OK),
        correlation_id: correlation_id.map(Cow::Borrowed),
        ..Properties::default()
    }
}

/// The properties of a reply that carries an error of ours. Its body is empty, so it has no `content_type`, whoever reads it.
pub(crate) fn error_properties<'a>(correlation_id: Option<&'a [u8]>, code: Code, message: &str) -> Properties<'a> {
    named_error_properties(correlation_id, code.name(), code.is_retryable(), message)
}

/// The properties of a reply that carries an error of a layer.
pub(crate) fn other_error_properties<'a>(correlation_id: Option<&'a [u8]>, error: &OtherError) -> Properties<'a> {
    let OtherError { code, message, maybe_executed, retryable, retry_after } = error;
    let code = beginning(code, CODE_MAX_BYTES);
    let mut properties = named_error_properties(correlation_id, code, *retryable, message);
    if !maybe_executed {
        properties.headers.push((Cow::Borrowed(EXECUTED_HEADER), false.into()));
    }
    properties.headers.extend(retry_after.map(details::retry_after_header));
    properties
}

fn named_error_properties<'a>(
    correlation_id: Option<&'a [u8]>,
    code: &str,
    is_retryable: bool,
    message: &str,
) -> Properties<'a> {
    let mut headers =
        vec![(Cow::Borrowed(CODE_HEADER), code.into()), (Cow::Borrowed(RETRYABLE_HEADER), is_retryable.into())];
    if !message.is_empty() {
        headers.push((Cow::Borrowed(MESSAGE_HEADER), beginning(message, MESSAGE_MAX_BYTES).into()));
    }
    Properties {
        kind: Some(ERROR),
        correlation_id: correlation_id.map(Cow::Borrowed),
        headers,
        ..Properties::default()
    }
}

/// The first `bytes_max` bytes of `text`, without a character cut in half.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}

/// The most bytes of an error's text: it travels in the content header, which must fit one frame of at least 4,096 bytes.
const MESSAGE_MAX_BYTES: usize = 2_048;

/// The most bytes of a layer's code.
pub(crate) const CODE_MAX_BYTES: usize = 255;

/// How a call ended, by the properties of its reply.
#[derive(Debug)]
pub(crate) enum ReplyStatus {
    /// The body is the result.
    Ok,
    /// The body is the service's error.
    Service,
    /// The body is empty.
    Failed(CallError),
}

/// The status of a reply to a call of `method`; `header` looks a header up, `budget` is the call's whole one.
#[inline]
pub(crate) fn reply_status(
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    kind: Option<&str>,
    header: impl Fn(&str) -> Option<HeaderValue>,
    budget: Duration,
) -> ReplyStatus {
    match kind {
        None | Some(OK) => ReplyStatus::Ok,
        Some(ERROR) => error_status(service.name, method.name, header, budget),
        Some(other) => {
            let message = format!("its type is '{}', neither '{OK}' nor '{ERROR}'", printable(other));
            ReplyStatus::Failed(CallError::bad_reply(service.name, method.name, message))
        }
    }
}

/// The status of an `rpc.error`.
#[cold]
fn error_status(
    service: &'static str,
    method: &'static str,
    header: impl Fn(&str) -> Option<HeaderValue>,
    budget: Duration,
) -> ReplyStatus {
    let Some(HeaderValue::Text(code)) = header(CODE_HEADER) else {
        let message = format!("its type is '{ERROR}', and it has no text in the header {CODE_HEADER}");
        return ReplyStatus::Failed(CallError::bad_reply(service, method, message));
    };
    let message = match header(MESSAGE_HEADER) {
        Some(HeaderValue::Text(message)) => printable(&message).up_to(MESSAGE_MAX_BYTES).to_string(),
        _ => String::new(),
    };
    ReplyStatus::Failed(match Code::from_name(&code) {
        Some(Code::Service) => return ReplyStatus::Service,
        Some(Code::NoSuchMethod) => CallError::no_such_method(service, method, message),
        Some(Code::BadRequest) => CallError::bad_request(service, method, message),
        Some(Code::BadVersion) => CallError::bad_version(service, method, message),
        Some(Code::Overloaded) => CallError::overloaded(service, method, message),
        Some(Code::Timeout) => CallError::timeout(service, method, TimeoutStage::Running, budget),
        Some(Code::Internal) => CallError::internal(service, method, message),
        Some(Code::Abandoned) => CallError::abandoned(service, method, message),
        Some(Code::Forbidden) => {
            CallError::other(service, method, OtherError::new(code, message).maybe_executed(false))
        }
        Some(Code::PayloadTooLarge) => {
            let size = |name| header(name).and_then(|value| value.as_i64()).and_then(|bytes| bytes.try_into().ok());
            let (body_bytes, limit_bytes) = (size(BODY_BYTES_HEADER), size(LIMIT_BYTES_HEADER));
            CallError::result_too_large(service, method, body_bytes.unwrap_or(0), limit_bytes.unwrap_or(0))
        }
        None => {
            let flag = |name| header(name).and_then(|value| value.as_bool());
            let mut error = OtherError::new(printable(&code).to_string(), message)
                .maybe_executed(flag(EXECUTED_HEADER).unwrap_or(true))
                .retryable(flag(RETRYABLE_HEADER).unwrap_or(false));
            error.retry_after = details::retry_after(header);
            CallError::other(service, method, error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: MethodDescriptor = MethodDescriptor::new("fib", "fibonacci.fib");
    const SERVICE: ServiceDescriptor = ServiceDescriptor {
        name: "fibonacci",
        version: 1,
        queue: None,
        codec: Codec::MessagePack,
        max_length: None,
        max_depth: Codec::MAX_DEPTH,
        methods: &[METHOD],
    };

    fn status_of(properties: &Properties<'_>) -> ReplyStatus {
        reply_status(
            &SERVICE,
            &METHOD,
            properties.kind,
            |name| properties.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()),
            Duration::from_secs(1),
        )
    }

    #[test]
    fn a_plain_request_omits_properties_that_have_their_default() {
        let wait = Some((Duration::from_micros(1_500), 9));
        let to = |service| call_properties(service, &METHOD, b"7", "rpc.reply.x.1", wait, CallHeaders::default());
        let properties = to(&SERVICE);
        let expected = Properties {
            correlation_id: Some(b"7".into()),
            reply_to: Some(b"rpc.reply.x.1"),
            expiration_ms: Some(2),
            deadline_ms: Some(9),
            ..Properties::default()
        };
        assert_eq!(properties, expected);
        let bare = ServiceDescriptor { queue: Some("rpc_queue"), codec: Codec::Text, ..SERVICE };
        let properties = to(&bare);
        assert_eq!(
            (properties.content_type, properties.kind),
            (Some("text/plain"), Some(CALL)),
            "a foreign server receives them"
        );
    }

    #[test]
    fn only_our_own_terse_requests_get_terse_replies() {
        let ours = topology::reply_queue(Some("guest"), uuid::Uuid::nil(), 1);
        assert_eq!(Manner::towards(None, ours.as_bytes()), Manner::Terse);
        for (content_type, reply_to) in [(Some("application/json"), &*ours), (None, "amq.gen-x"), (None, "rpc.replies")]
        {
            assert_eq!(
                Manner::towards(content_type, reply_to.as_bytes()),
                Manner::Explicit,
                "{content_type:?} {reply_to}"
            );
        }
        let terse = ok_properties(Manner::Terse, Codec::MessagePack, Some(b"1"));
        assert_eq!((terse.content_type, terse.kind), (None, None));
        assert!(matches!(status_of(&terse), ReplyStatus::Ok));
        let explicit = ok_properties(Manner::Explicit, Codec::Json, Some(b"1"));
        assert_eq!((explicit.content_type, explicit.kind), (Some("application/json"), Some(OK)));
    }

    #[test]
    fn a_spent_budget_still_asks_for_one_millisecond() {
        assert_eq!(whole_milliseconds(Duration::ZERO), 1);
        assert_eq!(whole_milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(whole_milliseconds(Duration::from_millis(1_000)), 1_000);
        assert_eq!(whole_milliseconds(Duration::from_secs(100 * 24 * 60 * 60)), 4_294_967_295);
        assert_eq!(whole_milliseconds(Duration::MAX), 4_294_967_295);
    }

    #[test]
    fn a_oneway_request_is_persistent_and_has_a_message_id() {
        let call = CallHeaders { priority: Some(3), ..CallHeaders::default() };
        let properties = oneway_properties(&SERVICE, &METHOD, "mine".to_owned(), call);
        assert_eq!(properties.message_id.as_deref(), Some(&b"mine"[..]));
        assert_eq!((properties.delivery_mode, properties.priority, properties.reply_to), (Some(2), Some(3), None));
    }

    #[test]
    fn every_error_code_survives_the_round_trip() {
        for code in Code::ALL {
            let properties = error_properties(Some(b"9"), code, "why");
            assert_eq!(properties.correlation_id.as_deref(), Some(&b"9"[..]));
            match status_of(&properties) {
                ReplyStatus::Service => assert_eq!(code, Code::Service),
                ReplyStatus::Failed(error) => {
                    assert_eq!(error.code(), code.name());
                    assert_eq!(error.is_retryable(), code.is_retryable());
                }
                ReplyStatus::Ok => panic!("{code:?} became a result"),
            }
        }
    }

    #[test]
    fn an_error_without_data_has_no_content_type() {
        assert_eq!(error_properties(None, Code::Internal, "why").content_type, None);
    }

    #[test]
    fn a_version_is_absent_or_a_whole_number() {
        assert_eq!(version(None), Some(1));
        assert_eq!(version(Some(2.into())), Some(2));
        assert_eq!(version(Some((-1).into())), Some(u64::MAX), "2^64 - 1 has the same bits");
        assert_eq!(version(Some("2".into())), None);
        assert_eq!(version(Some(2.0.into())), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = format!("{}ö", "x".repeat(MESSAGE_MAX_BYTES - 1));
        let properties = error_properties(None, Code::Internal, &long);
        let ReplyStatus::Failed(CallError::Internal { message, .. }) = status_of(&properties) else { panic!() };
        assert_eq!(*message, long[..MESSAGE_MAX_BYTES - 1]);
        assert_eq!(beginning("", 5), "");
    }

    #[test]
    fn a_foreign_reply_without_type_is_a_result_and_an_unknown_type_is_not() {
        assert!(matches!(status_of(&Properties::default()), ReplyStatus::Ok));
        let strange = Properties { kind: Some("celery"), ..Properties::default() };
        assert!(matches!(status_of(&strange), ReplyStatus::Failed(CallError::BadReply { .. })));
        let codeless = Properties { kind: Some(ERROR), ..Properties::default() };
        assert!(matches!(status_of(&codeless), ReplyStatus::Failed(CallError::BadReply { .. })));
    }
    #[test]
    fn a_code_of_another_version_arrives_with_its_message_and_verdicts() {
        let status = |headers: &[(&'static str, HeaderValue)]| {
            let headers = headers.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())).collect();
            match status_of(&Properties { kind: Some(ERROR), headers, ..Properties::default() }) {
                ReplyStatus::Failed(error) => error,
                other => panic!("{other:?}"),
            }
        };
        let code = (CODE_HEADER, HeaderValue::from("quota_exceeded"));
        let bare = status(std::slice::from_ref(&code));
        assert_eq!((bare.code(), bare.maybe_executed(), bare.is_retryable()), ("quota_exceeded", true, false));
        let full = status(&[
            code.clone(),
            (MESSAGE_HEADER, "100 a day".into()),
            (EXECUTED_HEADER, false.into()),
            (RETRYABLE_HEADER, true.into()),
        ]);
        assert_eq!((full.code(), full.maybe_executed(), full.is_retryable()), ("quota_exceeded", false, true));
        assert_eq!(full.to_string(), "fibonacci.fib: quota_exceeded: 100 a day");
        let executed = status(&[code, (EXECUTED_HEADER, true.into())]);
        assert!(executed.maybe_executed());
        // A code of ours keeps its own verdict.
        let ours = status(&[(CODE_HEADER, "internal".into()), (EXECUTED_HEADER, false.into())]);
        assert!(ours.maybe_executed());
    }
}

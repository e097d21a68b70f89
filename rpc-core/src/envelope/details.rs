//! Details of a service's own error, beside its data: headers of an `rpc.error` with the code `service`. Pure.

use std::{borrow::Cow, time::Duration};

use super::{
    CODE_MAX_BYTES, Code, MESSAGE_HEADER, MESSAGE_MAX_BYTES, Manner, RETRY_AFTER_HEADER, RETRYABLE_HEADER, beginning,
    error_properties, named_error_properties, ok_properties,
};
use crate::{
    call_error::{ErrorDetails, is_code_of_framework},
    codec::Codec,
    connection::amqp::{HeaderValue, Properties},
    printable::printable,
};

/// The code of a service's own error. Only beside the code `service`.
pub(crate) const ERROR_CODE_HEADER: &str = "rpc-error-code";

/// The properties of a reply that carries the service's error.
pub(crate) fn service_error_properties<'a>(
    manner: Manner,
    codec: Codec,
    correlation_id: Option<&'a [u8]>,
    details: Option<&ErrorDetails>,
) -> Properties<'a> {
    let content_type = ok_properties(manner, codec, None).content_type;
    let properties = match details {
        None => error_properties(correlation_id, Code::Service, ""),
        Some(ErrorDetails { code, message, retryable, retry_after }) => {
            let name = Code::Service.name();
            let mut properties = named_error_properties(correlation_id, name, *retryable, message);
            let code = beginning(code, CODE_MAX_BYTES);
            properties.headers.push((Cow::Borrowed(ERROR_CODE_HEADER), code.into()));
            properties.headers.extend(retry_after.map(retry_after_header));
            properties
        }
    };
    Properties { content_type, ..properties }
}

pub(super) fn retry_after_header(retry_after: Duration) -> (Cow<'static, str>, HeaderValue) {
    let ms = i64::try_from(retry_after.as_millis()).unwrap_or(i64::MAX);
    (Cow::Borrowed(RETRY_AFTER_HEADER), ms.into())
}

pub(super) fn retry_after(header: impl Fn(&str) -> Option<HeaderValue>) -> Option<Duration> {
    let ms = header(RETRY_AFTER_HEADER)?.as_i64()?;
    Some(Duration::from_millis(ms.try_into().ok()?))
}

/// The details of a service's error; `None` when its headers have none.
///
/// A code of the framework's there would be taken for that of the call, so it does not count.
pub(crate) fn error_details(header: impl Fn(&str) -> Option<HeaderValue>) -> Option<Box<ErrorDetails>> {
    let code = match header(ERROR_CODE_HEADER) {
        Some(HeaderValue::Text(code)) if !code.is_empty() && !is_code_of_framework(&code) => Some(code),
        _ => None,
    };
    let retryable = header(RETRYABLE_HEADER).and_then(|value| value.as_bool()).unwrap_or(false);
    if code.is_none() && !retryable {
        return None;
    }
    let message = match header(MESSAGE_HEADER) {
        Some(HeaderValue::Text(message)) => printable(&message).up_to(MESSAGE_MAX_BYTES).to_string(),
        _ => String::new(),
    };
    let code = code.map_or_else(|| Code::Service.name().to_owned(), |code| printable(&code).to_string());
    let details = ErrorDetails::new(code, message).retryable(retryable);
    Some(Box::new(ErrorDetails { retry_after: retry_after(header), ..details }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{CODE_HEADER, ERROR};

    fn headers(details: Option<&ErrorDetails>) -> Vec<(Cow<'static, str>, HeaderValue)> {
        service_error_properties(Manner::Terse, Codec::MessagePack, None, details).headers
    }

    fn read(headers: &[(Cow<'static, str>, HeaderValue)]) -> Option<ErrorDetails> {
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        error_details(header).map(|details| *details)
    }

    fn text(value: &str) -> HeaderValue {
        HeaderValue::from(value)
    }

    #[test]
    fn an_error_that_says_nothing_of_itself_has_the_two_headers_of_before() {
        let plain = [(Cow::Borrowed(CODE_HEADER), text("service")), (Cow::Borrowed(RETRYABLE_HEADER), false.into())];
        assert_eq!(headers(None), plain);
        assert_eq!(read(&plain), None);
        let properties = service_error_properties(Manner::Explicit, Codec::Json, Some(b"1"), None);
        assert_eq!((properties.content_type, properties.kind), (Some("application/json"), Some(ERROR)));
        assert_eq!(properties.correlation_id.as_deref(), Some(&b"1"[..]));
        assert_eq!(service_error_properties(Manner::Terse, Codec::Json, None, None).content_type, None);
    }

    #[test]
    fn details_survive_the_round_trip() {
        let busy = ErrorDetails::new("busy", "later").retry_after(Duration::from_millis(1_500));
        for details in [ErrorDetails::new("too_few", "only 1 left"), ErrorDetails::new("a", "").retryable(true), busy] {
            let headers = headers(Some(&details));
            assert_eq!(headers[0], (Cow::Borrowed(CODE_HEADER), text("service")), "older callers decode the body");
            assert_eq!(read(&headers), Some(details));
        }
    }

    #[test]
    fn what_a_peer_says_amiss_does_not_count() {
        let with = |name: &'static str, value: HeaderValue| [(Cow::Borrowed(name), value)];
        for amiss in [text("timeout"), text("ok"), text(""), 7.into()] {
            assert_eq!(read(&with(ERROR_CODE_HEADER, amiss)), None);
        }
        assert_eq!(read(&with(RETRYABLE_HEADER, true.into())), Some(ErrorDetails::new("service", "").retryable(true)));
        let negative = [with(ERROR_CODE_HEADER, text("a\nb")), with(RETRY_AFTER_HEADER, (-1).into())].concat();
        assert_eq!(read(&negative), Some(ErrorDetails::new("a\\nb", "")));
        let long = "x".repeat(CODE_MAX_BYTES + 1);
        let details = read(&with(ERROR_CODE_HEADER, text(&long))).unwrap();
        assert!(details.code.len() <= CODE_MAX_BYTES + '…'.len_utf8(), "{}", details.code.len());
        assert!(headers(Some(&ErrorDetails::new(long, ""))).iter().any(|(name, value)| {
            name == ERROR_CODE_HEADER && value.as_str().is_some_and(|code| code.len() == CODE_MAX_BYTES)
        }));
    }
}

//! W3C's trace context and baggage <-> OpenTelemetry's context. Pure.
//!
//! <https://www.w3.org/TR/trace-context/>, <https://www.w3.org/TR/baggage/>. A value that cannot be read counts as absent, as both ask for.

use std::{borrow::Cow, str::FromStr};

use opentelemetry::{
    Context,
    baggage::{BaggageExt, KeyValueMetadata},
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::super::headers::{self, Headers};
use crate::{
    connection::amqp::HeaderValue,
    forward::{BAGGAGE, TRACE_PARENT, TRACE_STATE},
};

/// The headers of a context: none of them if it is empty.
pub(super) fn write(context: &Context) -> Headers {
    let mut headers = Headers::new();
    let mut push = |name, value: String| headers.push((Cow::Borrowed(name), HeaderValue::Text(value)));
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() {
        // The other flags are not for us to set.
        let flags = span.trace_flags() & TraceFlags::SAMPLED;
        push(TRACE_PARENT, format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()));
        let state = span.trace_state().header();
        if !state.is_empty() {
            push(TRACE_STATE, state);
        }
    }
    let baggage = write_baggage(context);
    if !baggage.is_empty() {
        push(BAGGAGE, baggage);
    }
    headers
}

fn write_baggage(context: &Context) -> String {
    let entries = context.baggage().iter().map(|(key, (value, metadata))| {
        let value = utf8_percent_encode(value.as_str(), NOT_IN_BAGGAGE);
        match metadata.as_str() {
            "" => format!("{key}={value}"),
            metadata => format!("{key}={value};{metadata}"),
        }
    });
    entries.collect::<Vec<_>>().join(",")
}

/// The context of a request; `None` when it carries none.
pub(super) fn read(headers: &Headers) -> Option<Context> {
    let text = |name| headers::get(headers, name).and_then(text);
    let span = text(TRACE_PARENT).and_then(|parent| {
        let state = text(TRACE_STATE).and_then(|state| TraceState::from_str(state).ok());
        read_parent(parent, state.unwrap_or_default())
    });
    let baggage = text(BAGGAGE).map(read_baggage).unwrap_or_default();
    if span.is_none() && baggage.is_empty() {
        return None;
    }
    let context = Context::new();
    let context = if baggage.is_empty() { context } else { context.with_baggage(baggage) };
    Some(match span {
        Some(span) => context.with_remote_span_context(span),
        None => context,
    })
}

/// A long string, or, from clients that write it so, an array of bytes. AMQP 0-9-1's short string has no type that brokers agree on.
fn text(value: &HeaderValue) -> Option<&str> {
    match value {
        HeaderValue::Text(text) => Some(text),
        HeaderValue::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn read_parent(parent: &str, state: TraceState) -> Option<SpanContext> {
    let mut fields = parent.trim().split('-');
    let mut field = |digits: usize| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        fields.next().filter(|field| field.len() == digits && field.bytes().all(is_digit))
    };
    let version = field(2).filter(|version| *version != "ff")?;
    let (trace_id, span_id, flags) = (field(32)?, field(16)?, field(2)?);
    // Later versions may append fields.
    if version == "00" && fields.next().is_some() {
        return None;
    }
    let trace_id = TraceId::from_hex(trace_id).ok()?;
    let span_id = SpanId::from_hex(span_id).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace_id, span_id, flags, true, state)).filter(SpanContext::is_valid)
}

fn read_baggage(baggage: &str) -> Vec<KeyValueMetadata> {
    let entries = baggage.split(',').filter_map(|entry| {
        let (pair, metadata) = entry.split_once(';').unwrap_or((entry, ""));
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
        Some(KeyValueMetadata::new(key.trim().to_owned(), value, metadata.trim()))
    });
    entries.take(BAGGAGE_ENTRIES_MAX).collect()
}

/// All that is no `baggage-octet`, and the sign of an escape.
const NOT_IN_BAGGAGE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');
/// W3C Baggage §3.3.2: so many must be carried.
const BAGGAGE_ENTRIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(headers: &[(&'static str, &str)]) -> Headers {
        headers.iter().map(|(name, value)| (Cow::Borrowed(*name), (*value).into())).collect()
    }

    #[test]
    fn a_context_survives_the_round_trip() {
        let sent = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            ("baggage", "user=ad%C3%A1%2C%20%25;secret"),
        ]);
        let context = read(&sent).unwrap();
        assert!(context.span().span_context().is_remote());
        assert_eq!(context.baggage().get("user").unwrap().as_str(), "adá, %");
        assert_eq!(write(&context), sent);
        assert!(write(&Context::new()).is_empty());
        let baggage_alone = headers(&[("baggage", "a=1")]);
        assert_eq!(write(&read(&baggage_alone).unwrap()), baggage_alone);
    }

    #[test]
    fn a_parent_that_is_none_counts_as_absent() {
        let is_read = |parent: &str| read(&headers(&[("traceparent", parent), ("tracestate", "a=1")])).is_some();
        assert!(is_read(PARENT) && is_read(&format!("cc{}-what-comes-later", &PARENT[2..])));
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-é",
        ] {
            assert!(!is_read(wrong), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_read_as_text_and_wrong_states_and_entries_are_left_out() {
        let bytes: Headers = vec![("traceparent".into(), HeaderValue::from(PARENT.as_bytes()))];
        assert_eq!(write(&read(&bytes).unwrap()), headers(&[("traceparent", PARENT)]));
        let number: Headers = vec![("traceparent".into(), 7.into())];
        assert!(read(&number).is_none());
        let wrong = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "NOT A KEY=1"),
            ("baggage", "novalue,a=%FF,b = 2 ;x=y,"),
        ]);
        let expected = headers(&[("traceparent", PARENT), ("baggage", "b=2;x=y")]);
        assert_eq!(write(&read(&wrong).unwrap()), expected);
    }

    #[test]
    fn only_the_flag_of_sampling_is_passed_on() {
        let unsampled = PARENT.replace("-01", "-fe");
        let context = read(&headers(&[("traceparent", &unsampled)])).unwrap();
        assert!(!context.span().span_context().is_sampled());
        assert_eq!(write(&context), headers(&[("traceparent", &PARENT.replace("-01", "-00"))]));
    }
}

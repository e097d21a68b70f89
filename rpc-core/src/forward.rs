//! [`Forwarding`]: headers of a request that the calls of its handler carry on.
//!
//! ```text
//!  request ──of──► Forwarded ──budget::within──► nested call ──add_to──► its headers ──fit──► one frame
//! ```
//!
//! A header that the caller of the nested call sets itself is left as it is. A forwarded one is dropped, and counted, rather than
//! that a content header exceeds one frame, which no broker takes.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    connection::{Delivery, amqp::HeaderValue},
    envelope,
    layer::headers::{self, Headers},
};

/// The header of W3C's trace context.
pub(crate) const TRACE_PARENT: &str = "traceparent";
/// The part of it that belongs to vendors; without its parent it means nothing.
pub(crate) const TRACE_STATE: &str = "tracestate";
/// The header of W3C's baggage.
pub(crate) const BAGGAGE: &str = "baggage";

/// The three, those that matter least last.
pub(crate) const CONTEXT: [&str; 3] = [TRACE_PARENT, TRACE_STATE, BAGGAGE];

/// The names of the headers that a pool's handlers forward.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    names: Box<[Cow<'static, str>]>,
    /// How many headers had no room.
    dropped: AtomicU64,
}

impl Forwarding {
    pub(crate) fn new(names: impl IntoIterator<Item = Cow<'static, str>>) -> Self {
        let mut unique: Vec<Cow<'static, str>> = Vec::new();
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        Self { names: unique.into(), dropped: AtomicU64::new(0) }
    }

    /// The names of a pool that is told no others.
    pub(crate) fn default_names() -> Vec<Cow<'static, str>> {
        CONTEXT.map(Cow::Borrowed).into()
    }

    /// A name that cannot be forwarded.
    pub(crate) fn unfit<'a>(names: &'a [Cow<'static, str>]) -> Option<&'a str> {
        let is_unfit = |name: &str| name.is_empty() || headers::is_unfit(name) || envelope::is_reserved(name);
        names.iter().map(|name| &**name).find(|name| is_unfit(name))
    }

    /// The headers of a request that are forwarded, if it has any.
    pub(crate) fn of(self: &Arc<Self>, request: &Delivery) -> Option<Arc<Forwarded>> {
        self.some_of(|name| request.header(name))
    }

    /// The same of headers that layers may have changed. The trace context is that of `context` if there is one.
    pub(crate) fn of_headers(self: &Arc<Self>, headers: &Headers, context: Option<&Headers>) -> Option<Arc<Forwarded>> {
        self.some_of(|name| {
            let headers = context.filter(|_| CONTEXT.contains(&name)).unwrap_or(headers);
            headers::get(headers, name).cloned()
        })
    }

    fn some_of(self: &Arc<Self>, value: impl Fn(&str) -> Option<HeaderValue>) -> Option<Arc<Forwarded>> {
        let headers: Headers = self.names.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect();
        (!headers.is_empty()).then(|| Arc::new(Forwarded { headers, forwarding: Arc::clone(self) }))
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The headers of one request that its handler's calls carry on: those that are dropped first stand last.
#[derive(Debug)]
pub(crate) struct Forwarded {
    headers: Headers,
    forwarding: Arc<Forwarding>,
}

impl Forwarded {
    /// Adds them to the headers of a call, unless its caller has set them.
    pub(crate) fn add_to(&self, headers: &mut Headers) -> Inherited {
        let mut inherited = Inherited { names: Vec::new(), forwarding: Some(Arc::clone(&self.forwarding)) };
        let has_parent = headers::get(headers, TRACE_PARENT).is_some();
        for (name, value) in &self.headers {
            let is_of_another_parent = has_parent && name == TRACE_STATE;
            if headers::get(headers, name).is_none() && !is_of_another_parent {
                headers.push((name.clone(), value.clone()));
                inherited.names.push(name.clone());
            }
        }
        inherited
    }
}

/// The headers of a call that its caller has not set: they travel where there is room for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inherited {
    /// Those that are dropped first stand last.
    names: Vec<Cow<'static, str>>,
    /// The pool that counts those that are dropped.
    forwarding: Option<Arc<Forwarding>>,
}

impl Inherited {
    #[cfg(any(feature = "otel", test))]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Notes that somebody has set or removed this one.
    pub(crate) fn forget(&mut self, name: &str) {
        self.names.retain(|known| known != name);
    }

    /// Notes that one that is there is not the caller's.
    #[cfg(feature = "otel")]
    pub(crate) fn note(&mut self, name: &'static str) {
        self.names.push(Cow::Borrowed(name));
    }

    /// Drops as many of them as must be for all headers to fit one frame.
    pub(crate) fn fit(mut self, headers: &mut Headers, frame_max_bytes: usize) {
        let room_bytes = frame_max_bytes.saturating_sub(OTHERS_MAX_BYTES);
        let mut bytes = headers::encoded_bytes(headers);
        while bytes > room_bytes {
            let Some(name) = self.names.pop() else { return };
            let Some(at) = headers.iter().position(|(known, _)| *known == name) else { continue };
            let (_, value) = headers.remove(at);
            bytes -= name.len() + value.encoded_bytes();
            tracing::debug!(header = &*name, frame_max_bytes, "a header is not forwarded: it has no room in the frame");
            if let Some(forwarding) = &self.forwarding {
                forwarding.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The part of a request on its way through layers that few requests have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    /// In a client: those of the headers that the caller has not set.
    pub(crate) inherited: Inherited,
    /// In a pool: the trace context that the handler's calls carry on, unless it is the request's own.
    pub(crate) context: Option<Headers>,
}

/// The rest of a content header, our own headers included: `reply_to`, `message_id` and `user_id` may have 255 bytes each.
const OTHERS_MAX_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::NewDelivery;

    fn names(names: &[&'static str]) -> Vec<Cow<'static, str>> {
        names.iter().map(|name| Cow::Borrowed(*name)).collect()
    }

    fn forwarded(forwarding: &Arc<Forwarding>, headers: &[(&str, &str)]) -> Option<Arc<Forwarded>> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), HeaderValue::from(*value))).collect();
        forwarding.of(&NewDelivery { headers, ..NewDelivery::default() }.make().unwrap())
    }

    fn written(headers: &Headers) -> String {
        let texts = headers.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("?")));
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_listed_headers_go_on_and_the_callers_own_win() {
        let forwarding = Arc::new(Forwarding::new(Forwarding::default_names()));
        assert!(forwarded(&forwarding, &[("tenant", "blue")]).is_none());
        let incoming = [("baggage", "b"), ("tenant", "blue"), ("tracestate", "s"), ("traceparent", "p")];
        let forwarded = forwarded(&forwarding, &incoming).unwrap();
        let sent = |own: &[(&'static str, &str)]| {
            let mut headers = own.iter().map(|(name, value)| (Cow::Borrowed(*name), (*value).into())).collect();
            forwarded.add_to(&mut headers).fit(&mut headers, 4_096);
            written(&headers)
        };
        assert_eq!(sent(&[]), "traceparent=p tracestate=s baggage=b");
        assert_eq!(sent(&[("baggage", "own")]), "baggage=own traceparent=p tracestate=s");
        assert_eq!(sent(&[("traceparent", "own")]), "traceparent=own baggage=b", "a state belongs to its parent");
        assert_eq!(forwarding.dropped(), 0);
    }

    #[test]
    fn those_without_room_are_dropped_and_counted_the_last_ones_first() {
        let forwarding = Arc::new(Forwarding::new(Forwarding::default_names()));
        let long = "b".repeat(3_000);
        let forwarded = forwarded(&forwarding, &[("traceparent", "p"), ("tracestate", "s"), ("baggage", &long)]);
        let forwarded = forwarded.unwrap();
        let sent = |own_bytes: usize, frame_max| {
            let mut headers = vec![(Cow::Borrowed("own"), HeaderValue::from("x".repeat(own_bytes)))];
            forwarded.add_to(&mut headers).fit(&mut headers, frame_max);
            headers.into_iter().map(|(name, _)| name.into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sent(0, 131_072), "own traceparent tracestate baggage");
        assert_eq!((sent(0, 4_096), forwarding.dropped()), ("own traceparent tracestate baggage".to_owned(), 0));
        assert_eq!((sent(40, 4_096), forwarding.dropped()), ("own traceparent tracestate".to_owned(), 1));
        // Those of the caller are not ours to drop.
        assert_eq!((sent(4_000, 4_096), forwarding.dropped()), ("own".to_owned(), 4));
    }

    #[test]
    fn a_header_that_a_layer_has_set_is_no_longer_inherited() {
        let forwarding = Arc::new(Forwarding::new(names(&["a", "b", "a"])));
        let mut headers = Headers::new();
        let mut inherited = forwarded(&forwarding, &[("a", "1"), ("b", "2")]).unwrap().add_to(&mut headers);
        inherited.forget("b");
        assert!(inherited.has("a") && !inherited.has("b"));
        inherited.fit(&mut headers, 0);
        assert_eq!(written(&headers), "b=2");
        assert!(Arc::new(Forwarding::new([])).of_headers(&headers, None).is_none());
        assert!(forwarding.of_headers(&headers, None).is_some());
    }

    #[test]
    fn the_context_of_a_layer_replaces_that_of_the_request() {
        let forwarding = Arc::new(Forwarding::new(names(&["traceparent", "tracestate", "tenant"])));
        let headers = |headers: &[(&'static str, &str)]| -> Headers {
            headers.iter().map(|(name, value)| (Cow::Borrowed(*name), (*value).into())).collect()
        };
        let request = headers(&[("traceparent", "theirs"), ("tracestate", "theirs"), ("tenant", "blue")]);
        let context = headers(&[("traceparent", "ours"), ("baggage", "not listed")]);
        let mut sent = Headers::new();
        let _ = forwarding.of_headers(&request, Some(&context)).unwrap().add_to(&mut sent);
        assert_eq!(written(&sent), "traceparent=ours tenant=blue");
    }

    #[test]
    fn names_of_the_framework_and_of_the_broker_are_not_forwarded() {
        assert_eq!(Forwarding::unfit(&Forwarding::default_names()), None);
        for name in ["", "rpc-deadline", "x-death", "CC", "BCC"] {
            assert_eq!(Forwarding::unfit(&names(&["tenant", name])), Some(name));
        }
        let long = Cow::Owned("n".repeat(256));
        assert!(Forwarding::unfit(&[long]).is_some());
    }
}

use std::{collections::HashSet, error::Error as _, mem::discriminant};

use super::*;

#[derive(Debug, PartialEq, thiserror::Error)]
enum StoreError {
    #[error("the store is full")]
    Full,
    #[error("remote: {0}")]
    Remote(String),
}

impl ServiceError for StoreError {
    const CODES: &'static [&'static str] = &["full", "remote"];

    fn code(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Remote(_) => "remote",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Full).then_some(Duration::from_secs(2))
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        Self::Remote(error.code().to_owned())
    }
}

const SERVICE: &str = "store";
const METHOD: &str = "put";

fn timeout(stage: TimeoutStage) -> CallError<StoreError> {
    CallError::timeout(SERVICE, METHOD, stage, Duration::from_secs(1))
}

fn every_error() -> Vec<CallError<StoreError>> {
    let other = |error| CallError::other(SERVICE, METHOD, error);
    let unknown = |details| CallError::unknown_error(SERVICE, METHOD, UnknownError::new(details, &b"\"Frozen\""[..]));
    let refused = Error::Refused {
        operation: "declare queue 'rpc.reply.1'".to_owned(),
        reply_code: 403,
        reply_text: "ACCESS_REFUSED".to_owned(),
    };
    vec![
        CallError::service(SERVICE, METHOD, StoreError::Full),
        CallError::described(SERVICE, METHOD, StoreError::Full),
        CallError::described(SERVICE, METHOD, StoreError::Remote("no".to_owned())),
        unknown(ErrorDetails::new("frozen", "at -20 °C").retryable(true)),
        unknown(ErrorDetails::new("frozen", "")),
        CallError::no_such_service(SERVICE, METHOD, "no queue is bound with routing key 'store.put' (NO_ROUTE)"),
        CallError::unserved(SERVICE, METHOD, "no worker has been there for 2s", true),
        CallError::no_such_method(SERVICE, METHOD, "'store.put' names no method of this service"),
        CallError::bad_request(SERVICE, METHOD, "arguments: application/msgpack: missing field `n`"),
        CallError::bad_version(SERVICE, METHOD, "version 3 of 'store', this worker serves 2"),
        CallError::overloaded(SERVICE, METHOD, "the queue is full"),
        timeout(TimeoutStage::Connecting),
        timeout(TimeoutStage::Blocked),
        timeout(TimeoutStage::InFlightLimit),
        timeout(TimeoutStage::Layer),
        timeout(TimeoutStage::Unconfirmed),
        timeout(TimeoutStage::Running),
        timeout(TimeoutStage::Unknown),
        CallError::disconnected(SERVICE, METHOD, false),
        CallError::disconnected(SERVICE, METHOD, true),
        CallError::internal(SERVICE, METHOD, "the handler panicked: boom"),
        CallError::abandoned(SERVICE, METHOD, "delivered 21 times"),
        CallError::bad_reply(SERVICE, METHOD, "application/msgpack: more bytes follow the value"),
        CallError::payload_too_large(SERVICE, METHOD, 20, 10),
        CallError::result_too_large(SERVICE, METHOD, 20, 10),
        CallError::result_too_large(SERVICE, METHOD, 20, 0),
        CallError::shutdown(SERVICE, METHOD, false),
        CallError::shutdown(SERVICE, METHOD, true),
        CallError::topology(SERVICE, METHOD, refused),
        CallError::layer(SERVICE, METHOD, "the cache is down", false),
        CallError::layer(SERVICE, METHOD, "the cache is down", true),
        other(OtherError::new("quota_exceeded", "100 calls a day").maybe_executed(false).retryable(true)),
        other(OtherError::new("quota_exceeded", "")),
    ]
}

/// Every text as a reader sees it. `x` stands for "may have been executed", `r` for "retryable".
const TEXTS: &str = "\
x- service              store.put: the service returned an error: the store is full
xr full                 store.put: the service returned an error: the store is full
x- remote               store.put: the service returned an error: remote: no
xr frozen               store.put: the service returned an error that this program does not know: frozen: at -20 °C
x- frozen               store.put: the service returned an error that this program does not know: frozen
-r no_such_service      store.put: no such service: no queue is bound with routing key 'store.put' (NO_ROUTE); start a worker pool that serves it on this vhost
xr no_such_service      store.put: no such service: no worker has been there for 2s; start a worker pool that serves it on this vhost; the request may have been executed, or may be yet
-- no_such_method       store.put: no such method: 'store.put' names no method of this service; update the workers, or correct the name
-- bad_request          store.put: bad request: arguments: application/msgpack: missing field `n`
-- bad_version          store.put: bad version: version 3 of 'store', this worker serves 2; update the workers first
-r overloaded           store.put: overloaded: the queue is full; try again later
-r timeout              store.put: timed out after 1s (waiting for the connection; nothing was sent)
-r timeout              store.put: timed out after 1s (the broker had blocked the connection, or read or confirmed too slowly; nothing was sent)
-r timeout              store.put: timed out after 1s (waiting for a free place among the calls in flight; nothing was sent)
-r timeout              store.put: timed out after 1s (a layer of the client had not passed it on; nothing was sent)
xr timeout              store.put: timed out after 1s (sent, waiting for the publisher confirm)
xr timeout              store.put: timed out after 1s (a worker was executing it)
xr timeout              store.put: timed out after 1s (sent, no answer)
-r disconnected         store.put: the connection was lost before the request was sent
xr disconnected         store.put: the connection was lost; the request may have been executed
x- internal             store.put: internal error of the worker: the handler panicked: boom
x- abandoned            store.put: abandoned: delivered 21 times; a lost worker may have executed the request
x- bad_reply            store.put: bad reply: application/msgpack: more bytes follow the value
-- payload_too_large    store.put: payload too large: 20 bytes, the limit is 10; send less, or raise ClientOptions::max_body_bytes
x- payload_too_large    store.put: payload too large: the broker does not take the result of 20 bytes, its limit is 10; return less, or raise the broker's limit; the request was executed
x- payload_too_large    store.put: payload too large: the broker does not take the result of 20 bytes; return less, or raise the broker's limit; the request was executed
-- shutdown             store.put: the client was shut down before the request was sent
x- shutdown             store.put: the client was shut down; the request may have been executed
-- topology             store.put: cannot set up the client's exchanges and queues: declare queue 'rpc.reply.1' failed: 403 ACCESS_REFUSED; grant the user this permission on the vhost
-- layer                store.put: a layer of the client failed, and the request was not executed: the cache is down
x- layer                store.put: a layer of the client failed; the request may have been executed: the cache is down
-r quota_exceeded       store.put: quota_exceeded: 100 calls a day
x- quota_exceeded       store.put: quota_exceeded
";

#[test]
fn every_text_code_and_verdict() {
    let mark = |mark, is_set| if is_set { mark } else { '-' };
    let texts: String = every_error()
        .iter()
        .map(|error| {
            let (executed, retryable) = (mark('x', error.maybe_executed()), mark('r', error.is_retryable()));
            format!("{executed}{retryable} {:<20} {error:#}\n", error.code())
        })
        .collect();
    assert_eq!(texts, TEXTS, "\n{texts}");
    let variants: HashSet<_> = every_error().iter().map(discriminant).collect();
    assert_eq!(variants.len(), 17, "each variant is in the table");
}

#[test]
fn every_error_names_its_method_once_and_repeats_no_source() {
    for error in every_error() {
        assert_eq!((error.service_name(), error.method_name()), (SERVICE, METHOD));
        let text = error.to_string();
        assert!(text.starts_with("store.put: "), "{text}");
        if let Some(source) = error.source() {
            let source = source.to_string();
            assert!(!text.contains(&source), "{text}");
            assert_eq!(format!("{error:#}"), format!("{text}: {source}"));
        } else {
            assert_eq!(format!("{error:#}"), text);
        }
    }
}

#[test]
fn the_service_error_and_the_topology_error_are_sources() {
    let error = CallError::service(SERVICE, METHOD, StoreError::Full);
    assert_eq!(error.source().and_then(|source| source.downcast_ref()), Some(&StoreError::Full));
    let error: CallError = CallError::topology(SERVICE, METHOD, Error::ForeignConnection);
    assert!(matches!(error.source().and_then(|source| source.downcast_ref()), Some(Error::ForeignConnection)));
}

#[test]
fn map_service_converts_the_service_error_and_keeps_all_others() {
    for error in every_error() {
        let before = (error.code().to_owned(), error.maybe_executed(), error.is_retryable(), format!("{error:#}"));
        let mapped = error.map_service(|error| format!("{error}"));
        let after = (mapped.code().to_owned(), mapped.maybe_executed(), mapped.is_retryable(), format!("{mapped:#}"));
        assert_eq!(before, after);
    }
}

#[test]
fn the_wait_before_the_next_attempt_is_the_one_that_the_service_or_a_layer_asks_for() {
    let two = Duration::from_secs(2);
    let own = CallError::described(SERVICE, METHOD, StoreError::Full);
    assert_eq!((own.retry_after(), own.map_service(|_| ()).retry_after()), (Some(two), Some(two)));
    assert_eq!(CallError::service(SERVICE, METHOD, StoreError::Full).retry_after(), None);
    let details = ErrorDetails::new("frozen", "").retry_after(two);
    let unknown: CallError = CallError::unknown_error(SERVICE, METHOD, UnknownError::new(details, Vec::new()));
    assert_eq!((unknown.retry_after(), unknown.is_retryable()), (Some(two), true));
    let other: CallError = CallError::other(SERVICE, METHOD, OtherError::new("rate_limited", "").retry_after(two));
    assert_eq!(other.retry_after(), Some(two));
    assert_eq!(timeout(TimeoutStage::Unknown).retry_after(), None);
}

#[test]
fn no_error_of_a_service_has_a_code_of_the_framework() {
    let own = |error: &CallError<_>| {
        matches!(error, CallError::Other { .. } | CallError::UnknownError { .. })
            || matches!(error, CallError::Service { details: Some(_), .. })
    };
    for error in every_error() {
        assert_eq!(is_code_of_framework(error.code()), !own(&error), "{error:?}");
    }
    assert!(is_code_of_framework("ok") && is_code_of_framework("forbidden") && !is_code_of_framework("Timeout"));
    let codes: HashSet<_> =
        every_error().iter().filter(|error| !own(error)).map(|error| error.code().to_owned()).collect();
    assert_eq!(service_error::FRAMEWORK_CODES.len(), codes.len() + 2, "`ok` and `forbidden` are no errors of a client");
}

#[test]
fn into_service_unwraps_the_service_error_and_converts_the_others() {
    assert_eq!(CallError::service(SERVICE, METHOD, StoreError::Full).into_service(), StoreError::Full);
    let shutdown: CallError<StoreError> = CallError::shutdown(SERVICE, METHOD, false);
    assert_eq!(shutdown.into_service(), StoreError::Remote("shutdown".to_owned()));
}

#[test]
fn a_call_error_is_seven_words_large_and_a_service_error_adds_only_what_it_needs() {
    assert_eq!(size_of::<CallError>(), 56);
    assert_eq!(size_of::<CallError<u64>>(), 56);
    assert_eq!(size_of::<CallError<String>>(), 64);
}

/// The table's columns: the code, and what it says of execution and of retries.
fn documented() -> Vec<(String, String, String)> {
    let (_, table) = include_str!("../../docs/errors.md").split_once("| `code()` |").expect("the table of codes");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        let [_, code, _, executed, retryable, to_do, _] = &*cells else { panic!("six cells: {row}") };
        assert!(!to_do.is_empty(), "{row}");
        (code.clone(), executed.clone(), retryable.clone())
    })
    .collect()
}

#[test]
fn the_guide_lists_every_code_with_its_verdicts() {
    let word = |verdicts: &HashSet<bool>| match (verdicts.contains(&true), verdicts.contains(&false)) {
        (true, false) => "yes",
        (false, true) => "no",
        _ => "if",
    };
    let errors = every_error();
    let mut described: Vec<(String, String, String)> = Vec::new();
    for error in &errors {
        let same = || errors.iter().filter(|other| discriminant(*other) == discriminant(error));
        let executed = word(&same().map(CallError::maybe_executed).collect());
        let retryable = word(&same().map(CallError::is_retryable).collect());
        let code = match error {
            CallError::Service { .. } => "service",
            CallError::UnknownError { .. } => "its own code",
            CallError::Other { .. } => "any other",
            error => error.code(),
        };
        if described.iter().all(|(listed, ..)| listed != code) {
            described.push((code.to_owned(), executed.to_owned(), retryable.to_owned()));
        }
    }
    // The one code of our workers that arrives as another error (`Code::Forbidden`), before those of other programs.
    let others = described.len() - 1;
    described.insert(others, ("forbidden".to_owned(), "no".to_owned(), "no".to_owned()));
    let first_word = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    let documented: Vec<_> = documented()
        .into_iter()
        .map(|(code, executed, retryable)| (code, first_word(executed), first_word(retryable)))
        .collect();
    assert_eq!(documented, described);
}

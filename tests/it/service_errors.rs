//! Errors of services that say of themselves how callers should treat them: their codes and verdicts, at callers of every kind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use rpc_core::{
    CallError, Codec, DedupeOptions, ServiceError,
    layer::{self, Next, Request, Response},
};
use rpc_tests::{
    Stage, on_both_brokers,
    raw::{content_type, header, kind},
};
use serde::{Deserialize, Serialize};

on_both_brokers!(
    codes_and_verdicts_arrive_with_the_error,
    layers_see_and_pass_on_codes_and_verdicts,
    a_variant_of_a_newer_server_is_an_unknown_error,
    an_error_whose_code_is_known_and_whose_data_is_not_is_a_bad_reply,
    a_foreign_caller_reads_them_in_headers,
    a_foreign_worker_sends_them_in_headers,
    an_error_without_the_derive_has_the_headers_of_before,
    a_retryable_error_is_not_remembered,
);

/// As the servers have it.
#[derive(Debug, Clone, PartialEq, thiserror::Error, ServiceError, Serialize, Deserialize)]
enum StockError {
    #[error("only {left} left")]
    TooFew { left: u32 },
    #[error("the stock is being counted")]
    #[rpc(code = "stocktaking", retry_after = "1500ms")]
    Counting,
    #[error("{0}")]
    #[rpc(retryable)]
    Busy(String),
}

/// As a caller has it who was built before.
#[derive(Debug, Clone, PartialEq, thiserror::Error, ServiceError, Serialize, Deserialize)]
enum OldError {
    #[error("only {left} left")]
    TooFew { left: u32 },
}

/// As one has it whose fields are others.
#[derive(Debug, Clone, PartialEq, thiserror::Error, ServiceError, Serialize, Deserialize)]
enum OtherFields {
    #[error("only {left} left")]
    TooFew { left: String },
}

/// As one has it who knows of no codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum PlainError {
    TooFew { left: u32 },
}

/// Every variant, in turn.
#[derive(Debug, Default)]
struct Shelf(Arc<AtomicUsize>);

impl Shelf {
    fn take(&self, which: u32) -> StockError {
        self.0.fetch_add(1, Ordering::SeqCst);
        match which {
            0 => StockError::TooFew { left: 1 },
            1 => StockError::Counting,
            _ => StockError::Busy("later".to_owned()),
        }
    }
}

/// Declares, where it stands, a service of that name and codec, and in `old`, `other`, `plain` and `infallible` the same as older or other
/// callers have it.
macro_rules! stock {
    ($name:literal, $codec:literal) => {
        #[rpc_core::service(name = $name, codec = $codec)]
        pub(crate) trait Stock {
            async fn take(&self, which: u32) -> Result<u32, StockError>;
        }

        impl Stock for Shelf {
            async fn take(&self, which: u32) -> Result<u32, StockError> {
                Err(Shelf::take(self, which))
            }
        }

        #[allow(dead_code)]
        pub(crate) mod old {
            #[rpc_core::service(name = $name, codec = $codec)]
            pub(crate) trait Stock {
                async fn take(&self, which: u32) -> Result<u32, crate::service_errors::OldError>;
            }
        }

        #[allow(dead_code)]
        pub(crate) mod other {
            #[rpc_core::service(name = $name, codec = $codec)]
            pub(crate) trait Stock {
                async fn take(&self, which: u32) -> Result<u32, crate::service_errors::OtherFields>;
            }
        }

        #[allow(dead_code)]
        pub(crate) mod plain {
            #[rpc_core::service(name = $name, codec = $codec)]
            pub(crate) trait Stock {
                async fn take(&self, which: u32) -> Result<u32, crate::service_errors::PlainError>;
            }
        }

        #[allow(dead_code)]
        pub(crate) mod infallible {
            #[rpc_core::service(name = $name, codec = $codec)]
            pub(crate) trait Stock {
                async fn take(&self, which: u32) -> u32;
            }
        }
    };
}

/// The code, the verdict and the time of each variant.
const EXPECTED: [(&str, bool, Option<Duration>); 3] =
    [("too_few", false, None), ("stocktaking", true, Some(Duration::from_millis(1_500))), ("busy", true, None)];

fn said<E>(error: &CallError<E>) -> (&str, bool, Option<Duration>) {
    assert!(error.maybe_executed());
    (error.code(), error.is_retryable(), error.retry_after())
}

async fn codes_and_verdicts_arrive_with_the_error(stage: &Stage) {
    mod msgpack {
        use super::*;
        stock!("service-errors-msgpack", "msgpack");
    }
    mod json {
        use super::*;
        stock!("service-errors-json", "json");
    }
    let pool = stage.pool(msgpack::StockServer::new(Shelf::default())).await;
    let _pool = pool.start().await.unwrap();
    let pool = stage.pool(json::StockServer::new(Shelf::default())).await;
    let _json = pool.start().await.unwrap();
    let client = stage.client().await;
    let (msgpack, json) =
        (msgpack::StockClient::from_client(client.clone()), json::StockClient::from_client(client.clone()));
    for (which, expected) in (0..).zip(EXPECTED) {
        for error in [msgpack.take(which).await.unwrap_err(), json.take(which).await.unwrap_err()] {
            assert_eq!(said(&error), expected, "{error:?}");
            let text = error.to_string();
            assert!(text.ends_with(".take: the service returned an error"), "{text}");
            let CallError::Service { error, .. } = error else { panic!("{error:?}") };
            assert_eq!(error, Shelf::default().take(which));
        }
    }
}

async fn layers_see_and_pass_on_codes_and_verdicts(stage: &Stage) {
    stock!("service-errors-layers", "msgpack");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noting = |name: &'static str| {
        let seen = Arc::clone(&seen);
        layer::from_fn(move |request: Request, next: Next| {
            let seen = Arc::clone(&seen);
            async move {
                let response = next.run(request).await?;
                assert!(response.is_service_error() && response.maybe_executed());
                let message = response.message().map(std::borrow::Cow::into_owned);
                let note = (name, response.code().to_owned(), response.is_retryable(), response.retry_after(), message);
                seen.lock().unwrap().push(note);
                Ok(response)
            }
        })
    };
    let pool = stage.pool(StockServer::new(Shelf::default())).await.layer(noting("pool"));
    let _pool = pool.start().await.unwrap();
    let client = StockClient::new(&stage.connect().await).layer(noting("client"));
    let error = client.take(1).await.unwrap_err();
    assert_eq!(said(&error), EXPECTED[1]);
    let note = |name| {
        let message = Some("the stock is being counted".to_owned());
        (name, "stocktaking".to_owned(), true, Some(Duration::from_millis(1_500)), message)
    };
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [note("pool"), note("client")]);
    // A layer may give such an error itself.
    let body = Codec::MessagePack.encode(&StockError::Counting).unwrap();
    let answering = client.layer(layer::from_fn(move |_: Request, _: Next| {
        let details = rpc_core::ErrorDetails::new("stocktaking", "").retry_after(Duration::from_millis(1_500));
        let response = Response::detailed_error(body.clone(), details);
        async move { Ok(response) }
    }));
    // Outside of it stands the layer that notes.
    let error = answering.take(0).await.unwrap_err();
    assert_eq!(said(&error), EXPECTED[1]);
    assert!(matches!(error, CallError::Service { error: StockError::Counting, .. }), "{error:?}");
}

async fn a_variant_of_a_newer_server_is_an_unknown_error(stage: &Stage) {
    mod msgpack {
        use super::*;
        stock!("service-errors-new-msgpack", "msgpack");
    }
    mod json {
        use super::*;
        stock!("service-errors-new-json", "json");
    }
    let pool = stage.pool(msgpack::StockServer::new(Shelf::default())).await;
    let _pool = pool.start().await.unwrap();
    let pool = stage.pool(json::StockServer::new(Shelf::default())).await;
    let _json = pool.start().await.unwrap();
    let client = stage.client().await;
    for layered in [false, true] {
        let pass = layer::from_fn(|request: Request, next: Next| next.run(request));
        let client = if layered { client.layer(pass) } else { client.clone() };
        // The variant that they know.
        let known = msgpack::old::StockClient::from_client(client.clone()).take(0).await.unwrap_err();
        assert!(matches!(known, CallError::Service { error: OldError::TooFew { left: 1 }, .. }), "{known:?}");
        assert_eq!(said(&known), EXPECTED[0]);
        let plain = json::plain::StockClient::from_client(client.clone()).take(0).await.unwrap_err();
        assert!(matches!(plain, CallError::Service { error: PlainError::TooFew { left: 1 }, .. }), "{plain:?}");
        assert_eq!(said(&plain), EXPECTED[0], "the caller's type needs no derive");
        // The others.
        for (which, expected) in (1..).zip(&EXPECTED[1..]) {
            let error = Shelf::default().take(which);
            macro_rules! is_unknown {
                ($client:path, $codec:expr) => {
                    let unknown = <$client>::from_client(client.clone()).take(which).await.unwrap_err();
                    assert_eq!(said(&unknown), *expected, "{unknown:?}");
                    let CallError::UnknownError { error: unknown, .. } = unknown else { panic!("{unknown:?}") };
                    assert_eq!((&*unknown.code, unknown.message), (expected.0, error.to_string()));
                    assert_eq!(unknown.body, $codec.encode(&error).unwrap());
                };
            }
            is_unknown!(msgpack::old::StockClient, Codec::MessagePack);
            is_unknown!(msgpack::plain::StockClient, Codec::MessagePack);
            is_unknown!(msgpack::infallible::StockClient, Codec::MessagePack);
            is_unknown!(json::old::StockClient, Codec::Json);
            is_unknown!(json::plain::StockClient, Codec::Json);
            is_unknown!(json::infallible::StockClient, Codec::Json);
        }
    }
}

async fn an_error_whose_code_is_known_and_whose_data_is_not_is_a_bad_reply(stage: &Stage) {
    stock!("service-errors-fields", "msgpack");
    let _pool = stage.pool(StockServer::new(Shelf::default())).await.start().await.unwrap();
    let client = other::StockClient::new(&stage.connect().await);
    let error = client.take(0).await.unwrap_err();
    assert!(matches!(error, CallError::BadReply { .. }) && !error.is_retryable(), "{error:?}");
    assert!(matches!(client.take(1).await.unwrap_err(), CallError::UnknownError { .. }));
}

async fn a_foreign_caller_reads_them_in_headers(stage: &Stage) {
    stock!("service-errors-foreign", "msgpack");
    let _pool = stage.pool(StockServer::new(Shelf::default())).await.start().await.unwrap();
    let raw = stage.raw().await;
    for (which, (code, retryable, retry_after)) in (0..).zip(EXPECTED) {
        let error = Shelf::default().take(which);
        for codec in [Codec::MessagePack, Codec::Json] {
            let properties = BasicProperties::default().with_content_type(codec.content_type().into());
            let body = codec.encode(&(which,)).unwrap();
            let reply = raw.call("rpc", "service-errors-foreign.take", properties, &body).await;
            assert_eq!((kind(&reply), content_type(&reply)), (Some("rpc.error"), Some(codec.content_type())));
            assert_eq!(reply.data, codec.encode(&error).unwrap(), "serde's form stays as it is");
            assert_eq!((header(&reply, "rpc-code"), header(&reply, "rpc-error-code")), (Some("service"), Some(code)));
            assert_eq!(header(&reply, "rpc-message"), Some(&*error.to_string()));
            let headers = reply.properties.headers().as_ref().unwrap();
            assert_eq!(headers.inner().get("rpc-retryable"), Some(&AMQPValue::Boolean(retryable)));
            let ms = retry_after.map(|time| AMQPValue::LongLongInt(time.as_millis().try_into().unwrap()));
            assert_eq!(headers.inner().get("rpc-retry-after-ms"), ms.as_ref());
        }
    }
}

async fn a_foreign_worker_sends_them_in_headers(stage: &Stage) {
    stock!("service-errors-by-hand", "json");
    stage.fresh("rpc.service-errors-by-hand").await;
    let server = stage.raw().await;
    server.durable_queue("rpc.service-errors-by-hand").await;
    // Someone has declared the exchange.
    let client = stage.client().await;
    client.ready().await.unwrap();
    server.bind("rpc.service-errors-by-hand", "rpc", "service-errors-by-hand.take").await;
    let mut requests = server.consume("rpc.service-errors-by-hand", 1).await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let with = |more: &[(&str, AMQPValue)]| {
        let mut headers = FieldTable::default();
        headers.insert("rpc-code".into(), text("service"));
        for (name, value) in more {
            headers.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_type("rpc.error".into()).with_headers(headers)
    };
    let sold_out = [("rpc-error-code", text("sold_out")), ("rpc-retryable", AMQPValue::Boolean(true))];
    let wait = [("rpc-retry-after-ms", AMQPValue::LongInt(250)), ("rpc-message", text("come back"))];
    let known = &br#"{"TooFew":{"left":2}}"#[..];
    let (plain, derived) = (plain::StockClient::from_client(client.clone()), StockClient::from_client(client.clone()));
    let (no, quarter) = (None, Some(Duration::from_millis(250)));
    for (properties, body, expected) in [
        (with(&[]), known, ("service", false, no)),
        (with(&sold_out), known, ("sold_out", true, no)),
        (with(&sold_out[1..]), known, ("service", true, no)),
        (with(&[&sold_out[..], &wait].concat()), &br#""SoldOut""#[..], ("sold_out", true, quarter)),
        // A code of the framework's would mislead the caller.
        (with(&[("rpc-error-code", text("timeout"))]), known, ("service", false, no)),
        (with(&[("rpc-error-code", AMQPValue::LongInt(7))]), known, ("service", false, no)),
    ] {
        for is_derived in [false, true] {
            let answer = async {
                let request = requests.next().await;
                server.answer_with(&request, properties.clone(), body).await;
            };
            let (was_own, error) = if is_derived {
                let (error, ()) = tokio::join!(derived.take(0).into_future(), answer);
                let error = error.unwrap_err();
                (matches!(error, CallError::Service { .. }), error.map_service(drop))
            } else {
                let (error, ()) = tokio::join!(plain.take(0).into_future(), answer);
                let error = error.unwrap_err();
                (matches!(error, CallError::Service { .. }), error.map_service(drop))
            };
            assert_eq!(said(&error), expected, "{error:?}");
            assert_eq!(was_own, body == known, "{error:?}");
            if let CallError::UnknownError { error, .. } = error {
                assert_eq!((&*error.message, &*error.body), ("come back", &br#""SoldOut""#[..]));
            }
        }
    }
    server.close().await;
}

async fn an_error_without_the_derive_has_the_headers_of_before(stage: &Stage) {
    #[rpc_core::service(name = "service-errors-plain", codec = "json")]
    trait Failing {
        async fn fail(&self) -> Result<u32, String>;
    }
    struct Fails;
    impl Failing for Fails {
        async fn fail(&self) -> Result<u32, String> {
            Err("sold out".to_owned())
        }
    }
    let _pool = stage.pool(FailingServer::new(Fails)).await.start().await.unwrap();
    let reply = stage.raw().await.call("rpc", "service-errors-plain.fail", BasicProperties::default(), b"{}").await;
    let headers = reply.properties.headers().as_ref().unwrap();
    let headers: Vec<_> = headers.inner().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let expected =
        [("rpc-code", AMQPValue::LongString("service".into())), ("rpc-retryable", AMQPValue::Boolean(false))];
    assert_eq!(headers, expected);
    assert_eq!(reply.data, br#""sold out""#);
    let error = FailingClient::new(&stage.connect().await).fail().await.unwrap_err();
    assert_eq!(said(&error), ("service", false, None));
    assert!(matches!(error, CallError::Service { details: None, .. }), "{error:?}");
}

async fn a_retryable_error_is_not_remembered(stage: &Stage) {
    stock!("service-errors-dedupe", "msgpack");
    let executed = Arc::<AtomicUsize>::default();
    let pool = stage.pool(StockServer::new(Shelf(Arc::clone(&executed)))).await.dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = StockClient::new(&stage.connect().await);
    for (which, key, executions) in [(0, "final", 1), (0, "final", 1), (2, "busy", 2), (2, "busy", 3)] {
        let error = client.take(which).idempotency_key(key).await.unwrap_err();
        let expected = if which == 0 { EXPECTED[0] } else { EXPECTED[2] };
        assert_eq!((said(&error), executed.load(Ordering::SeqCst)), (expected, executions));
    }
    assert_eq!(pool.stats().deduplicated, 1);
}

//! Requests from programs that do not know the framework, good ones and bad ones: answered, acknowledged, never
//! redelivered in a loop.

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
use rpc_core::{Codec, PoolHandle};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    raw::{Peer, content_type, header, kind},
};
use serde::Serialize;

on_both_brokers!(
    a_request_with_reply_to_and_correlation_id_is_answered,
    a_request_with_positional_arguments_is_understood,
    a_json_request_is_answered_in_json,
    a_request_without_reply_to_is_executed_once,
    an_undecodable_request_is_answered,
    an_undecodable_request_without_reply_to_does_not_loop,
    an_unknown_method_is_answered,
    an_unknown_content_type_is_answered,
    an_unknown_wire_version_is_answered,
    a_newer_service_version_is_answered,
    a_version_that_no_program_has_is_refused,
    a_reply_to_nobody_does_not_stop_the_worker,
    a_service_error_is_told_in_headers,
    an_older_method_name_is_still_answered,
    an_argument_with_a_default_may_be_missing,
    a_missing_argument_without_a_default_is_a_bad_request,
    a_positional_array_may_end_before_arguments_with_a_default,
);

#[derive(Serialize)]
struct Question<'a> {
    question: &'a str,
}

fn body(question: &str) -> Vec<u8> {
    Codec::MessagePack.encode(&Question { question }).unwrap()
}

fn msgpack() -> BasicProperties {
    BasicProperties::default().with_content_type("application/msgpack".into())
}

fn with_header(name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), value);
    msgpack().with_headers(headers)
}

/// An echo that counts what it is asked.
fn counting_echo() -> (Arc<AtomicUsize>, Answers) {
    let count = Arc::new(AtomicUsize::new(0));
    let answers = {
        let count = Arc::clone(&count);
        Answers::with(move |asked| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { asked.question }
        })
    };
    (count, answers)
}

/// After a bad request: it is gone from the queue, was delivered once, and a good one is answered.
async fn still_serves(raw: &Peer, pool: PoolHandle, service: &str) {
    let reply = raw.call("rpc", &format!("{service}.ask"), msgpack(), &body("fine")).await;
    assert_eq!(kind(&reply), Some("rpc.ok"));
    assert_eq!(Codec::MessagePack.decode::<String>(&reply.data).unwrap(), "fine");
    assert_eq!(pool.stats().received, 2, "each was delivered once");
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
    let queue = raw.queue(&format!("rpc.{service}")).await.unwrap();
    assert_eq!(queue.ready, 0, "nothing came back unacknowledged");
}

async fn a_request_with_reply_to_and_correlation_id_is_answered(stage: &Stage) {
    probe!("foreign-answered");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    // No type, no headers, no content_type.
    let raw = stage.raw().await;
    let reply = raw.call("rpc", "foreign-answered.ask", BasicProperties::default(), &body("hello")).await;
    assert_eq!(kind(&reply), Some("rpc.ok"));
    assert_eq!(content_type(&reply), Some("application/msgpack"));
    assert_eq!(Codec::MessagePack.decode::<String>(&reply.data).unwrap(), "hello");
    assert!(reply.properties.headers().is_none() && reply.properties.expiration().is_none());
}

async fn a_request_with_positional_arguments_is_understood(stage: &Stage) {
    probe!("foreign-positional");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let arguments = Codec::MessagePack.encode(&("hello",)).unwrap();
    let reply = stage.raw().await.call("rpc", "foreign-positional.ask", msgpack(), &arguments).await;
    assert_eq!(Codec::MessagePack.decode::<String>(&reply.data).unwrap(), "hello");
}

async fn a_json_request_is_answered_in_json(stage: &Stage) {
    probe!("foreign-json");
    let _pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let json = BasicProperties::default().with_content_type("application/json; charset=utf-8".into());
    let request = br#"{"question": "hello", "unknown": [1, 2]}"#;
    let reply = stage.raw().await.call("rpc", "foreign-json.ask", json, request).await;
    assert_eq!(content_type(&reply), Some("application/json"));
    assert_eq!(reply.data.to_vec(), br#""hello""#);
}

async fn a_request_without_reply_to_is_executed_once(stage: &Stage) {
    probe!("foreign-oneway");
    let (count, answers) = counting_echo();
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let raw = stage.raw().await;
    raw.publish("rpc", "foreign-oneway.ask", msgpack(), &body("x")).await;
    eventually(Duration::from_secs(5), "it is executed", async || count.load(Ordering::SeqCst) == 1).await;
    still_serves(&raw, pool, "foreign-oneway").await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

async fn an_undecodable_request_is_answered(stage: &Stage) {
    probe!("foreign-garbage");
    let (count, answers) = counting_echo();
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let reply = raw.call("rpc", "foreign-garbage.ask", msgpack(), b"\xc1\xff garbage").await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_request")));
    assert!(header(&reply, "rpc-message").is_some_and(|message| message.contains("arguments")));
    still_serves(&raw, pool, "foreign-garbage").await;
    assert_eq!(count.load(Ordering::SeqCst), 1, "only the good one was executed");
}

async fn an_undecodable_request_without_reply_to_does_not_loop(stage: &Stage) {
    probe!("foreign-garbage-oneway");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    raw.publish("rpc", "foreign-garbage-oneway.ask", msgpack(), b"").await;
    still_serves(&raw, pool, "foreign-garbage-oneway").await;
}

async fn an_unknown_method_is_answered(stage: &Stage) {
    probe!("foreign-method");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    let reply = raw.call("rpc", "foreign-method.nope", msgpack(), &body("x")).await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("no_such_method")));
    still_serves(&raw, pool, "foreign-method").await;
}

async fn an_unknown_content_type_is_answered(stage: &Stage) {
    probe!("foreign-content-type");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    let png = BasicProperties::default().with_content_type("image/png".into());
    let reply = raw.call("rpc", "foreign-content-type.ask", png, &body("x")).await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_request")));
    still_serves(&raw, pool, "foreign-content-type").await;
}

async fn an_unknown_wire_version_is_answered(stage: &Stage) {
    probe!("foreign-wire");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    let reply = raw.call("rpc", "foreign-wire.ask", with_header("rpc-v", AMQPValue::LongInt(2)), &body("x")).await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_version")));
    still_serves(&raw, pool, "foreign-wire").await;
}

async fn a_newer_service_version_is_answered(stage: &Stage) {
    probe!("foreign-version");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    let newer = with_header("rpc-version", AMQPValue::ShortShortUInt(9));
    let reply = raw.call("rpc", "foreign-version.ask", newer, &body("x")).await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_version")));
    still_serves(&raw, pool, "foreign-version").await;
}

/// -1 has the bits of 2^64 - 1, and is no earlier version. A text is no version.
async fn a_version_that_no_program_has_is_refused(stage: &Stage) {
    probe!("foreign-no-version");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let raw = stage.raw().await;
    for header_name in ["rpc-v", "rpc-version"] {
        for value in [AMQPValue::LongLongInt(-1), AMQPValue::LongString("1".into()), AMQPValue::Boolean(true)] {
            let request = with_header(header_name, value.clone());
            let reply = raw.call("rpc", "foreign-no-version.ask", request, &body("x")).await;
            assert_eq!(header(&reply, "rpc-code"), Some("bad_version"), "{header_name} {value:?}");
            if value == AMQPValue::LongLongInt(-1) {
                let message = header(&reply, "rpc-message").unwrap_or_default();
                assert!(message.contains("18446744073709551615"), "{message}");
            }
        }
    }
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_reply_to_nobody_does_not_stop_the_worker(stage: &Stage) {
    probe!("foreign-gone");
    let (count, answers) = counting_echo();
    let pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let gone = msgpack().with_reply_to("foreign.no-such-queue".into()).with_correlation_id("1".into());
    raw.publish("rpc", "foreign-gone.ask", gone, &body("x")).await;
    eventually(Duration::from_secs(5), "it is executed", async || count.load(Ordering::SeqCst) == 1).await;
    still_serves(&raw, pool, "foreign-gone").await;
}

async fn a_service_error_is_told_in_headers(stage: &Stage) {
    #[rpc_core::service(name = "foreign-error", codec = "json")]
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
    let reply = stage.raw().await.call("rpc", "foreign-error.fail", BasicProperties::default(), b"{}").await;
    assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("service")));
    assert_eq!(reply.data.to_vec(), br#""sold out""#);
    let headers = reply.properties.headers().as_ref().unwrap();
    assert_eq!(headers.inner().get("rpc-retryable"), Some(&AMQPValue::Boolean(false)));
}

async fn an_older_method_name_is_still_answered(stage: &Stage) {
    #[rpc_core::service(name = "foreign-alias", codec = "json")]
    trait Renamed {
        #[rpc(name = "sum", alias = "add")]
        async fn total(&self, a: i64, b: i64) -> i64;
    }
    struct Adder;
    impl Renamed for Adder {
        async fn total(&self, a: i64, b: i64) -> i64 {
            a + b
        }
    }
    let _pool = stage.pool(RenamedServer::new(Adder)).await.start().await.unwrap();
    let raw = stage.raw().await;
    for routing_key in ["foreign-alias.sum", "foreign-alias.add"] {
        let reply = stage.raw().await.call("rpc", routing_key, BasicProperties::default(), br#"{"a":2,"b":3}"#).await;
        assert_eq!(reply.data.to_vec(), b"5", "{routing_key}");
    }
    let reply = raw.call("rpc", "foreign-alias.total", BasicProperties::default(), br#"{"a":2,"b":3}"#).await;
    assert_eq!(header(&reply, "rpc-code"), Some("no_such_method"), "the Rust name is not on the wire");
    assert_eq!(RenamedClient::new(&stage.connect().await).total(2, 3).await.unwrap(), 5);
}

mod defaults {
    /// As it is after `times` and `tag` were added.
    #[rpc_core::service(name = "foreign-defaults")]
    pub(super) trait Shout {
        async fn shout(&self, text: String, #[rpc(default)] times: Times, tag: Option<String>) -> String;
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Times(pub(super) usize);

    impl Default for Times {
        fn default() -> Self {
            Self(2)
        }
    }

    pub(super) struct Voice;
    impl Shout for Voice {
        async fn shout(&self, text: String, times: Times, tag: Option<String>) -> String {
            format!("{}{}", text.repeat(times.0), tag.unwrap_or_default())
        }
    }

    /// As older callers know it.
    pub(super) mod older {
        #[rpc_core::service(name = "foreign-defaults")]
        pub(crate) trait Shout {
            async fn shout(&self, text: String) -> String;
        }
    }
}

/// The two cases of this service in turn: they would take each other's requests.
static DEFAULTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn an_argument_with_a_default_may_be_missing(stage: &Stage) {
    use defaults::{ShoutClient, ShoutServer, Times, Voice, older};
    let _alone = DEFAULTS.lock().await;
    let _pool = stage.pool(ShoutServer::new(Voice)).await.start().await.unwrap();
    let connection = stage.connect().await;
    assert_eq!(older::ShoutClient::new(&connection).shout("a".to_owned()).await.unwrap(), "aa");
    let newer = ShoutClient::new(&connection);
    assert_eq!(newer.shout("a".to_owned(), Times(3), Some("!".to_owned())).await.unwrap(), "aaa!");

    let raw = stage.raw().await;
    let json = || BasicProperties::default().with_content_type("application/json".into());
    for (request, answer) in [
        (r#"{"text": "b"}"#, r#""bb""#),
        (r#"{"text": "b", "tag": "!"}"#, r#""bb!""#),
        (r#"{"text": "b", "times": 1}"#, r#""b""#),
        (r#"["b", 1, "!"]"#, r#""b!""#),
    ] {
        let reply = raw.call("rpc", "foreign-defaults.shout", json(), request.as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&reply.data), answer, "{request}");
    }
}

async fn a_missing_argument_without_a_default_is_a_bad_request(stage: &Stage) {
    use defaults::{ShoutServer, Voice};
    let _alone = DEFAULTS.lock().await;
    let _pool = stage.pool(ShoutServer::new(Voice)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let json = BasicProperties::default().with_content_type("application/json".into());
    let empty_map = Codec::MessagePack.encode(&std::collections::BTreeMap::<String, u8>::new()).unwrap();
    for (properties, request) in [(json, &br#"{"times": 1}"#[..]), (msgpack(), &empty_map)] {
        let reply = raw.call("rpc", "foreign-defaults.shout", properties, request).await;
        assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_request")));
        let message = header(&reply, "rpc-message").unwrap_or_default();
        assert!(message.contains("missing field `text`"), "{message}");
    }
}

/// The default of the last argument applies to positional arrays, too.
async fn a_positional_array_may_end_before_arguments_with_a_default(stage: &Stage) {
    #[rpc_core::service(name = "foreign-positional-defaults")]
    trait Shout {
        async fn shout(&self, text: String, #[rpc(default)] mark: String) -> String;
    }
    struct Voice;
    impl Shout for Voice {
        async fn shout(&self, text: String, mark: String) -> String {
            text + &mark
        }
    }
    let _pool = stage.pool(ShoutServer::new(Voice)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let json = BasicProperties::default().with_content_type("application/json".into());
    let reply = raw.call("rpc", "foreign-positional-defaults.shout", json.clone(), br#"["c"]"#).await;
    assert_eq!(reply.data.to_vec(), br#""c""#);
    let one = Codec::MessagePack.encode(&("c",)).unwrap();
    let reply = raw.call("rpc", "foreign-positional-defaults.shout", msgpack(), &one).await;
    assert_eq!(Codec::MessagePack.decode::<String>(&reply.data).unwrap(), "c");
    let reply = raw.call("rpc", "foreign-positional-defaults.shout", json, b"[]").await;
    assert_eq!(header(&reply, "rpc-code"), Some("bad_request"));
    let message = header(&reply, "rpc-message").unwrap_or_default();
    assert!(message.contains("expected the arguments `text`, `mark`"), "{message}");
}

//! Calls that fail because of what the handler or the reply is.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use rpc_core::CallError;
use rpc_tests::{Answers, Stage, on_both_brokers, probe, within};
use serde::{Deserialize, Serialize, Serializer};

on_both_brokers!(
    a_handlers_error_arrives_as_its_own_type,
    a_panic_is_answered_and_the_worker_goes_on,
    a_panic_before_the_first_await_is_answered_too,
    a_result_that_cannot_be_written_is_an_internal_error,
    a_reply_of_another_shape_is_a_bad_reply,
    arguments_of_another_shape_are_a_bad_request,
    a_method_the_server_lacks_is_no_such_method,
    a_newer_client_is_told_the_servers_version,
    service_errors_of_a_oneway_method_do_not_loop,
    a_code_this_version_does_not_know_arrives_with_its_message,
);

async fn a_handlers_error_arrives_as_its_own_type(stage: &Stage) {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
    enum StoreError {
        #[error("empty")]
        Empty,
        #[error("{wanted} wanted, {left} left")]
        TooFew { wanted: u32, left: u32 },
        #[error("{0}")]
        Other(String),
    }
    #[rpc_core::service(name = "errors-typed")]
    trait Store {
        async fn take(&self, wanted: u32) -> Result<u32, StoreError>;
    }
    struct Shelf;
    impl Store for Shelf {
        async fn take(&self, wanted: u32) -> Result<u32, StoreError> {
            match wanted {
                0 => Err(StoreError::Empty),
                1..=9 => Ok(wanted),
                10..=99 => Err(StoreError::TooFew { wanted, left: 9 }),
                _ => Err(StoreError::Other("Grüße".to_owned())),
            }
        }
    }
    let _pool = stage.pool(StoreServer::new(Shelf)).await.start().await.unwrap();
    let client = StoreClient::new(&stage.connect().await);
    assert_eq!(client.take(5).await.unwrap(), 5);
    for (wanted, expected) in [
        (0, StoreError::Empty),
        (12, StoreError::TooFew { wanted: 12, left: 9 }),
        (100, StoreError::Other("Grüße".to_owned())),
    ] {
        let error = client.take(wanted).await.unwrap_err();
        assert!(error.maybe_executed());
        assert_eq!(error.code(), "service");
        match error {
            CallError::Service { error, .. } => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_panic_is_answered_and_the_worker_goes_on(stage: &Stage) {
    probe!("errors-panic");
    let answers = Answers::with(async |asked| {
        tokio::task::yield_now().await;
        assert!(asked.question != "boom", "the handler's own words");
        asked.question
    });
    // One handler at a time: a slot that a panic kept would stop the service.
    let pool = stage.pool(ProbeServer::new(answers)).await.concurrency(1).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    for _ in 0..3 {
        let error = client.ask("boom".to_owned()).await.unwrap_err();
        assert!(matches!(&error, CallError::Internal { message, .. } if message.contains("the handler's own words")));
        assert!(error.maybe_executed() && !error.is_retryable());
    }
    assert_eq!(client.ask("fine".to_owned()).await.unwrap(), "fine");
    assert_eq!(pool.stats().received, 4, "answered and acknowledged, never redelivered");
}

async fn a_panic_before_the_first_await_is_answered_too(stage: &Stage) {
    #[rpc_core::service(name = "errors-panic-at-once")]
    trait Fragile {
        async fn at_once(&self) -> u32;
        #[rpc(blocking)]
        async fn on_a_thread(&self) -> u32;
    }
    struct Broken;
    impl Fragile for Broken {
        // Not an `async fn`: the panic happens while the future is made.
        fn at_once(&self) -> impl Future<Output = u32> + Send {
            panic!("no future");
            #[expect(unreachable_code, reason = "gives the function its type")]
            async {
                0
            }
        }
        async fn on_a_thread(&self) -> u32 {
            panic!("on a thread")
        }
    }
    let _pool = stage.pool(FragileServer::new(Broken)).await.start().await.unwrap();
    let client = FragileClient::new(&stage.connect().await);
    assert_eq!(client.at_once().await.unwrap_err().code(), "internal");
    assert_eq!(client.on_a_thread().await.unwrap_err().code(), "internal");
}

async fn a_result_that_cannot_be_written_is_an_internal_error(stage: &Stage) {
    #[derive(Debug, Deserialize)]
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    #[rpc_core::service(name = "errors-unwritable")]
    trait Refusing {
        async fn refuse(&self) -> Unwritable;
    }
    struct Refuser;
    impl Refusing for Refuser {
        async fn refuse(&self) -> Unwritable {
            Unwritable
        }
    }
    let _pool = stage.pool(RefusingServer::new(Refuser)).await.start().await.unwrap();
    let error = RefusingClient::new(&stage.connect().await).refuse().await.unwrap_err();
    assert!(matches!(&error, CallError::Internal { message, .. } if message.contains("not today")), "{error:?}");
}

/// The same service as a newer client sees it.
mod newer {
    #[rpc_core::service(name = "errors-drift")]
    pub(super) trait Drift {
        async fn count(&self) -> String;
        async fn double(&self, n: String) -> u32;
        async fn added_later(&self) -> u32;
    }
}

mod older {
    #[rpc_core::service(name = "errors-drift")]
    pub(super) trait Drift {
        async fn count(&self) -> u32;
        async fn double(&self, n: u32) -> u32;
    }
    pub(super) struct Counter;
    impl Drift for Counter {
        async fn count(&self) -> u32 {
            7
        }
        async fn double(&self, n: u32) -> u32 {
            2 * n
        }
    }
}

async fn drifted(stage: &Stage) -> (rpc_core::PoolHandle, newer::DriftClient) {
    let pool = stage.pool(older::DriftServer::new(older::Counter)).await.start().await.unwrap();
    (pool, newer::DriftClient::new(&stage.connect().await))
}

/// The cases of one service in turn: they would steal each other's requests.
static DRIFT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn a_reply_of_another_shape_is_a_bad_reply(stage: &Stage) {
    let _alone = DRIFT.lock().await;
    let (_pool, client) = drifted(stage).await;
    let error = client.count().await.unwrap_err();
    assert_eq!(error.code(), "bad_reply", "{error}");
    assert!(error.maybe_executed());
}

async fn arguments_of_another_shape_are_a_bad_request(stage: &Stage) {
    let _alone = DRIFT.lock().await;
    let (pool, client) = drifted(stage).await;
    let error = client.double("two".to_owned()).await.unwrap_err();
    assert_eq!(error.code(), "bad_request", "{error}");
    assert!(!error.maybe_executed() && !error.is_retryable());
    assert_eq!(pool.stats().received, 1, "answered, acknowledged, never redelivered");
}

async fn a_method_the_server_lacks_is_no_such_method(stage: &Stage) {
    let _alone = DRIFT.lock().await;
    let (_pool, client) = drifted(stage).await;
    let error = client.added_later().await.unwrap_err();
    assert_eq!(error.code(), "no_such_method", "{error}");
    assert!(error.to_string().contains("added_later"), "{error}");
}

async fn a_newer_client_is_told_the_servers_version(stage: &Stage) {
    mod old {
        #[rpc_core::service(name = "errors-version", version = 2)]
        pub(super) trait Versioned {
            async fn version(&self) -> u32;
        }
    }
    mod new {
        #[rpc_core::service(name = "errors-version", version = 3)]
        pub(super) trait Versioned {
            async fn version(&self) -> u32;
        }
    }
    struct Two;
    impl old::Versioned for Two {
        async fn version(&self) -> u32 {
            2
        }
    }
    let _pool = stage.pool(old::VersionedServer::new(Two)).await.start().await.unwrap();
    let connection = stage.connect().await;
    assert_eq!(old::VersionedClient::new(&connection).version().await.unwrap(), 2);
    let error = new::VersionedClient::new(&connection).version().await.unwrap_err();
    assert_eq!(error.code(), "bad_version");
    assert!(error.to_string().contains('3') && error.to_string().contains('2'), "{error}");
}

async fn service_errors_of_a_oneway_method_do_not_loop(stage: &Stage) {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    #[rpc_core::service(name = "errors-oneway")]
    trait Log {
        #[rpc(oneway)]
        async fn note(&self, text: String);
        async fn count(&self) -> usize;
    }
    struct Failing(Arc<AtomicUsize>);
    impl Log for Failing {
        async fn note(&self, text: String) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("cannot note '{text}'");
        }
        async fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }
    let server = LogServer::new(Failing(Arc::default()));
    let pool = stage.pool(server).await.concurrency(1).start().await.unwrap();
    let client = LogClient::new(&stage.connect().await);
    client.note("x".to_owned()).await.unwrap();
    // Behind it in the same queue: when this is answered, the note was handled, and would have come again.
    for _ in 0..2 {
        let count = within(Duration::from_secs(5), "the count", client.count().into_future()).await.unwrap();
        assert_eq!(count, 1);
    }
    assert_eq!(pool.stats().received, 3);
}

async fn a_code_this_version_does_not_know_arrives_with_its_message(stage: &Stage) {
    #[rpc_core::service(name = "errors-quota", queue = "errors-unknown-code")]
    trait Quota {
        async fn spend(&self, calls: u32) -> u32;
    }
    stage.fresh("errors-unknown-code").await;
    let server = stage.raw().await;
    server.durable_queue("errors-unknown-code").await;
    let mut requests = server.consume("errors-unknown-code", 1).await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let refusal = |flags: &[(&str, bool)]| {
        let mut headers = FieldTable::default();
        headers.insert("rpc-code".into(), text("quota_exceeded"));
        headers.insert("rpc-message".into(), text("100 calls a day"));
        for (name, value) in flags {
            headers.insert((*name).into(), AMQPValue::Boolean(*value));
        }
        BasicProperties::default().with_type("rpc.error".into()).with_headers(headers)
    };
    let client = QuotaClient::new(&stage.connect().await);
    for (reply, maybe_executed, is_retryable) in [
        (refusal(&[]), true, false),
        (refusal(&[("rpc-executed", true)]), true, false),
        (refusal(&[("rpc-executed", false), ("rpc-retryable", true)]), false, true),
    ] {
        let (error, ()) = tokio::join!(client.spend(1).into_future(), async {
            let request = requests.next().await;
            server.answer_with(&request, reply, b"").await;
        });
        let error = error.unwrap_err();
        let verdict = (error.code(), error.maybe_executed(), error.is_retryable());
        assert_eq!(verdict, ("quota_exceeded", maybe_executed, is_retryable), "{error:?}");
        assert_eq!(error.to_string(), "errors-quota.spend: quota_exceeded: 100 calls a day");
        assert!(matches!(&error, CallError::Other { error, .. } if error.message == "100 calls a day"), "{error:?}");
    }
    server.close().await;
}

//! Calls that succeed: arguments, results, and what a handler may know.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::Context;
use rpc_tests::{Answers, Stage, eventually, on_both_brokers, probe, within};
use serde::{Deserialize, Serialize};

on_both_brokers!(
    a_call_returns_the_handlers_value,
    arguments_and_results_of_every_shape_survive,
    a_oneway_call_resolves_when_the_broker_has_it,
    a_handler_sees_what_the_caller_set,
    a_json_service_speaks_json,
    a_method_with_its_own_queue_is_served_beside_the_others,
    a_blocking_handler_holds_up_nobody,
    a_request_waits_for_a_worker_that_starts_later,
    clones_of_a_client_share_one_reply_queue,
);

async fn a_call_returns_the_handlers_value(stage: &Stage) {
    probe!("calls-value");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    assert_eq!(client.ask("who?".to_owned()).await.unwrap(), "who?");
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn arguments_and_results_of_every_shape_survive(stage: &Stage) {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle { radius: f64 },
        Polygon(Vec<(i64, i64)>),
    }
    #[rpc_core::service(name = "calls-shapes")]
    trait Shapes {
        async fn nothing(&self);
        async fn mirror(&self, shape: Shape, scale: i8, label: Option<String>) -> (Shape, i8, Option<String>);
        async fn bytes(&self, body: Vec<u8>) -> Vec<u8>;
    }
    struct Mirror;
    impl Shapes for Mirror {
        async fn nothing(&self) {}
        async fn mirror(&self, shape: Shape, scale: i8, label: Option<String>) -> (Shape, i8, Option<String>) {
            (shape, scale, label)
        }
        async fn bytes(&self, body: Vec<u8>) -> Vec<u8> {
            body
        }
    }
    let _pool = stage.pool(ShapesServer::new(Mirror)).await.start().await.unwrap();
    let client = ShapesClient::new(&stage.connect().await);
    client.nothing().await.unwrap();
    for shape in [Shape::Point, Shape::Circle { radius: -0.5 }, Shape::Polygon(vec![(i64::MIN, 0), (1, i64::MAX)])] {
        for label in [None, Some(String::new()), Some("Grüße \0 😀".to_owned())] {
            let expected = (shape.clone(), i8::MIN, label.clone());
            assert_eq!(client.mirror(shape.clone(), i8::MIN, label).await.unwrap(), expected);
        }
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    assert_eq!(client.bytes(every_byte.clone()).await.unwrap(), every_byte);
}

async fn a_oneway_call_resolves_when_the_broker_has_it(stage: &Stage) {
    #[rpc_core::service(name = "calls-oneway")]
    trait Log {
        #[rpc(oneway)]
        async fn note(&self, text: String);
    }
    struct Notes(Arc<Mutex<Vec<String>>>);
    impl Log for Notes {
        async fn note(&self, text: String) {
            // Longer than the caller may wait.
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.0.lock().unwrap().push(text);
        }
    }
    let notes = Arc::new(Mutex::new(Vec::new()));
    let pool = stage.pool(LogServer::new(Notes(Arc::clone(&notes)))).await.start().await.unwrap();
    let client = LogClient::new(&stage.connect().await);
    client.note("one".to_owned()).await.unwrap();
    assert!(notes.lock().unwrap().is_empty(), "the call resolved before the handler was done");
    eventually(Duration::from_secs(10), "the note is written", async || *notes.lock().unwrap() == ["one"]).await;
    assert_eq!(pool.stats().answered, 0);
}

async fn a_handler_sees_what_the_caller_set(stage: &Stage) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Seen {
        priority: Option<u8>,
        message_id: Option<String>,
        tenant: Option<String>,
        weight: Option<i64>,
        attempt: u32,
        is_redelivered: bool,
        routing_key: String,
        remaining_ms: u64,
    }
    #[rpc_core::service(name = "calls-context")]
    trait Mirror {
        async fn look(&self, ctx: &Context) -> Seen;
    }
    struct Looking;
    impl Mirror for Looking {
        async fn look(&self, ctx: &Context) -> Seen {
            Seen {
                priority: ctx.priority(),
                message_id: ctx.message_id().map(str::to_owned),
                tenant: ctx.header("tenant").and_then(|tenant| tenant.as_str().map(str::to_owned)),
                weight: ctx.header("weight").and_then(|weight| weight.as_i64()),
                attempt: ctx.attempt(),
                is_redelivered: ctx.redelivered(),
                routing_key: ctx.routing_key().to_owned(),
                remaining_ms: ctx.remaining().unwrap().as_millis().try_into().unwrap(),
            }
        }
    }
    let _pool = stage.pool(MirrorServer::new(Looking)).await.start().await.unwrap();
    let client = MirrorClient::new(&stage.connect().await);
    let seen = client
        .look()
        .timeout(Duration::from_secs(7))
        .priority(5)
        .header("tenant", "acme")
        .header("weight", -3_i64)
        .idempotency_key("order-17")
        .await
        .unwrap();
    assert!((1..=7_000).contains(&seen.remaining_ms), "{seen:?}");
    let expected = Seen {
        priority: Some(5),
        message_id: Some("order-17".to_owned()),
        tenant: Some("acme".to_owned()),
        weight: Some(-3),
        attempt: 1,
        is_redelivered: false,
        routing_key: "calls-context.look".to_owned(),
        remaining_ms: seen.remaining_ms,
    };
    assert_eq!(seen, expected);
}

async fn a_json_service_speaks_json(stage: &Stage) {
    #[rpc_core::service(name = "calls-json", codec = "json")]
    trait Greeter {
        async fn greet(&self, name: String, times: u8) -> Vec<String>;
    }
    struct Polite;
    impl Greeter for Polite {
        async fn greet(&self, name: String, times: u8) -> Vec<String> {
            vec![format!("hello {name}"); times.into()]
        }
    }
    let _pool = stage.pool(GreeterServer::new(Polite)).await.start().await.unwrap();
    let client = GreeterClient::new(&stage.connect().await);
    assert_eq!(client.greet("Ada".to_owned(), 2).await.unwrap(), ["hello Ada", "hello Ada"]);
    // Without a content_type the service's own codec is meant.
    let raw = stage.raw().await;
    let body = br#"{"name": "Bob", "times": 1}"#;
    let reply = raw.call("rpc", "calls-json.greet", lapin::BasicProperties::default(), body).await;
    assert_eq!(rpc_tests::raw::content_type(&reply), Some("application/json"));
    assert_eq!(reply.data.to_vec(), br#"["hello Bob"]"#);
}

async fn a_method_with_its_own_queue_is_served_beside_the_others(stage: &Stage) {
    #[rpc_core::service(name = "calls-queues")]
    trait Mixed {
        async fn quick(&self) -> String;
        #[rpc(queue = "slow")]
        async fn slow(&self) -> String;
    }
    struct Both;
    impl Mixed for Both {
        async fn quick(&self) -> String {
            "quick".to_owned()
        }
        async fn slow(&self) -> String {
            "slow".to_owned()
        }
    }
    let _pool = stage.pool(MixedServer::new(Both)).await.start().await.unwrap();
    let client = MixedClient::new(&stage.connect().await);
    assert_eq!(client.quick().await.unwrap(), "quick");
    assert_eq!(client.slow().await.unwrap(), "slow");
    let raw = stage.raw().await;
    for queue in ["rpc.calls-queues", "rpc.calls-queues.slow"] {
        assert_eq!(raw.queue(queue).await.map(|queue| queue.consumers), Some(1), "{queue}");
    }
}

async fn a_blocking_handler_holds_up_nobody(stage: &Stage) {
    #[rpc_core::service(name = "calls-blocking")]
    trait Mixed {
        #[rpc(blocking)]
        async fn compute(&self) -> u32;
        async fn ping(&self);
    }
    struct Both {
        computing: Arc<AtomicUsize>,
    }
    impl Mixed for Both {
        async fn compute(&self) -> u32 {
            self.computing.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(1));
            self.computing.fetch_sub(1, Ordering::SeqCst);
            42
        }
        async fn ping(&self) {}
    }
    let computing = Arc::new(AtomicUsize::new(0));
    let server = MixedServer::new(Both { computing: Arc::clone(&computing) });
    let _pool = stage.pool(server).await.concurrency(8).start().await.unwrap();
    let client = MixedClient::new(&stage.connect().await);
    // More than this runtime has threads.
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(client.compute().into_future())).collect();
    eventually(Duration::from_secs(10), "all compute at once", async || computing.load(Ordering::SeqCst) == 4).await;
    client.ping().await.unwrap();
    assert!(computing.load(Ordering::SeqCst) > 0, "answered while the others still compute");
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 42);
    }
}

async fn a_request_waits_for_a_worker_that_starts_later(stage: &Stage) {
    probe!("calls-waits");
    let first = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("later".to_owned()).into_future());
    let raw = stage.raw().await;
    eventually(Duration::from_secs(5), "the request is queued", async || {
        raw.queue("rpc.calls-waits").await.is_some_and(|queue| queue.ready == 1)
    })
    .await;
    let _second = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    assert_eq!(within(Duration::from_secs(5), "the answer", call).await.unwrap().unwrap(), "later");
}

async fn clones_of_a_client_share_one_reply_queue(stage: &Stage) {
    probe!("calls-clones");
    let answers = Answers::with(async |asked| asked.reply_to.unwrap_or_default());
    let _pool = stage.pool(ProbeServer::new(answers)).await.start().await.unwrap();
    let connection = stage.connect().await;
    let first = ProbeClient::new(&connection);
    let clone = first.clone();
    let other = ProbeClient::new(&connection);
    let reply_queue = first.ask(String::new()).await.unwrap();
    assert!(reply_queue.starts_with("rpc.reply."), "{reply_queue}");
    assert_eq!(clone.ask(String::new()).await.unwrap(), reply_queue);
    assert_ne!(other.ask(String::new()).await.unwrap(), reply_queue);
}

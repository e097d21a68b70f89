//! The same brokers and the same workers, spoken to from Python: RabbitMQ's tutorials, and RPC across languages.
//!
//! Needs a Python with pika, named by `RPC_TEST_PYTHON`; `tests/run` makes one.

use std::path::PathBuf;

use rpc_tests::{Script, Stage, on_both_brokers};

on_both_brokers!(
    tutorial_1_hello,
    tutorial_2_work_queue,
    tutorial_2_durable,
    tutorial_2_fair_dispatch,
    tutorial_3_fanout,
    tutorial_4_direct,
    tutorial_5_topic,
    tutorial_6_rpc,
    headers_exchange,
    basic_get,
    transactions,
    confirms,
    exchange_to_exchange,
    internal_exchange,
    consumer_cancellation,
    direct_reply_to,
    a_pika_client_calls_a_rust_worker_with_json,
    an_error_without_data_has_neither_a_body_nor_a_content_type,
    a_pika_client_calls_a_bare_rust_worker,
    a_rust_client_calls_a_pika_server,
    a_pika_server_belongs_to_the_trace_of_its_caller,
);

/// Runs a script that checks everything itself.
async fn script(stage: &Stage, script: &str) {
    if let Some(python) = Script::python(script, &[stage.broker_uri()]) {
        python.succeeds().await;
    }
}

async fn tutorial_1_hello(stage: &Stage) {
    script(stage, "hello.py").await;
}

async fn tutorial_2_work_queue(stage: &Stage) {
    script(stage, "work_queue.py").await;
}

async fn tutorial_2_durable(stage: &Stage) {
    script(stage, "durable.py").await;
}

async fn tutorial_2_fair_dispatch(stage: &Stage) {
    script(stage, "fair_dispatch.py").await;
}

async fn tutorial_3_fanout(stage: &Stage) {
    script(stage, "fanout.py").await;
}

async fn tutorial_4_direct(stage: &Stage) {
    script(stage, "direct.py").await;
}

async fn tutorial_5_topic(stage: &Stage) {
    script(stage, "topic.py").await;
}

async fn tutorial_6_rpc(stage: &Stage) {
    script(stage, "rpc_fib.py").await;
}

async fn headers_exchange(stage: &Stage) {
    script(stage, "headers.py").await;
}

async fn basic_get(stage: &Stage) {
    script(stage, "basic_get.py").await;
}

async fn transactions(stage: &Stage) {
    script(stage, "tx.py").await;
}

async fn confirms(stage: &Stage) {
    script(stage, "confirms.py").await;
}

async fn exchange_to_exchange(stage: &Stage) {
    script(stage, "exchange_bind.py").await;
}

async fn internal_exchange(stage: &Stage) {
    script(stage, "internal_exchange.py").await;
}

async fn consumer_cancellation(stage: &Stage) {
    script(stage, "consumer_cancellation.py").await;
}

async fn direct_reply_to(stage: &Stage) {
    script(stage, "direct_reply_to.py").await;
}

async fn a_pika_client_calls_a_rust_worker_with_json(stage: &Stage) {
    #[rpc_core::service(name = "pika-json")]
    trait Adder {
        async fn add(&self, a: i64, b: i64) -> i64;
    }
    struct Sum;
    impl Adder for Sum {
        async fn add(&self, a: i64, b: i64) -> i64 {
            a + b
        }
    }
    let _pool = stage.pool(AdderServer::new(Sum)).await.start().await.unwrap();
    let arguments = [stage.broker_uri(), "rpc", "pika-json.add", r#"{"a": 40, "b": 2}"#, "application/json"];
    if let Some(mut python) = Script::python("rpc_client.py", &arguments) {
        assert_eq!(python.line().await, "42");
        python.succeeds().await;
    }
}

async fn an_error_without_data_has_neither_a_body_nor_a_content_type(stage: &Stage) {
    #[rpc_core::service(name = "pika-errors")]
    trait Failing {
        async fn fail(&self) -> Result<u32, String>;
        async fn panic(&self);
    }
    struct Fails;
    impl Failing for Fails {
        async fn fail(&self) -> Result<u32, String> {
            Err("sold out".to_owned())
        }
        async fn panic(&self) {
            panic!("for a test")
        }
    }
    let _pool = stage.pool(FailingServer::new(Fails)).await.start().await.unwrap();
    if let Some(python) = Script::python("rpc_errors.py", &[stage.broker_uri(), "pika-errors"]) {
        python.succeeds().await;
    }
}

async fn a_pika_client_calls_a_bare_rust_worker(stage: &Stage) {
    #[rpc_core::service(queue = "pika-bare-rust")]
    trait Double {
        async fn double(&self, n: u64) -> u64;
    }
    struct Doubling;
    impl Double for Doubling {
        async fn double(&self, n: u64) -> u64 {
            2 * n
        }
    }
    let _pool = stage.pool(DoubleServer::new(Doubling)).await.start().await.unwrap();
    if let Some(mut python) = Script::python("rpc_client.py", &[stage.broker_uri(), "", "pika-bare-rust", "21"]) {
        assert_eq!(python.line().await, "42");
        python.succeeds().await;
    }
}

async fn a_rust_client_calls_a_pika_server(stage: &Stage) {
    #[rpc_core::service(queue = "pika-bare-python")]
    trait Fib {
        async fn fib(&self, n: u32) -> u64;
    }
    stage.fresh("pika-bare-python").await;
    let Some(mut python) = Script::python("rpc_server.py", &[stage.broker_uri(), "pika-bare-python", "2"]) else {
        return;
    };
    assert_eq!(python.line().await, "ready");
    let client = FibClient::new(&stage.connect().await);
    assert_eq!(client.fib(30).await.unwrap(), 832_040);
    assert_eq!(client.fib(93).await.unwrap(), 12_200_160_415_121_876_738);
    python.succeeds().await;
}

async fn a_pika_server_belongs_to_the_trace_of_its_caller(stage: &Stage) {
    #[rpc_core::service(name = "pika-traced", queue = "pika-traced")]
    trait Traced {
        async fn headers(&self, of: String) -> String;
    }
    #[rpc_core::service(name = "pika-tracing")]
    trait Middle {
        async fn pass(&self) -> String;
    }
    struct Passes(TracedClient);
    impl Middle for Passes {
        async fn pass(&self) -> String {
            let client = self.0.clone();
            let call = async move { client.headers("traceparent baggage".to_owned()).await.unwrap() };
            rpc_core::spawn(call).await.unwrap()
        }
    }
    let _turn = crate::traces::collect().await;
    stage.fresh("pika-traced").await;
    let Some(mut python) = Script::python("trace_server.py", &[stage.broker_uri(), "pika-traced", "1"]) else {
        return;
    };
    assert_eq!(python.line().await, "ready");
    let layer = rpc_core::layer::TraceLayer::new;
    let python_client = TracedClient::new(&stage.connect().await).layer(layer());
    let middle = stage.pool(MiddleServer::new(Passes(python_client))).await.layer(layer());
    let _middle = middle.start().await.unwrap();
    let client = MiddleClient::new(&stage.connect().await).layer(layer());
    let seen = crate::traces::in_remote_context(client.pass().into_future()).await.unwrap();
    let spans = crate::traces::spans_of("pika-traced", 1).await;
    let parent = format!("str 00-{}-{}-01", spans[0].trace_id(), spans[0].id());
    assert_eq!(seen, format!("{parent} str tenant=blue%2C%20or%20green"));
    let line = crate::traces::spans_of("pika-tracing", 2).await;
    assert!(line.iter().all(|span| span.trace_id() == spans[0].trace_id()), "{line:#?}");
    python.succeeds().await;
}

/// RabbitMQ needs certificates before it starts; so this is of the bundled broker alone.
#[tokio::test]
async fn tls_with_a_password_and_with_a_certificate() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rpc_core::broker::{Broker, TlsOptions};

    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
    let sign = |name: &str| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        // Python insists on it.
        params.use_authority_key_identifier_extension = true;
        let key = key();
        (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
    };
    let (cert, key) = sign("broker");
    let tls = TlsOptions::new(cert, key).client_ca(ca.pem());
    let broker = Broker::builder().user("ann", "").tls(tls).start().await.unwrap();
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tls");
    std::fs::create_dir_all(&directory).unwrap();
    let (cert, key) = sign("ann");
    let files = [("ca", ca.pem()), ("cert", cert), ("key", key)].map(|(name, pem)| {
        let path = directory.join(format!("{name}.pem"));
        std::fs::write(&path, pem).unwrap();
        path.into_os_string().into_string().unwrap()
    });
    let port = broker.tls_address().unwrap().port().to_string();
    let [ca, cert, key] = &files;
    if let Some(python) = Script::python("tls.py", &["localhost", &port, "ann", ca, cert, key]) {
        python.succeeds().await;
    }
    broker.shutdown().await;
}

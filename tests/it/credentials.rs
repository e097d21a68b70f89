//! Logins that change: a provider is asked before each connection, and again before its password or token expires.

use std::{
    error::Error as StdError,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use rpc_core::{
    Client, Connection, ConnectionOptions, ConnectionState, Credentials, CredentialsProvider, Error, WorkerPool,
};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
    within,
};
use tokio::time::sleep;

on_both_brokers!(
    a_provider_is_asked_before_each_connection,
    a_login_is_renewed_before_it_expires,
    a_provider_that_fails_is_asked_again,
    credentials_that_the_broker_refuses_say_so,
    a_wait_for_access_goes_on_over_a_refusal,
);

const SOON: Duration = Duration::from_secs(10);

type Given = Result<Credentials, Box<dyn StdError + Send + Sync>>;

/// Counts how often it is asked.
struct Provider<F> {
    asked: Arc<AtomicUsize>,
    give: F,
}

#[async_trait]
impl<F: Fn(usize) -> Given + Send + Sync + 'static> CredentialsProvider for Provider<F> {
    async fn credentials(&self) -> Given {
        (self.give)(self.asked.fetch_add(1, Ordering::SeqCst))
    }
}

fn provider(give: impl Fn(usize) -> Given + Send + Sync + 'static) -> (ConnectionOptions, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    (options.credentials(Provider { asked: Arc::clone(&asked), give }), asked)
}

/// The stage's URI, as nobody may log in.
fn as_nobody(uri: &str) -> String {
    let address = uri.rsplit_once('@').map_or_else(|| uri.trim_start_matches("amqp://"), |(_, address)| address);
    format!("amqp://nobody:wrong@{address}")
}

async fn a_provider_is_asked_before_each_connection(stage: &Stage) {
    probe!("credentials-each");
    let proxy = Proxy::start(stage.uri()).await;
    // Another user each time, as a vault gives out.
    let names = ["guest", "shop"];
    let (options, asked) = provider(move |nth| Ok(Credentials::new(names[nth % 2], names[nth % 2])));
    let shown = format!("{options:?}");
    assert!(shown.contains("CredentialsProvider"), "{shown}");
    let connection = Connection::open_with(&as_nobody(proxy.uri()), options).await.unwrap();
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let client = ProbeClient::new(&connection);
    for round in 1..4 {
        assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
        assert_eq!(asked.load(Ordering::SeqCst), round);
        let mut states = connection.states();
        proxy.cut();
        within(SOON, "it is lost", states.wait_for(|state| *state != ConnectionState::Connected)).await.unwrap();
        within(SOON, "it is open", states.wait_for(|state| *state == ConnectionState::Connected)).await.unwrap();
    }
    pool.shutdown(SOON).await.unwrap();
}

async fn a_login_is_renewed_before_it_expires(stage: &Stage) {
    probe!("credentials-renewed");
    let proxy = Proxy::start(stage.uri()).await;
    let expires = |nth: usize| if nth < 3 { Duration::from_millis(400) } else { Duration::from_secs(3_600) };
    let (options, asked) = provider(move |nth| match nth {
        // The broker keeps the login for which nothing new comes.
        1 => Err("the vault is sealed".into()),
        nth => Ok(Credentials::new("guest", "guest").valid_for(expires(nth))),
    });
    let connection = Connection::open_with(&as_nobody(proxy.uri()), options).await.unwrap();
    let mut states = connection.states();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let client = ProbeClient::new(&connection);
    let updates = || proxy.passed(Direction::ToBroker, Method::UpdateSecret);
    let begun = Instant::now();
    while updates() < 2 {
        assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
        assert!(begun.elapsed() < SOON, "{} updates", updates());
    }
    // A connection, a failure, and two renewals, the second of which lasts.
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
    let lost = states.wait_for(|state| *state != ConnectionState::Connected);
    assert!(tokio::time::timeout(Duration::from_millis(300), lost).await.is_err(), "no call noticed");
    pool.shutdown(SOON).await.unwrap();
}

async fn a_provider_that_fails_is_asked_again(stage: &Stage) {
    let (options, asked) = provider(|nth| match nth {
        0..=2 => Err("the vault is sealed".into()),
        _ => Ok(Credentials::new("guest", "guest")),
    });
    let uri = as_nobody(stage.uri());
    let failed = Connection::open_with(&uri, options.clone()).await.unwrap_err();
    assert!(matches!(&failed, Error::Credentials { reason } if reason == "the vault is sealed"), "{failed:?}");
    let connection = Connection::open_with(&uri, options.wait_for_broker(SOON)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    connection.close().await.unwrap();
    // One that hangs has as long as an attempt to connect.
    struct Hangs;
    #[async_trait]
    impl CredentialsProvider for Hangs {
        async fn credentials(&self) -> Given {
            std::future::pending().await
        }
    }
    let options = ConnectionOptions::default().connect_timeout(Duration::from_millis(200)).credentials(Hangs);
    let failed = within(SOON, "the attempt ends", Connection::open_with(&uri, options)).await.unwrap_err();
    assert!(matches!(failed, Error::Credentials { .. }), "{failed:?}");
}

async fn credentials_that_the_broker_refuses_say_so(stage: &Stage) {
    let (options, _) = provider(|_| Ok(Credentials::new("guest", "not-the-secret")));
    let refused = Connection::open_with(stage.uri(), options).await.unwrap_err();
    assert!(matches!(&refused, Error::AuthenticationRefused { user, .. } if user == "guest"), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("not-the-secret"));
}

async fn a_wait_for_access_goes_on_over_a_refusal(stage: &Stage) {
    let give = |nth| Ok(Credentials::new("guest", if nth < 2 { "not-the-secret" } else { "guest" }));
    let (options, asked) = provider(give);
    let refused = Connection::open_with(stage.uri(), options.wait_for_broker(2 * SOON)).await.unwrap_err();
    assert!(matches!(refused, Error::AuthenticationRefused { .. }), "{refused:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let (options, asked) = provider(give);
    let options = options.wait_for_broker(2 * SOON).wait_for_access(true);
    Connection::open_with(stage.uri(), options).await.unwrap().close().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

mod tokens {
    //! Tokens of RabbitMQ's OAuth 2 backend, which closes a connection whose token has expired.

    use super::*;

    /// RFC 7519, signed by the key whose other half the node has.
    fn token(key: &str, valid_for: Duration) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let claims = serde_json::json!({
            "aud": ["rabbitmq"],
            "sub": "stock",
            "exp": (now + valid_for).as_secs(),
            "scope": ["rabbitmq.configure:*/*", "rabbitmq.write:*/*", "rabbitmq.read:*/*"],
        });
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "tests"});
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let signature = openssl(&["dgst", "-sha256", "-sign", key], signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    fn base64url(bytes: &[u8]) -> String {
        let text = String::from_utf8(openssl(&["base64", "-A"], bytes)).unwrap();
        text.trim_end_matches('=').replace('+', "-").replace('/', "_")
    }

    fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut openssl = Command::new("openssl")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut openssl.stdin.take().unwrap(), input).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a node with the OAuth 2 backend; `tests/run` has one"]
    async fn no_call_notices_that_tokens_expire() {
        let key = std::env::var("RPC_TEST_TOKEN_KEY").expect("`tests/run` names the key");
        let uri = std::env::var("RPC_TEST_RABBITMQ_URL").expect("`tests/run` names the node");
        tokio::join!(over(&uri, &key, "native"), over(&uri, &key, "lapin"), unrenewed(&uri, &key));
    }

    /// The node means it: RabbitMQ 4 closes a connection whose token has expired, 3 refuses it further declarations.
    async fn unrenewed(uri: &str, key: &str) {
        let key = key.to_owned();
        let (options, asked) = provider(move |_| Ok(Credentials::new("", token(&key, LIFE))));
        let connection = Connection::open_with(&as_nobody(uri), options).await.unwrap();
        let is_over = async || {
            sleep(Duration::from_millis(100)).await;
            asked.load(Ordering::SeqCst) > 1 || Client::new(&connection).ready().await.is_err()
        };
        eventually(LIFE + SOON, "a login is over whose token is not renewed", is_over).await;
    }

    async fn over(uri: &str, key: &str, transport: &str) {
        probe!("credentials-tokens");
        let proxy = Proxy::start(uri).await;
        let key = key.to_owned();
        let (options, asked) = provider(move |_| Ok(Credentials::new("", token(&key, LIFE)).valid_for(LIFE)));
        let at = format!("{}?transport={transport}", as_nobody(proxy.uri()).split('?').next().unwrap());
        let connection = Connection::open_with(&at, options).await.unwrap();
        let mut states = connection.states();
        let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
        let client = ProbeClient::new(&connection);
        let begun = Instant::now();
        let mut calls = 0;
        while begun.elapsed() < 3 * LIFE {
            // Both carriers' pools serve the queue, so the answer comes over either.
            assert_eq!(client.ask("x".to_owned()).await.expect("no call is lost"), "x", "{transport}, call {calls}");
            calls += 1;
            sleep(Duration::from_millis(2)).await;
        }
        let asked_by_then = asked.load(Ordering::SeqCst);
        println!("{transport}: {calls} calls under {asked_by_then} tokens of {LIFE:?}");
        assert!(asked_by_then >= 4, "{asked_by_then} tokens");
        assert_eq!(states.current(), ConnectionState::Connected);
        let lost = states.wait_for(|state| *state != ConnectionState::Connected);
        assert!(tokio::time::timeout(Duration::ZERO, lost).await.is_err());
        // The token that it was opened with has expired long since.
        proxy.cut();
        let answers = async || client.ask("x".to_owned()).await.is_ok();
        eventually(SOON, "it logs in with another token", answers).await;
        assert!(asked.load(Ordering::SeqCst) > asked_by_then);
        pool.shutdown(SOON).await.unwrap();
    }

    const LIFE: Duration = Duration::from_secs(5);
}

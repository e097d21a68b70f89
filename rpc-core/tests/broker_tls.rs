//! TLS, from both ends: the framework's connections to the bundled broker.

#![cfg(all(feature = "broker", feature = "macros", feature = "tls"))]
#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rpc_core::{
    ClientTlsOptions, Connection, ConnectionOptions, Error, Transport, WorkerPool,
    broker::{Broker, BrokerBuilder, TlsOptions},
    service,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[service]
trait Echo {
    async fn echo(&self, text: String) -> String;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, text: String) -> String {
        text
    }
}

#[tokio::test]
async fn calls_go_over_tls() {
    for transport in TRANSPORTS {
        calls_go_over(Ca::of(transport)).await;
    }
}

async fn calls_go_over(ca: Ca) {
    let broker = Broker::builder().tls(ca.for_the_broker()).start().await.unwrap();
    let uri = broker.tls_uri().unwrap();
    assert_eq!(uri, format!("amqps://{}", broker.tls_address().unwrap()));
    let connection = Connection::open_with(uri, ca.trusted()).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(EchoServer::new(Mirror)).start().await.unwrap();
    let client = EchoClient::new(&connection);
    for length in [0, 1, 20_000, 3_000_000] {
        let text = "x".repeat(length);
        assert_eq!(client.echo(text.clone()).await.unwrap(), text);
    }
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        calls.spawn(async move { (number, client.echo(number.to_string()).await) });
    }
    while let Some(call) = calls.join_next().await {
        let (number, answer) = call.unwrap();
        assert_eq!(answer.unwrap(), number.to_string());
    }
    pool.shutdown(LIMIT).await.unwrap();
    connection.close().await.unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn stalled_handshakes_keep_no_other_out() {
    let ca = Ca::of(Transport::Native);
    let builder = Broker::builder().connections_max(40).handshakes_max(8);
    let broker = builder.tls(ca.for_the_broker()).start().await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..70 {
        stalled.push(TcpStream::connect(broker.tls_address().unwrap()).await.unwrap());
    }
    let opening = Connection::open_with(broker.tls_uri().unwrap(), ca.trusted());
    let connection = timeout(Duration::from_secs(5), opening).await.expect("before the stalled time out").unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_certificate_logs_in_as_the_user_it_names() {
    for transport in TRANSPORTS {
        a_certificate_logs_in(Ca::of(transport)).await;
    }
}

async fn a_certificate_logs_in(ca: Ca) {
    let broker = Broker::builder()
        .user("worker", "")
        .permissions("worker", "/", "", "", "")
        .tls(ca.for_the_broker().client_ca(ca.pem()))
        .start()
        .await
        .unwrap();
    let uri = broker.tls_uri_for("worker", "/").unwrap();
    assert_eq!(uri, format!("amqps://worker@{}?auth_mechanism=external", broker.tls_address().unwrap()));
    let connection = Connection::open_with(&uri, ca.client("worker")).await.unwrap();
    // The user `worker` has no permissions.
    let refused = WorkerPool::new(&connection).serve(EchoServer::new(Mirror)).start().await.unwrap_err();
    assert!(refused.to_string().contains("refused for user 'worker'"), "{refused}");
    connection.close().await.unwrap();
    let refused = Connection::open_with(&uri, ca.client("stranger")).await.unwrap_err();
    let Error::AuthenticationRefused { reply_text, .. } = refused else { panic!("{refused}") };
    assert!(reply_text.contains("Login was refused using authentication mechanism EXTERNAL"), "{reply_text}");
    // A client may log in by password, with a certificate or without one.
    for options in [ca.client("worker"), ca.trusted()] {
        Connection::open_with(broker.tls_uri().unwrap(), options).await.unwrap().close().await.unwrap();
    }
    // EXTERNAL without a certificate names no user, and the broker does not offer it. lapin does not look at the offer.
    let refused = Connection::open_with(&uri, ca.trusted()).await.unwrap_err();
    match ca.1 {
        Transport::Native => {
            assert!(refused.to_string().contains("EXTERNAL needs a certificate of the client"), "{refused}")
        }
        _ => assert!(matches!(refused, Error::AuthenticationRefused { .. }), "{refused}"),
    }
}

#[tokio::test]
async fn a_client_or_broker_that_cannot_be_verified_is_refused() {
    for transport in TRANSPORTS {
        refuses_unverified(Ca::of(transport), Ca::of(transport)).await;
    }
}

async fn refuses_unverified(ca: Ca, other: Ca) {
    let tls = ca.for_the_broker().client_ca(ca.pem()).require_client_certificate(true);
    let broker = Broker::builder().tls(tls).start().await.unwrap();
    let uri = broker.tls_uri().unwrap();
    let refused = async |options| matches!(Connection::open_with(uri, options).await, Err(Error::Unreachable { .. }));
    assert!(refused(ca.trusted()).await, "no certificate");
    assert!(refused(other.client("guest")).await, "a broker of another CA");
    let (cert, key) = other.sign("guest", ExtendedKeyUsagePurpose::ClientAuth);
    let forged = ca.options(ClientTlsOptions::default().ca(ca.pem()).identity(cert, key));
    assert!(refused(forged).await, "another CA's certificate");
    Connection::open_with(uri, ca.client("guest")).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn an_error_says_whose_certificate_is_refused_and_why() {
    for transport in TRANSPORTS {
        says_whose_certificate(Ca::of(transport), Ca::of(transport)).await;
    }
}

async fn says_whose_certificate(ca: Ca, other: Ca) {
    let reason = async |broker: &Broker, options| match Connection::open_with(broker.tls_uri().unwrap(), options).await
    {
        Err(Error::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let tls = ca.for_the_broker().client_ca(ca.pem()).require_client_certificate(true);
    let broker = Broker::builder().tls(tls).start().await.unwrap();
    let error = reason(&broker, other.client("guest")).await;
    assert!(error.contains("the broker's certificate has an issuer that this client does not trust"), "{error}");
    let error = reason(&broker, ca.trusted()).await;
    assert!(error.contains("the broker requires a client certificate"), "{error}");
    let identity =
        |(cert, key): (String, String)| ca.options(ClientTlsOptions::default().ca(ca.pem()).identity(cert, key));
    let error = reason(&broker, identity(other.sign("guest", ExtendedKeyUsagePurpose::ClientAuth))).await;
    assert!(error.contains("the broker refused the client's certificate, whose issuer it does not trust"), "{error}");
    let error = reason(&broker, identity(ca.sign_expired("guest", ExtendedKeyUsagePurpose::ClientAuth))).await;
    assert!(error.contains("the broker refused the client's certificate, which has expired"), "{error}");
    let (cert, key) = ca.sign_expired("broker", ExtendedKeyUsagePurpose::ServerAuth);
    let broker = Broker::builder().tls(TlsOptions::new(cert, key)).start().await.unwrap();
    let error = reason(&broker, ca.trusted()).await;
    assert!(error.contains("the broker's certificate has expired"), "{error}");
}

#[tokio::test]
async fn a_tls_handshake_has_its_time_limit() {
    let tls = Ca::of(Transport::default()).for_the_broker();
    let limit = Duration::from_millis(300);
    let broker = Broker::builder().tls(tls).handshake_timeout(limit).start().await.unwrap();
    let address = broker.tls_address().unwrap();
    let started = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    timeout(LIMIT, silent.read_to_end(&mut nothing)).await.unwrap().unwrap();
    assert!(nothing.is_empty() && started.elapsed() >= limit);
    // A client without TLS receives a TLS alert, and is disconnected.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    drop(timeout(LIMIT, plain.read_to_end(&mut nothing)).await.unwrap());
    assert!(!nothing.starts_with(b"AMQP"));
}

#[tokio::test]
async fn an_invalid_certificate_is_refused_at_the_start() {
    let ca = Ca::of(Transport::default());
    let (cert, key) = ca.sign("broker", ExtendedKeyUsagePurpose::ServerAuth);
    let (_, foreign_key) = ca.sign("broker", ExtendedKeyUsagePurpose::ServerAuth);
    let with = |tls| Broker::builder().tls(tls);
    let start = async |builder: BrokerBuilder| builder.start().await.map(drop).map_err(|error| error.to_string());
    for (tls, start_of) in [
        (TlsOptions::new("", key.as_str()), "TLS: certificate: the PEM contains no certificate"),
        (TlsOptions::new(cert.as_str(), ""), "TLS: key: "),
        (TlsOptions::new(cert.as_str(), foreign_key), "TLS: certificate and key: "),
        (TlsOptions::new(cert.as_str(), key.as_str()).client_ca("?"), "TLS: ca: the PEM contains no certificate"),
        (
            TlsOptions::new(cert.as_str(), key.as_str()).require_client_certificate(true),
            "TLS: client certificates are required: set the ca",
        ),
    ] {
        let error = start(with(tls)).await.unwrap_err();
        assert!(error.starts_with(start_of), "{error}");
    }
    assert_eq!(start(with(TlsOptions::new(cert, key))).await, Ok(()));
    assert!(Broker::start().await.unwrap().tls_uri().is_none());
}

const TRANSPORTS: [Transport; 2] = [Transport::Lapin, Transport::Native];

/// A certificate authority for this test, and the transport of the clients that trust it.
struct Ca(CertifiedIssuer<'static, KeyPair>, Transport);

impl Ca {
    fn of(transport: Transport) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each has a name of its own: a client finds the CA of a certificate by its name.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("a test's own CA {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"), transport)
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        self.sign_until(2100, name, usage)
    }

    fn sign_expired(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        self.sign_until(2001, name, usage)
    }

    fn sign_until(&self, year: i32, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }

    fn for_the_broker(&self) -> TlsOptions {
        let (cert, key) = self.sign("broker", ExtendedKeyUsagePurpose::ServerAuth);
        TlsOptions::new(cert, key)
    }

    /// Options that trust this CA.
    fn trusted(&self) -> ConnectionOptions {
        self.options(ClientTlsOptions::default().ca(self.pem()))
    }

    fn options(&self, tls: ClientTlsOptions) -> ConnectionOptions {
        ConnectionOptions::default().transport(self.1).tls(tls)
    }

    /// The same, with a certificate for a client.
    fn client(&self, name: &str) -> ConnectionOptions {
        let (cert, key) = self.sign(name, ExtendedKeyUsagePurpose::ClientAuth);
        self.options(ClientTlsOptions::default().ca(self.pem()).identity(cert, key))
    }
}

/// Longer than any of these tests takes.
const LIMIT: Duration = Duration::from_secs(20);

//! The example `deployed` from its start to its end, as its manifest for Kubernetes and its unit for systemd run it: their probes and
//! notifications before the broker is there, while requests are served, during the drain after SIGTERM, and at the exit.
//!
//! On the broker at `AMQP_URL`, else on the bundled one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rpc_core::{Connection, service};
use rpc_examples::{ExampleBroker, Process};
use serde::Deserialize;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};

#[service]
trait Stock {
    #[rpc(timeout = "20s")]
    async fn reserve(&self, article: String, pieces: u32) -> u32;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_worker_answers_its_probes_from_its_start_to_its_end() {
    let manifest = Manifest::read();
    let broker = ExampleBroker::from_env().await.unwrap();
    // Listens, and nobody answers: as a broker that is still starting.
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = NotifySocket::new();
    let worker = Worker::start(&manifest, &uri_at(broker.uri(), front.local_addr().unwrap()), &socket.path);

    assert_eq!(worker.probe(&manifest.live).await, Some(200));
    assert_eq!(worker.probe(&manifest.startup).await, Some(503));
    assert_eq!(worker.probe(&manifest.ready).await, Some(503));

    tokio::spawn(forward(front, address_of(broker.uri())));
    worker.until_probe_is(&manifest.startup, 200).await;
    worker.until_probe_is(&manifest.ready, 200).await;
    assert_eq!(worker.probe(&manifest.live).await, Some(200));
    socket.until("READY=1");

    let connection = Connection::open(broker.uri()).await.unwrap();
    let stock = StockClient::new(&connection);
    assert_eq!(stock.reserve("nut".to_owned(), 1).await.unwrap(), 99);
    let during = tokio::spawn(stock.reserve("nut".to_owned(), 2).into_future());
    // In its handler, which takes a second.
    sleep(Duration::from_millis(300)).await;
    let signalled = worker.terminate();
    worker.until_probe_is(&manifest.ready, 503).await;
    println!("/readyz is 503 {:?} after SIGTERM", signalled.elapsed());
    assert!(!during.is_finished(), "the probe has failed only after the drain");
    assert_eq!(worker.probe(&manifest.live).await, Some(200));
    assert_eq!(worker.probe(&manifest.startup).await, Some(200));
    socket.until("STOPPING=1");
    assert_eq!(during.await.unwrap().unwrap(), 98);
    worker.is_alive_until_it_exits(&manifest.live).await;
}

/// The parts of the manifest that a node uses.
struct Manifest {
    env: BTreeMap<String, String>,
    live: String,
    ready: String,
    startup: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    env: Vec<Variable>,
    ports: Vec<Port>,
    startup_probe: Probe,
    readiness_probe: Probe,
    liveness_probe: Probe,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: HttpGet,
}

#[derive(Deserialize)]
struct HttpGet {
    path: String,
    port: String,
}

impl Manifest {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes.yaml");
        let manifest: serde_norway::Value = serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let pod = &manifest["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > 25, "the program drains for 25 s, and is killed after {grace} s");
        let container: Container = serde_norway::from_value(pod["containers"][0].clone()).unwrap();
        let env: BTreeMap<_, _> =
            container.env.into_iter().filter_map(|variable| Some((variable.name, variable.value?))).collect();
        let (_, port) = env["RPC_HEALTH_ADDRESS"].rsplit_once(':').unwrap();
        let [health] = container.ports.as_slice() else { panic!("one port") };
        assert_eq!(port, health.container_port.to_string(), "probes go to the port that the program listens on");
        let path = |probe: Probe| {
            assert_eq!(probe.http_get.port, health.name);
            probe.http_get.path
        };
        let (live, ready) = (path(container.liveness_probe), path(container.readiness_probe));
        Self { env, live, ready, startup: path(container.startup_probe) }
    }
}

/// The running example.
struct Worker(Process);

impl Worker {
    fn start(manifest: &Manifest, uri: &str, notify_socket: &Path) -> Self {
        let mut program = Command::new(example("deployed"));
        // Of this test's own surroundings, and no setting of the program.
        let of_tests = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("RPC_");
        for name in std::env::vars_os().map(|(name, _)| name).filter(of_tests) {
            program.env_remove(name);
        }
        program
            .envs(&manifest.env)
            .env("RPC_HEALTH_ADDRESS", "127.0.0.1:0")
            .env("AMQP_URL", uri)
            .env("NOTIFY_SOCKET", notify_socket);
        Self(Process::start(&mut program).unwrap())
    }

    /// The status of a probe; `None` when nothing answers.
    async fn probe(&self, path: &str) -> Option<u16> {
        let probe = self.0.http().get(self.0.url(path)).header("user-agent", "kube-probe/1.33");
        Some(probe.send().await.ok()?.status().as_u16())
    }

    async fn until_probe_is(&self, path: &str, status: u16) {
        let begun = Instant::now();
        loop {
            let answer = self.probe(path).await;
            if answer == Some(status) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{path} answers {answer:?} instead of {status} for {LIMIT:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends SIGTERM, and says when.
    fn terminate(&self) -> Instant {
        let signalled = Instant::now();
        self.0.terminate().unwrap();
        signalled
    }

    async fn is_alive_until_it_exits(&self, live: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.probe(live).await;
            if self.0.has_exited_well().unwrap() {
                return;
            }
            // Between its last answer and its exit the process closes its sockets.
            assert!(matches!(answer, Some(200) | None), "{live} answers {answer:?}");
            assert!(begun.elapsed() < LIMIT, "the worker still runs {LIMIT:?} after it has drained");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The socket of a service manager.
struct NotifySocket {
    path: PathBuf,
    socket: UnixDatagram,
}

impl NotifySocket {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rpc-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { path, socket }
    }

    /// Reads up to a notification.
    fn until(&self, notification: &str) {
        let mut buffer = [0; 4_096];
        loop {
            let bytes = self.socket.recv(&mut buffer).expect("a notification");
            let text = std::str::from_utf8(&buffer[..bytes]).unwrap();
            if text.lines().any(|line| line == notification) {
                return;
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Passes connections on to the broker.
async fn forward(front: TcpListener, broker: String) {
    while let Ok((mut inner, _)) = front.accept().await {
        let broker = broker.clone();
        tokio::spawn(async move {
            if let Ok(mut outer) = TcpStream::connect(broker).await {
                let _ = copy_bidirectional(&mut inner, &mut outer).await;
            }
        });
    }
}

/// `host:port` of a URI.
fn address_of(uri: &str) -> String {
    let rest = uri.split_once("://").unwrap().1;
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

/// The same URI with another address.
fn uri_at(uri: &str, address: SocketAddr) -> String {
    uri.replacen(&address_of(uri), &address.to_string(), 1)
}

/// `cargo test -p rpc-examples` builds it, into the folder beside its tests; `--test deployed` alone does not.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "build it first: cargo build -p rpc-examples --examples");
    program
}

const LIMIT: Duration = Duration::from_secs(20);

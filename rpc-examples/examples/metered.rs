//! Metrics of a client and a pool, scraped as Prometheus does.
//!
//! ```sh
//! cargo run -p rpc-examples --example metered                     # scrapes itself, says what came, and ends
//! cargo run -p rpc-examples --example metered -- --listen 127.0.0.1:9464   # the address of the scrape endpoint
//! ```

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use clap::Parser;
use rpc_core::{CallError, Connection, WorkerPool, layer::MetricsLayer, service};
use rpc_examples::{ExampleBroker, Failure, telemetry};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// A desk that answers some questions.
#[service(name = "metered-desk")]
trait Desk {
    /// Answers even numbers.
    async fn ask(&self, n: u32) -> Result<u32, Odd>;
    /// Thinks for longer than most wait.
    async fn think(&self);
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{0} is odd")]
struct Odd(u32);

struct Clerk;

impl Desk for Clerk {
    async fn ask(&self, n: u32) -> Result<u32, Odd> {
        if n.is_multiple_of(2) { Ok(n) } else { Err(Odd(n)) }
    }
    async fn think(&self) {
        sleep(Duration::from_secs(60)).await;
    }
}

/// Calls a service, and scrapes the metrics of both ends.
#[derive(Parser)]
struct Arguments {
    /// Where the scrape endpoint listens; by default on a free port of this machine.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

/// Installs the recorder, with an endpoint for scrapes; returns its address.
fn export(listen: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    // The exporter does not tell its port, so a free one is chosen for it.
    let listen = match listen {
        Some(listen) => listen,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
    };
    telemetry::prometheus()?.with_http_listener(listen).install()?;
    Ok(listen)
}

/// Makes ten calls with an answer, half of them an error, and one that times out.
async fn work(connection: &Connection, metrics: MetricsLayer) -> Result<(), Failure> {
    let desk = DeskClient::new(connection).layer(metrics);
    for n in 0..10 {
        match desk.ask(n).await {
            Ok(_) | Err(CallError::Service { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match desk.think().timeout(Duration::from_millis(200)).await {
        Err(CallError::Timeout { .. }) => Ok(()),
        other => Err(Failure::new(format!("it is to time out: {other:?}"))),
    }
}

/// As Prometheus does: GET, and a text of lines `name{label="value",…} number`.
async fn scrape(endpoint: SocketAddr) -> Result<BTreeMap<String, f64>, Failure> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Failure::new("an answer without a head"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(Failure::new(format!("the endpoint answers {head}")));
    }
    // With the recorder's buckets, and not a summary.
    if !body.contains("# TYPE rpc_client_call_duration_seconds histogram\n") {
        return Err(Failure::new(format!("the times are no histogram: {body}")));
    }
    let samples = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| Failure::new(format!("no sample: {line}")))?;
        Ok((series.to_owned(), value.parse()?))
    });
    parsed.collect()
}

/// The sum of the series of a name that have all these labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[Label]) -> f64 {
    let has_all = |series: &str| labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")));
    let found = samples.iter().filter(|(series, _)| series.split('{').next() == Some(name) && has_all(series));
    found.map(|(_, value)| value).sum()
}

/// Its name and its value.
type Label = (&'static str, &'static str);

const ASK: Label = ("rpc_method", "metered-desk/ask");
const THINK: Label = ("rpc_method", "metered-desk/think");

/// The series that must be there, and their values.
const EXPECTED: [(&str, &[Label], f64); 7] = [
    ("rpc_client_call_duration_seconds_count", &[ASK, ("rpc_response_status_code", "ok")], 5.0),
    ("rpc_client_call_duration_seconds_count", &[ASK, ("error_type", "service")], 5.0),
    ("rpc_server_call_duration_seconds_bucket", &[ASK, ("le", "+Inf")], 10.0),
    ("rpc_client_call_duration_seconds_count", &[THINK, ("error_type", "timeout")], 1.0),
    ("rpc_amqp_client_timeouts_total", &[THINK], 1.0),
    ("rpc_amqp_client_active_calls", &[], 0.0),
    ("rpc_amqp_server_active_calls", &[], 0.0),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let endpoint = export(Arguments::parse().listen)?;
    // After the recorder, so that the metrics are described to it.
    let metrics = MetricsLayer::new();
    let broker = ExampleBroker::from_env().await?;
    let connection = Connection::open(broker.uri()).await?;
    let pool = WorkerPool::new(&connection).layer(metrics.clone()).serve(DeskServer::new(Clerk)).start().await?;
    work(&connection, metrics).await?;
    // The worker stops its handler a moment later than the caller gives up.
    let scraped = timeout(Duration::from_secs(10), async {
        loop {
            let samples = scrape(endpoint).await?;
            match EXPECTED.iter().all(|(name, labels, value)| (sum(&samples, name, labels) - value).abs() < 1e-9) {
                true => return Ok::<_, Failure>(samples),
                false => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let samples = match scraped.await {
        Ok(samples) => samples?,
        Err(_) => {
            let samples = scrape(endpoint).await?;
            return Err(Failure::new(format!("these samples are not as they should be: {samples:#?}")));
        }
    };
    println!("{} samples from http://{endpoint}/metrics, among them", samples.len());
    for (name, labels, value) in EXPECTED {
        println!("{name} {labels:?}: {value}");
    }
    for method in pool.stats().methods {
        println!("the pool itself: {}: {} calls, errors {:?}", method.method, method.calls, method.errors);
    }
    pool.shutdown(Duration::from_secs(5)).await?;
    connection.close().await?;
    broker.stop().await;
    Ok(())
}

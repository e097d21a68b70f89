//! The three ends of an echo call, each on a current-thread runtime.

use std::{cell::Cell, io::Read, rc::Rc, time::Duration};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use rpc_core::{
    Client, ClientOptions, Connection, DedupeOptions, RetryPolicy, WorkerPool,
    broker::Broker,
    layer::{
        self, AuthLayer, Authenticator, Caller, CircuitBreaker, Denied, MetricsLayer, Next, Request, RpcLayer, Token,
        TokenLayer, TraceLayer,
    },
    service,
};
use tokio::task::LocalSet;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{Result, processes};

/// Calls in flight.
pub(crate) const IN_FLIGHT: u64 = 64;

/// The echo.
#[service(name = "cost")]
trait Cost {
    /// Gives its argument back.
    async fn echo(&self, text: String) -> String;
}

struct Echo;

impl Cost for Echo {
    async fn echo(&self, text: String) -> String {
        text
    }
}

/// With its key and lengths a body of 32 bytes.
const TEXT: &str = "sixteen and nine letters.";
const PREFETCH: u16 = 256;

/// Serves until stdin is closed.
pub(crate) fn broker() -> Result<()> {
    block_on(async {
        let broker = Broker::start().await?;
        println!("{}", broker.uri());
        processes::stdin_closed().await
    })
}

/// The layer of an end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    /// One that does nothing.
    EmptyLayer,
    /// A `TraceLayer` whose spans nobody wants.
    TraceLayer,
    /// A `TraceLayer` whose spans a registry of `tracing-subscriber` collects.
    Spans,
    /// A `TokenLayer` with a token that does not end, or an `AuthLayer` that knows one.
    Tokens,
    /// A `CircuitBreaker`, of a client.
    Breaker,
    /// A `MetricsLayer` before a Prometheus recorder.
    MetricsLayer,
    /// Percentiles of the times of calls.
    Percentiles,
    /// The default policy for retries, of a client.
    Retries,
    /// The default memory of answers, of a worker.
    Memory,
}

fn empty_layer() -> impl RpcLayer {
    layer::from_fn(|request: Request, next: Next| next.run(request))
}

/// Behind it, the recorder that most programs have.
fn metrics_layer() -> Result<MetricsLayer> {
    PrometheusBuilder::new().set_buckets(&MetricsLayer::BUCKETS)?.install_recorder()?;
    Ok(MetricsLayer::new())
}

/// All spans of calls are wanted, and kept until they end, as a program with an exporter has them.
fn trace_layer() -> Result<TraceLayer> {
    let spans = Targets::new().with_target("rpc_core::layer::trace", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(spans).try_init()?;
    Ok(TraceLayer::new())
}

const TOKEN: &str = "a token of some length";

/// Knows one token.
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    type Identity = ();

    async fn authenticate(&self, token: &str, _: &Request) -> Result<(), Denied> {
        if token == TOKEN { Ok(()) } else { Err(Denied::unauthenticated("another token")) }
    }

    fn caller(&self, _: &()) -> Caller {
        Caller::new("a caller")
    }
}

/// Answers until stdin is closed.
pub(crate) fn worker(uri: &str, around: Around) -> Result<()> {
    block_on(async {
        let connection = Connection::open(uri).await?;
        let pool = WorkerPool::new(&connection).serve(CostServer::new(Echo));
        let pool = match around {
            Around::Nothing | Around::Retries | Around::Breaker => pool,
            Around::Spans => pool.layer(trace_layer()?),
            Around::Tokens => pool.layer(AuthLayer::new(Tokens)),
            Around::Percentiles => pool.stats(true),
            Around::MetricsLayer => pool.layer(metrics_layer()?),
            Around::Memory => pool.dedupe(DedupeOptions::default()),
            Around::EmptyLayer => pool.layer(empty_layer()),
            Around::TraceLayer => pool.layer(TraceLayer::new()),
        };
        let pool = pool.concurrency(PREFETCH.into()).prefetch(PREFETCH).start().await?;
        // A worker ends its turn when its handlers have run for some time, and that depends on the machine under
        // callgrind. So the clock stands still; tokio lets it jump, unless there is a blocking task.
        let stdin_closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::time::pause();
        println!("ready");
        stdin_closed.await??;
        tokio::time::resume();
        pool.shutdown(Duration::from_secs(30)).await?;
        Ok(())
    })
}

/// Makes so many calls.
pub(crate) fn client(uri: &str, calls: u64, around: Around) -> Result<()> {
    block_on(async {
        let connection = Connection::open(uri).await?;
        let options = ClientOptions::default();
        let options = match around {
            Around::Retries => options.retry(RetryPolicy::default()),
            Around::Percentiles => options.stats(true),
            _ => options,
        };
        let client = Client::with_options(&connection, options);
        client.ready().await?;
        let client = CostClient::from_client(client);
        let client = match around {
            Around::Nothing | Around::Retries | Around::Percentiles | Around::Memory => client,
            Around::Spans => client.layer(trace_layer()?),
            Around::Tokens => client.layer(TokenLayer::new(Token::new(TOKEN))),
            Around::Breaker => client.layer(CircuitBreaker::new()),
            Around::MetricsLayer => client.layer(metrics_layer()?),
            Around::EmptyLayer => client.layer(empty_layer()),
            Around::TraceLayer => client.layer(TraceLayer::new()),
        };
        let left = Rc::new(Cell::new(calls));
        let tasks: Vec<_> =
            (0..IN_FLIGHT).map(|_| tokio::task::spawn_local(call(client.clone(), left.clone()))).collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn call(client: CostClient, left: Rc<Cell<u64>>) -> Result<()> {
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        if client.echo(TEXT.to_owned()).await? != TEXT {
            return Err("a wrong answer".into());
        }
    }
    Ok(())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

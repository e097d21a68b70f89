//! A worker as it is deployed: configured by its environment, probed over HTTP, known to systemd, stopped by SIGTERM.
//!
//! ```sh
//! RPC_HEALTH_ADDRESS=127.0.0.1:8080 RPC_POOL__CONCURRENCY=4 cargo run -p rpc-examples --example deployed
//! curl -i http://127.0.0.1:8080/readyz
//! ```
//!
//! `AMQP_URL` is the broker; without it the program starts its own. The other variables begin with `RPC_` and name an option of the
//! connection or of the pool: `RPC_CONNECTION__WAIT_FOR_BROKER=30s`, `RPC_POOL__QUEUE_KIND=quorum`. `rpc-examples/deploy/` has a manifest for
//! Kubernetes and a unit for systemd.

use std::time::Duration;

use config::{Config, Environment};
use rpc_core::{Connection, ConnectionOptions, PoolOptions, WorkerPool, health::Health, service};
use rpc_examples::{ExampleBroker, Failure};
use serde::Deserialize;

/// The settings of this program.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    connection: ConnectionOptions,
    pool: PoolOptions,
    /// Where probes are answered; nowhere by default.
    health_address: Option<String>,
}

impl Settings {
    fn from_env() -> Result<Self, Failure> {
        let variables = Environment::with_prefix("RPC").prefix_separator("_").separator("__").try_parsing(true);
        Ok(Config::builder().add_source(variables).build()?.try_deserialize()?)
    }
}

/// The warehouse.
#[service]
trait Stock {
    /// Sets pieces aside, which takes its time; returns how many are left.
    #[rpc(timeout = "20s")]
    async fn reserve(&self, article: String, pieces: u32) -> u32;
}

struct Shelf;

impl Stock for Shelf {
    async fn reserve(&self, article: String, pieces: u32) -> u32 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{pieces} × {article} set aside");
        100_u32.saturating_sub(pieces)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    let health = Health::new();
    // First, so that there is an answer while the broker is not there yet.
    let server = match &settings.health_address {
        Some(address) => Some(health.serve(address).await?),
        None => None,
    };
    if let Some(server) = &server {
        println!("listening on {}", server.local_addr());
    }
    let _systemd = health.notify_systemd();

    let broker = ExampleBroker::from_env().await?;
    let connection = Connection::open_with(broker.uri(), settings.connection).await?;
    let pool = WorkerPool::new(&connection).serve(StockServer::new(Shelf)).options(settings.pool).start().await?;
    health.pool("stock", &pool);
    println!("serving stock");

    let report = pool.run_until_signal(DRAIN).await?;
    println!("drained after {} answers", report.stats.answered);
    connection.close().await?;
    broker.stop().await;
    Ok(())
}

/// Less than the 30 s after which Kubernetes kills.
const DRAIN: Duration = Duration::from_secs(25);

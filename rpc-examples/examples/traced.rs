//! One trace through a client and two services, exported by OTLP.
//!
//! ```sh
//! docker run --rm -p 4318:4318 -p 16686:16686 jaegertracing/jaeger    # or any collector
//! cargo run -p rpc-examples --example traced                           # OTEL_EXPORTER_OTLP_ENDPOINT says where else one is
//! ```
//!
//! Without a collector the program says so, and ends in order all the same: traces are never a reason to fail.

use std::time::Duration;

use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use rpc_core::{Connection, PoolHandle, WorkerPool, layer::TraceLayer, service};
use rpc_examples::{ExampleBroker, Failure, telemetry};
use tracing::Instrument;

/// The shop, which asks the warehouse.
#[service]
trait Shop {
    /// Sells that many; returns how many are left.
    async fn sell(&self, article: String, pieces: u32) -> u32;
}

/// The warehouse.
#[service]
trait Stock {
    /// Takes them out; returns how many are left.
    async fn take(&self, article: String, pieces: u32) -> u32;
    /// Notes something for later.
    #[rpc(oneway)]
    async fn note(&self, text: String);
}

struct Counter(StockClient);

impl Shop for Counter {
    async fn sell(&self, article: String, pieces: u32) -> u32 {
        let stock = self.0.clone();
        let text = format!("{article} sold");
        // In another task, and still in the trace.
        rpc_core::spawn(async move { stock.note(text).await });
        self.0.take(article, pieces).await.unwrap_or(0)
    }
}

struct Shelf;

impl Stock for Shelf {
    async fn take(&self, article: String, pieces: u32) -> u32 {
        tracing::info!(article, pieces, "taken");
        100_u32.saturating_sub(pieces)
    }
    async fn note(&self, text: String) {
        tracing::info!(text, "noted");
    }
}

/// Both services in one program; in real life each is one of its own, with the same layer.
async fn serve(connection: &Connection) -> Result<PoolHandle, Failure> {
    let stock = StockClient::new(connection).layer(TraceLayer::new());
    let pool = WorkerPool::new(connection).layer(TraceLayer::new().log_requests(true));
    Ok(pool.serve(ShopServer::new(Counter(stock))).serve(StockServer::new(Shelf)).start().await?)
}

/// Log lines as `RUST_LOG` says, and the spans of calls and of this program to the collector.
fn trace() -> Result<SdkTracerProvider, Failure> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder().with_service_name("traced").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    telemetry::trace(&provider, "traced", "warn,traced=info,rpc_core::requests=info");
    Ok(provider)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let provider = trace()?;
    let broker = ExampleBroker::from_env().await?;
    let connection = Connection::open(broker.uri()).await?;
    let pool = serve(&connection).await?;
    let shop = ShopClient::new(&connection).layer(TraceLayer::new());

    let order = tracing::info_span!("order");
    order.in_scope(|| telemetry::print_trace("the order"));
    let left = shop.sell("nut".to_owned(), 12).into_future().instrument(order).await?;
    println!("{left} are left");

    pool.shutdown(Duration::from_secs(5)).await?;
    connection.close().await?;
    broker.stop().await;
    // It blocks until the collector has answered.
    match tokio::task::spawn_blocking(move || provider.force_flush().and_then(|()| provider.shutdown())).await? {
        Ok(()) => println!("the collector has its spans"),
        Err(error) => println!("no collector took its spans: {error}"),
    }
    Ok(())
}

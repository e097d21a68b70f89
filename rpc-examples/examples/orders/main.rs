//! A whole application: orders over HTTP, a desk that takes them, and the warehouse behind it, each a process of its own.
//!
//! ```sh
//! cargo run --release -p rpc-examples --example orders                   # all of it, on the bundled broker
//! cargo run --release -p rpc-examples --example orders -- --url amqp://localhost
//! ```
//!
//! Without a role the program starts itself in the three roles, sends them requests, and says what came of these. It exits 0 only if all
//! was well.

#![allow(unreachable_pub, reason = "in real life the modules are crates")]

mod contract;
mod demo;
mod roles;
mod services;

use std::time::Duration;

use clap::Parser;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rpc_core::{Connection, ConnectionOptions, health::Health};
use rpc_examples::{BrokerArgs, Failure, telemetry};

/// Orders over HTTP, by three processes and a broker
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The part to run: stock, orders or front; without one, all of them
    role: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let broker = args.broker.broker().await?;
    let Some(role) = args.role else {
        demo::run(broker.uri()).await?;
        broker.stop().await;
        return Ok(());
    };
    // Spans get trace ids; for an exporter see the example `traced`.
    telemetry::trace(&SdkTracerProvider::builder().build(), "orders", "error");
    let prometheus = telemetry::prometheus()?.install_recorder()?;
    let health = Health::new();
    health.metrics(move || prometheus.render());
    // The broker may not be there yet.
    let options = ConnectionOptions::default().wait_for_broker(Duration::from_secs(30));
    let connection = Connection::open_with(broker.uri(), options).await?;
    match &*role {
        "stock" => roles::stock(&connection, health).await,
        "orders" => roles::orders(&connection, health).await,
        "front" => roles::front(&connection, health).await,
        _ => Err(Failure::new(format!("there is no role '{role}'"))),
    }
}

//! A whole application: orders over HTTP, a desk that takes them, and the warehouse behind it, each a process of its own.
//!
//! ```sh
//! cargo run --release -p rpc-examples --example orders                   # all of it, on the bundled broker
//! cargo run --release -p rpc-examples --example orders -- --url amqp://localhost
//! ```
//!
//! Without a role the program starts itself in the three roles, sends them requests, and says what came of these. It exits 0 only if all
//! was well: tokens are checked in one place, one trace goes through all processes, metrics can be scraped, a busy warehouse is asked
//! again, a breaker opens while nobody answers, and SIGTERM under load costs no request.

#![allow(unreachable_pub, reason = "in real life the modules are crates")]

mod contract;
mod demo;
mod roles;
mod services;
mod telemetry;

use clap::{Parser, Subcommand};
use rpc_examples::{BrokerArgs, Failure};

/// Orders over HTTP, by three processes and a broker
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The part to run; without one, all of them
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// The warehouse
    Stock,
    /// The desk, which asks the warehouse
    Orders,
    /// The web server, which asks the desk
    Front,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let broker = args.broker.broker().await?;
    match args.role {
        Some(Role::Stock) => roles::stock(broker.uri()).await,
        Some(Role::Orders) => roles::orders(broker.uri()).await,
        Some(Role::Front) => roles::front(broker.uri()).await,
        None => {
            demo::run(broker.uri()).await?;
            broker.stop().await;
            Ok(())
        }
    }
}

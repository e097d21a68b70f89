//! Serves Fibonacci numbers until ctrl-c or SIGTERM, then finishes what it has begun.
//!
//! ```sh
//! cargo run -p rpc-examples --example fib_server
//! cargo run -p rpc-examples --example fib_client -- 30 --url amqp://127.0.0.1:PORT    # as the server says
//! ```
//!
//! Exit codes: 0 drained, 1 no broker or the broker was lost, 2 wrong arguments.

use std::time::Duration;

use clap::Parser;
use rpc_core::WorkerPool;
use rpc_examples::{
    BrokerArgs, Failure,
    fibonacci::{Calculator, FibonacciServer},
};

/// Serves Fibonacci numbers over AMQP until ctrl-c or SIGTERM
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Calls computed at once
    #[arg(long, value_name = "CALLS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Seconds that calls under way get to finish when the server stops
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let broker = args.broker.broker().await?;
    let connection = broker.connect(0).await?;
    let pool = WorkerPool::new(&connection)
        .serve(FibonacciServer::new(Calculator))
        .concurrency(args.concurrency.into())
        .start()
        .await?;
    println!("serving fibonacci on {broker}");

    let report = pool.run_until_signal(Duration::from_secs(args.drain)).await?;
    match report.aborted {
        0 => println!("drained after {} answers", report.stats.answered),
        aborted => println!("{aborted} calls took longer than {} s and were requeued", args.drain),
    }
    connection.close().await?;
    broker.stop().await;
    Ok(())
}

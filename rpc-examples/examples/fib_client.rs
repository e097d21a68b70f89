//! Asks a running `fib_server` for one Fibonacci number.
//!
//! ```sh
//! cargo run -p rpc-examples --example fib_client -- 30 --url amqp://127.0.0.1:PORT
//! ```
//!
//! Exit codes: 0 answered, 1 no answer (the reason is on stderr), 2 wrong arguments.

use clap::{CommandFactory, Parser, error::ErrorKind};
use rpc_examples::{BrokerArgs, Failure, fibonacci::FibonacciClient};

/// Asks a running fib_server for a Fibonacci number
#[derive(Parser)]
#[command(name = "fib_client")]
struct Args {
    /// Which Fibonacci number: 0 to 93, with --recursive 0 to 40
    n: u32,
    /// Have it computed the slow way, by the recursive definition
    #[arg(long)]
    recursive: bool,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Args { n, recursive, broker } = Args::parse();
    if !broker.is_given() {
        let message = "no broker to ask: give --url or set AMQP_URL (fib_server prints the URI to use)";
        Args::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    let connection = broker.broker().await?.connect(0).await?;
    let fibonacci = FibonacciClient::new(&connection);
    let answer = if recursive { fibonacci.fib_recursive(n).await? } else { fibonacci.fib(n).await? };
    println!("fib({n}) = {answer}");
    connection.close().await?;
    Ok(())
}

//! Speaks to the RabbitMQ tutorials' RPC programs, in both directions, with no wrapper on the wire: the queue
//! `rpc_queue`, the number as text, `reply_to` and `correlation_id`.
//!
//! ```sh
//! cargo run -p rpc-examples --example tutorial_rpc -- serve      # then: python rpc_client.py
//! cargo run -p rpc-examples --example tutorial_rpc -- call 30    # while: python rpc_server.py
//! cargo run -p rpc-examples --example tutorial_rpc               # both ends in one process
//! ```

use std::time::Duration;

use clap::{Parser, Subcommand};
use rpc_core::{Connection, PoolHandle, WorkerPool, service};
use rpc_examples::{BrokerArgs, Failure, fibonacci};
use serde::{Deserialize, Serialize};

/// The tutorial's server: one queue, one method, the argument alone as the body.
#[service(queue = "rpc_queue")]
trait Tutorial {
    /// The n-th Fibonacci number.
    async fn fib(&self, n: u32) -> Result<u64, TooLarge>;
}

/// The service's own error: its text is the number alone.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("fib({0}) is too large")]
struct TooLarge(u32);

struct Server;

impl Tutorial for Server {
    async fn fib(&self, n: u32) -> Result<u64, TooLarge> {
        println!(" [.] fib({n})");
        if n <= fibonacci::MAX_N { Ok(fibonacci::iterative(n)) } else { Err(TooLarge(n)) }
    }
}

/// Speaks to the RabbitMQ tutorials' RPC programs (queue rpc_queue); without a command, to itself
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Answers rpc_client.py until ctrl-c or SIGTERM
    Serve,
    /// Asks rpc_server.py
    Call {
        /// Which Fibonacci number
        #[arg(default_value_t = 30)]
        n: u32,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let broker = args.broker.broker().await?;
    let connection = Connection::open(broker.uri()).await?;
    match args.command {
        Some(Command::Serve) => {
            let pool = serve(&connection).await?;
            println!(" [x] Awaiting RPC requests on {broker}");
            pool.run_until_signal(Duration::from_secs(10)).await?;
        }
        Some(Command::Call { n }) => call(&connection, n).await?,
        None => {
            let pool = serve(&connection).await?;
            call(&connection, 30).await?;
            pool.shutdown(Duration::from_secs(10)).await?;
        }
    }
    connection.close().await?;
    broker.stop().await;
    Ok(())
}

async fn serve(connection: &Connection) -> Result<PoolHandle, Failure> {
    // The tutorial's server takes one request at a time.
    Ok(WorkerPool::new(connection).serve(TutorialServer::new(Server)).concurrency(1).start().await?)
}

async fn call(connection: &Connection, n: u32) -> Result<(), Failure> {
    println!(" [x] Requesting fib({n})");
    let answer = TutorialClient::new(connection).fib(n).await?;
    println!(" [.] Got {answer}");
    Ok(())
}

//! The bundled broker beside another one (RabbitMQ), under the same frames, in one run.
//!
//! ```text
//!  tests/with-rabbitmq cargo bench -p rpc-tests --bench broker             every row, RabbitMQ beside it
//!  cargo bench -p rpc-tests --bench broker -- table --quick --only rpc     some rows, the bundled broker alone
//!  cargo bench -p rpc-tests --bench broker -- instructions                 of the broker per echo call (valgrind)
//! ```
//!
//! The load is frames made beforehand, written many at a time, and answers that are counted and hardly read: a client
//! library would be the bottleneck. Each broker is a process of its own; rounds are interleaved and medians count.

mod brokers;
#[path = "../shared/callgrind.rs"]
#[allow(dead_code, reason = "the broker's allocations are the cost gate's")]
mod callgrind;
mod instructions;
mod link;
mod loads;
#[path = "../shared/processes.rs"]
mod processes;
mod relay;
mod table;

use clap::{Parser, Subcommand};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Measures the broker's cost.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares throughput, latency, CPU time and memory.
    Table(table::Arguments),
    /// Counts the broker's instructions per echo call (needs valgrind).
    Instructions,
    /// Runs the bundled broker until stdin ends.
    #[command(hide = true)]
    Broker,
    /// Copies what one connection sends to another one until stdin ends.
    #[command(hide = true)]
    Relay,
}

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`; `cargo test --all-targets` adds nothing and expects no measurement.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let mut arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    if arguments.len() == 1 {
        if !is_bench {
            println!("nothing measured: run `cargo bench -p rpc-tests --bench broker`, or name a command (--help)");
            return Ok(());
        }
        arguments.push("table".to_owned());
    }
    match Arguments::parse_from(arguments).command {
        Command::Table(arguments) => table::run(&arguments),
        Command::Instructions => instructions::run(),
        Command::Broker => brokers::serve(),
        Command::Relay => relay::serve(),
    }
}

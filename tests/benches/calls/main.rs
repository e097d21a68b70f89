//! The cost of a call: the framework beside lapin programs written by hand, on the same broker, in one run.
//!
//! ```text
//!  cargo bench -p rpc-tests --bench calls                                 throughput, bundled broker
//!  cargo bench -p rpc-tests --bench calls -- throughput --quick --url amqp://localhost
//!  cargo bench -p rpc-tests --bench calls -- acks                         what each AckPolicy costs
//!  cargo bench -p rpc-tests --bench calls -- layer                        instructions and allocations per call
//!  cargo bench -p rpc-tests --bench calls -- startup                      Broker::start() to the first answer
//! ```
//!
//! Absolute figures belong to a machine and its other work: compare within one run. Every measurement runs in
//! processes of its own, which are this program again with another command (`client`, `worker`, `broker`,
//! `first-call`).

mod acks;
mod broker;
#[path = "../shared/callgrind.rs"]
mod callgrind;
mod layer;
mod load;
#[path = "../shared/processes.rs"]
mod processes;
mod startup;
mod subjects;
mod throughput;

use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::{processes::Process, subjects::Subject};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Measures the cost of a call.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares calls per second, latency and CPU time.
    Throughput(throughput::Arguments),
    /// Compares the policies of acknowledging.
    Acks(acks::Arguments),
    /// Counts the instructions and allocations of the framework above bare lapin (needs valgrind).
    Layer(layer::Arguments),
    /// Times `Broker::start()` to the first answered call.
    Startup(startup::Arguments),
    /// Measures one subject's client; for the commands above.
    #[command(hide = true)]
    Client(load::Arguments),
    /// Runs one subject's worker until stdin ends.
    #[command(hide = true)]
    Worker(Role),
    /// Runs the bundled broker until stdin ends.
    #[command(hide = true)]
    Broker,
    /// Makes one call to a new broker and prints how many microseconds that took.
    #[command(hide = true)]
    FirstCall {
        #[arg(long)]
        runtime: Flavour,
    },
}

/// The parameters of both ends of a measurement.
#[derive(Args, Clone)]
struct Role {
    #[arg(long)]
    subject: Subject,
    #[arg(long)]
    url: String,
    #[arg(long)]
    runtime: Flavour,
}

impl Role {
    /// Starts a client or worker; under callgrind when `profile` names a file.
    fn start(&self, command: &str, more: &[&str], profile: Option<&Path>) -> Result<Process> {
        let arguments =
            [command, "--subject", self.subject.name(), "--url", &self.url, "--runtime", self.runtime.name()];
        Process::start(&[&arguments, more].concat(), profile)
    }
}

/// The tokio runtime a client or worker runs on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavour {
    /// `current_thread`.
    Current,
    /// `multi_thread` with two threads.
    Multi,
}

impl Flavour {
    const ALL: [Self; 2] = [Self::Current, Self::Multi];

    fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Multi => "multi",
        }
    }

    fn block_on<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut builder = match self {
            Self::Current => tokio::runtime::Builder::new_current_thread(),
            Self::Multi => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.worker_threads(2).enable_all().build()?.block_on(work)
    }
}

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`; `cargo test --all-targets` adds nothing and expects no measurement.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let mut arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    if arguments.len() == 1 {
        if !is_bench {
            println!("nothing measured: run `cargo bench -p rpc-tests --bench calls`, or name a command (--help)");
            return Ok(());
        }
        arguments.push("throughput".to_owned());
    }
    match Arguments::parse_from(arguments).command {
        Command::Throughput(arguments) => throughput::run(&arguments),
        Command::Acks(arguments) => acks::run(&arguments),
        Command::Layer(arguments) => layer::run(&arguments),
        Command::Startup(arguments) => startup::run(&arguments),
        Command::Client(arguments) => load::client(&arguments),
        Command::Worker(role) => load::worker(&role),
        Command::Broker => broker::serve(),
        Command::FirstCall { runtime } => startup::first_call(runtime),
    }
}

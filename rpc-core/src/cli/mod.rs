//! The arguments of the `rpc` program, and its commands.

mod broker;
mod burst;
mod limits;
mod open_files;
#[cfg(feature = "tls")]
mod tls;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};

/// Runs the program, and returns its exit status.
///
/// Prints errors to stderr. They end in status 1, and wrong arguments end the process with status 2. `give_back_memory` is
/// called when messages took much memory a short time ago and do no longer.
///
/// # Cancel safety
/// Dropping the future early stops the command as dropping a [`Broker`](crate::broker::Broker) does.
pub async fn run(give_back_memory: fn()) -> std::process::ExitCode {
    let Arguments { command, log } = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&log).unwrap_or_else(|error| {
        eprintln!("rpc: --log '{log}' is not a filter ({error}); using 'info'");
        tracing_subscriber::EnvFilter::new("info")
    });
    // A file or a pipe gets no colours.
    let is_plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(!is_plain).with_writer(std::io::stderr).init();
    let outcome = match command {
        Command::Broker(arguments) => broker::run(arguments, give_back_memory).await,
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc: {}", with_sources(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// An error and its causes, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// Remote procedure calls over AMQP 0-9-1.
#[derive(Debug, Parser)]
#[command(name = "rpc", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The log level on stderr: off, error, warn, info, debug, trace, or a filter such as rpc_core=debug.
    #[arg(long, global = true, default_value = "warn", env = "RPC_LOG")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the bundled broker until SIGTERM or SIGINT.
    ///
    /// It keeps everything in memory. All messages end with it, also at SIGTERM, and also those that it has confirmed:
    /// persistent messages in durable queues too. It is for tests and development.
    Broker(broker::Arguments),
}

#[cfg(test)]
mod tests {
    use crate::broker::BrokerError;

    #[test]
    fn a_taken_address_is_reported_once_with_its_reason() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let reason = source.to_string();
        let error = BrokerError::Bind { address: ([127, 0, 0, 1], 5672).into(), source };
        assert_eq!(super::with_sources(&error), format!("cannot listen on 127.0.0.1:5672: {reason}"));
    }
}

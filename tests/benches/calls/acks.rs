//! The cost of each `AckPolicy`: the framework with each of them, in turn, on the same broker.

use clap::Args;

use crate::{Flavour, Result, subjects::Subject, throughput};

/// The `acks` command.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Measure on this broker too (RabbitMQ, say).
    #[arg(long, env = "AMQP_URL")]
    url: Option<String>,
    /// How often to measure each; the median counts.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long to measure each.
    #[arg(long, default_value_t = 700)]
    milliseconds: u64,
    /// Calls in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    in_flight: Vec<usize>,
}

/// Prints a Markdown table for each broker.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    throughput::run(&throughput::Arguments {
        url: arguments.url.clone(),
        url_only: false,
        quick: false,
        rounds: Some(arguments.rounds),
        milliseconds: Some(arguments.milliseconds),
        in_flight: arguments.in_flight.clone(),
        subjects: vec![Subject::Framework, Subject::AfterConfirmedReply, Subject::BeforeHandler],
        runtimes: vec![Flavour::Current],
    })
}

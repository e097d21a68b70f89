//! Instructions and allocations per call of the framework's layer, by callgrind.
//!
//! Counts repeat where times do not. Each end is measured in a process of its own under callgrind, while bare lapin
//! runs at the other end outside it: once as the framework, once as bare lapin that sends the same messages. Start-up
//! and shutdown fall out of the difference between N and 2 N calls. Both counts include lapin, its io thread and
//! the load generator, which are the same on both sides; what is left is the layer.
//!
//! The clock runs on while callgrind takes fifty times as long: what the framework does by the clock (looking for
//! returned messages every few milliseconds) weighs more here than in life.

use std::path::Path;

use clap::Args;

use crate::{Flavour, Result, Role, broker::Target, callgrind::Counts, subjects::Subject, throughput::median};

/// The `layer` command.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Measure on this broker instead of the bundled one.
    #[arg(long, env = "AMQP_URL")]
    url: Option<String>,
    /// N: each measurement takes the difference between N and 2 N calls.
    #[arg(long, default_value_t = 2_000)]
    calls: u64,
    /// How often to measure; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Calls in flight.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// The subject to measure: `framework`, or `over-lapin`.
    #[arg(long, default_value = "framework")]
    subject: Subject,
    /// Keep callgrind's files here (for `callgrind_annotate`).
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
}

const TARGET_INSTRUCTIONS: f64 = 3_000.0;
const TARGET_ALLOCATIONS: f64 = 8.0;

/// The end under callgrind.
#[derive(Clone, Copy)]
enum End {
    Client,
    Worker,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let target = arguments.url.as_deref().map_or_else(Target::bundled, |url| Ok(Target::remote(url)))?;
    let subject = arguments.subject.name();
    println!("\n## {subject} above bare lapin, {}, {} in flight\n", target.name, arguments.in_flight);
    println!("| end | instructions a call: {subject} | bare | layer | allocations a call: {subject} | bare | layer |");
    println!("|---|---|---|---|---|---|---|");
    let mut layer = Counts { instructions: 0.0, allocations: 0.0 };
    for end in [End::Client, End::Worker] {
        let mut ours = Vec::new();
        let mut bare = Vec::new();
        for _ in 0..arguments.rounds {
            ours.push(per_call(arguments, &target.url, end, arguments.subject)?);
            bare.push(per_call(arguments, &target.url, end, Subject::Bare)?);
        }
        let (ours, bare) = (median_of(&ours), median_of(&bare));
        let more = Counts {
            instructions: ours.instructions - bare.instructions,
            allocations: ours.allocations - bare.allocations,
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |",
            end.command(),
            ours.instructions,
            bare.instructions,
            more.instructions,
            ours.allocations,
            bare.allocations,
            more.allocations
        );
        layer.instructions += more.instructions;
        layer.allocations += more.allocations;
    }
    let verdict = |count: f64, target: f64| if count <= target { "reached" } else { "MISSED" };
    println!(
        "\n- both ends: {:.0} instructions a call (target ≤ {TARGET_INSTRUCTIONS}: {}), {:.1} allocations a call (target ≤ \
         {TARGET_ALLOCATIONS}: {})",
        layer.instructions,
        verdict(layer.instructions, TARGET_INSTRUCTIONS),
        layer.allocations,
        verdict(layer.allocations, TARGET_ALLOCATIONS),
    );
    target.stop()
}

/// The difference between 2 N and N calls, divided by N.
fn per_call(arguments: &Arguments, url: &str, end: End, subject: Subject) -> Result<Counts> {
    let directory = arguments.keep.clone().unwrap_or_else(std::env::temp_dir);
    let profile =
        directory.join(format!("calls-{}-{}.{}.callgrind", end.command(), subject.name(), std::process::id()));
    let mut counts = [Counts { instructions: 0.0, allocations: 0.0 }; 2];
    for (times, counts) in counts.iter_mut().enumerate() {
        let calls = arguments.calls * (times as u64 + 1);
        call(arguments, url, end, subject, calls, &profile)?;
        *counts = Counts::read(&profile)?;
    }
    if arguments.keep.is_none() {
        std::fs::remove_file(&profile)?;
    }
    let [once, twice] = counts;
    Ok(Counts::per_call(once, twice, arguments.calls))
}

/// Makes so many calls with `subject` at one end, under callgrind, and bare lapin at the other.
fn call(arguments: &Arguments, url: &str, end: End, subject: Subject, calls: u64, profile: &Path) -> Result<()> {
    let role = |subject| Role { subject, url: url.to_owned(), runtime: Flavour::Current };
    let (calls, in_flight) = (calls.to_string(), arguments.in_flight.to_string());
    let load = ["--in-flight", &in_flight, "--calls", &calls];
    let (client, client_profile, worker, worker_profile) = match end {
        End::Client => (subject, Some(profile), Subject::Bare, None),
        End::Worker => (Subject::Bare, None, subject, Some(profile)),
    };
    let mut worker = role(worker).start("worker", &[], worker_profile)?;
    worker.line()?;
    // `stop` waits until it has made its calls.
    role(client).start("client", &load, client_profile)?.stop()?;
    worker.stop()
}

impl End {
    fn command(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }
}

fn median_of(rounds: &[Counts]) -> Counts {
    Counts {
        instructions: median(rounds.iter().map(|round| round.instructions).collect()),
        allocations: median(rounds.iter().map(|round| round.allocations).collect()),
    }
}
